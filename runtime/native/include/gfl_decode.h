// From the maps of a GFL head to boxes and scores, one value at a time, for host and device alike.
#pragma once

#include "cluster_diou.h"
#include "ld_settings.h"

namespace ld {

// sigmoid in float64, rounded: monotone, so that the order of logits is never changed by it.
LD_HOST_DEVICE float score_of_logit(float logit) {
    return static_cast<float>(1.0 / (1.0 + exp(-static_cast<double>(logit))));
}

// Bits of a float as a number with the order of the floats, and back.
inline int32_t ordered_bits(float value) {
    union {
        float number;
        int32_t bits;
    } word;
    word.number = value;
    return word.bits < 0 ? INT32_MIN - word.bits : word.bits;
}

inline float float_of_ordered_bits(int32_t ordered) {
    union {
        int32_t bits;
        float number;
    } word;
    word.bits = ordered < 0 ? INT32_MIN - ordered : ordered;
    return word.number;
}

// The smallest logit whose score is above the threshold: `logit >= it` is `score > score_threshold`, for NaN too. NaN
// where there is none. On the host, once a call.
inline float smallest_logit_above(float score_threshold) {
    if (!(1.0f > score_threshold)) return NAN;
    int32_t low = ordered_bits(-INFINITY), high = ordered_bits(INFINITY);
    while (low < high) {
        const int32_t middle = static_cast<int32_t>((static_cast<int64_t>(low) + high) >> 1);
        if (score_of_logit(float_of_ordered_bits(middle)) > score_threshold) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return float_of_ordered_bits(high);
}

// Expectation of a softmax over `bins` logits that stand `step` values apart, in strides. NaN where a logit is NaN or
// the largest is infinite.
template <class Value>
LD_HOST_DEVICE float expected_bin(const Value* logits, int64_t step, int32_t bins) {
    float largest = static_cast<float>(logits[0]);
    for (int32_t k = 1; k < bins; ++k) largest = larger(static_cast<float>(logits[k * step]), largest);
    float total = 0.0f, weighted = 0.0f;
    for (int32_t k = 0; k < bins; ++k) {
        const float part = expf(static_cast<float>(logits[k * step]) - largest);
        total += part;
        weighted += part * static_cast<float>(k);
    }
    return weighted / total;
}

// Keeps NaN, which fminf and fmaxf would turn into a border.
LD_HOST_DEVICE float clipped(float value, float most) { return value < 0.0f ? 0.0f : value > most ? most : value; }

// The box of a location: distances to the left, top, right and bottom side in strides, clipped to the canvas.
LD_HOST_DEVICE Box box_at(int32_t location, const float* distances, const LdLevel& level, const LdCandidateRule& rule) {
    const float stride = static_cast<float>(level.stride);
    const float x = static_cast<float>(location % level.width) * stride;
    const float y = static_cast<float>(location / level.width) * stride;
    return {clipped(x - distances[0] * stride, rule.canvas_width), clipped(y - distances[1] * stride, rule.canvas_height),
            clipped(x + distances[2] * stride, rule.canvas_width),
            clipped(y + distances[3] * stride, rule.canvas_height)};
}

}  // namespace ld
