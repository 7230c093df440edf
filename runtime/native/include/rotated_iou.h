// IoU of rotated boxes, for host and device alike. The mathematics is that of
// ld_runtime.rotated_nms, the readable twin, which says why it holds; compiled without fused multiply-add, as
// cluster_diou.h.
#pragma once

#include "cluster_diou.h"

namespace ld {

// cx cy w h angle: pixels and radians, the angle clockwise on the screen, from the x axis to the side w.
struct RotatedBox {
    float x, y, w, h, angle;
};

LD_HOST_DEVICE bool is_finite(float value) { return value - value == 0.0f; }

LD_HOST_DEVICE bool is_in(const RotatedBox& box, float score, float score_threshold) {
    return score > score_threshold && box.w > 0.0f && box.h > 0.0f && is_finite(box.x) && is_finite(box.y) &&
           is_finite(box.w) && is_finite(box.h) && is_finite(box.angle);
}

// A box as its pairs need it.
template <class Real>
struct TurnedBox {
    Real x, y, half_w, half_h, cos, sin;
};

template <class Real>
LD_HOST_DEVICE TurnedBox<Real> turned(const RotatedBox& box) {
    const Real angle = static_cast<Real>(box.angle), half = static_cast<Real>(0.5);
    return {static_cast<Real>(box.x), static_cast<Real>(box.y), static_cast<Real>(box.w) * half,
            static_cast<Real>(box.h) * half, ::cos(angle), ::sin(angle)};
}

// Where another box is, seen from the centre of the first and along its axes; cosine and sine of its angle there.
template <class Real>
struct Place {
    Real x, y, cos, sin;
};

template <class Real>
LD_HOST_DEVICE Place<Real> seen_from(const TurnedBox<Real>& own, const TurnedBox<Real>& other) {
    const Real x = other.x - own.x, y = other.y - own.y;
    return {own.cos * x + own.sin * y, own.cos * y - own.sin * x, own.cos * other.cos + own.sin * other.sin,
            own.cos * other.sin - own.sin * other.cos};
}

template <class Real>
LD_HOST_DEVICE Real magnitude(Real value) {
    return value < 0 ? -value : value;
}

template <class Real>
LD_HOST_DEVICE Real clipped_to(Real value, Real low, Real high) {
    const Real raised = value > low ? value : low;
    return raised < high ? raised : high;
}

// Does some side of one have all of the other on its outside?
template <class Real>
LD_HOST_DEVICE bool are_apart(const TurnedBox<Real>& own, const TurnedBox<Real>& other, const Place<Real>& at) {
    const Real c = magnitude(at.cos), s = magnitude(at.sin);
    return magnitude(at.x) >= own.half_w + c * other.half_w + s * other.half_h ||
           magnitude(at.y) >= own.half_h + s * other.half_w + c * other.half_h ||
           magnitude(at.cos * at.x + at.sin * at.y) >= other.half_w + c * own.half_w + s * own.half_h ||
           magnitude(at.cos * at.y - at.sin * at.x) >= other.half_h + s * own.half_w + c * own.half_h;
}

// Edges shorter than this along an axis do not move along it: their inverse would overflow.
template <class Real>
LD_HOST_DEVICE Real inverse(Real length) {
    const Real least = sizeof(Real) == sizeof(float) ? static_cast<Real>(1e-30) : static_cast<Real>(0);
    return magnitude(length) > least ? 1 / length : 0;
}

// An edge's direction, and the inverse of its parts.
template <class Real>
struct Edge {
    Real dx, dy, per_x, per_y;
};

template <class Real>
LD_HOST_DEVICE Edge<Real> edge_along(Real dx, Real dy) {
    return {dx, dy, inverse(dx), inverse(dy)};
}

// Integral of clip(y, -half_h, half_h) dx along an edge that starts at (x, y), as far as |x| <= half_w.
template <class Real>
LD_HOST_DEVICE Real strip(Real x, Real y, const Edge<Real>& edge, Real half_w, Real half_h) {
    const Real zero = 0, one = 1;
    const Real left = clipped_to((-half_w - x) * edge.per_x, zero, one);
    const Real right = clipped_to((half_w - x) * edge.per_x, zero, one);
    const Real enters = left < right ? left : right, leaves = left < right ? right : left;
    const Real top = clipped_to((-half_h - y) * edge.per_y, enters, leaves);
    const Real bottom = clipped_to((half_h - y) * edge.per_y, enters, leaves);
    const Real y_enters = clipped_to(y + edge.dy * enters, -half_h, half_h);
    const Real y_leaves = clipped_to(y + edge.dy * leaves, -half_h, half_h);
    const Real middle = (top + bottom) / 2;
    return edge.dx * (y_enters * (middle - enters) + y_leaves * (leaves - middle));
}

template <class Real>
LD_HOST_DEVICE Real common_area(const TurnedBox<Real>& own, const TurnedBox<Real>& other, const Place<Real>& at) {
    const Real wx = at.cos * other.half_w, wy = at.sin * other.half_w;    // from the centre along w
    const Real hx = -at.sin * other.half_h, hy = at.cos * other.half_h;  // and along h
    const Edge<Real> along_w = edge_along(2 * wx, 2 * wy), along_h = edge_along(2 * hx, 2 * hy);
    Real area = -strip(at.x - hx - wx, at.y - hy - wy, along_w, own.half_w, own.half_h);
    area += strip(at.x + hx - wx, at.y + hy - wy, along_w, own.half_w, own.half_h);
    area += strip(at.x - wx - hx, at.y - wy - hy, along_h, own.half_w, own.half_h);
    area -= strip(at.x + wx - hx, at.y + wy - hy, along_h, own.half_w, own.half_h);
    return area;
}

// Rounded to float32: what thresholds are compared with.
template <class Real>
LD_HOST_DEVICE float rotated_iou(const TurnedBox<Real>& own, const TurnedBox<Real>& other) {
    const Place<Real> at = seen_from(own, other);
    if (are_apart(own, other, at)) return 0.0f;
    const Real own_area = 4 * own.half_w * own.half_h, other_area = 4 * other.half_w * other.half_h;
    const Real zero = 0;
    const Real inner = clipped_to(common_area(own, other, at), zero, own_area < other_area ? own_area : other_area);
    return static_cast<float>(inner / (own_area + other_area - inner));
}

}  // namespace ld
