// The pairwise part of Score-voting Cluster-DIoU-NMS, for host and device alike: every native form includes it.
//
// Compiled with -ffp-contract=off on the host and --fmad=false for the device: a fused multiply-add would differ from
// the numpy twin in the last bit.
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define LD_HOST_DEVICE __host__ __device__ __forceinline__
#define LD_ONE_LOAD alignas(16)  // of device memory, in one instruction
#else
#define LD_HOST_DEVICE inline
#define LD_ONE_LOAD
#endif

namespace ld {

struct LD_ONE_LOAD Box {
    float x1, y1, x2, y2;
};

// Of numbers, never NaN: on the host these are one instruction, which fminf and fmaxf are not.
LD_HOST_DEVICE float smaller(float a, float b) {
#ifdef __CUDA_ARCH__
    return fminf(a, b);
#else
    return a < b ? a : b;
#endif
}

LD_HOST_DEVICE float larger(float a, float b) {
#ifdef __CUDA_ARCH__
    return fmaxf(a, b);
#else
    return a > b ? a : b;
#endif
}

LD_HOST_DEVICE bool has_area(const Box& box) { return box.x2 > box.x1 && box.y2 > box.y1; }

// Is the candidate in? NaN, inverted and empty boxes are out, and so are padding rows.
LD_HOST_DEVICE bool is_in(const Box& box, float score, float score_threshold) {
    return score > score_threshold && has_area(box);
}

LD_HOST_DEVICE float area(const Box& box) { return (box.x2 - box.x1) * (box.y2 - box.y1); }

LD_HOST_DEVICE float inner_area(const Box& a, const Box& b) {
    const float w = larger(smaller(a.x2, b.x2) - larger(a.x1, b.x1), 0.0f);
    const float h = larger(smaller(a.y2, b.y2) - larger(a.y1, b.y1), 0.0f);
    return w * h;
}

LD_HOST_DEVICE float iou(const Box& a, const Box& b) {
    const float inner = inner_area(a, b);
    return inner / (area(a) + area(b) - inner);
}

// rho^2 / (c^2 + 1e-7): squared distance of the centres over the squared diagonal of the enclosing box.
LD_HOST_DEVICE float centre_distance(const Box& a, const Box& b) {
    const float w = larger(a.x2, b.x2) - smaller(a.x1, b.x1);
    const float h = larger(a.y2, b.y2) - smaller(a.y1, b.y1);
    const float x = (a.x1 + a.x2) - (b.x1 + b.x2);
    const float y = (a.y1 + a.y2) - (b.y1 + b.y2);
    return (x * x + y * y) * 0.25f / (w * w + h * h + 1e-7f);
}

LD_HOST_DEVICE float power(float base, double exponent) {
#ifdef __CUDA_ARCH__
    return powf(base, static_cast<float>(exponent));
#else
    return static_cast<float>(pow(static_cast<double>(base), exponent));
#endif
}

// D(a, b) = IoU - (rho^2 / (c^2 + 1e-7))^distance_exponent where it is above the threshold, else `threshold`: D is
// never above the IoU, so the power is taken for few pairs only.
LD_HOST_DEVICE float distance_iou_above(const Box& a, const Box& b, float threshold, double distance_exponent) {
    const float overlap = iou(a, b);
    if (!(overlap > threshold)) return threshold;
    const float d = overlap - power(centre_distance(a, b), distance_exponent);
    return d > threshold ? d : threshold;
}

LD_HOST_DEVICE float vote_weight(float d, float score, float vote_sigma) {
    const float away = 1.0f - d;
    return expf(-(away * away) / vote_sigma) * score;
}

}  // namespace ld
