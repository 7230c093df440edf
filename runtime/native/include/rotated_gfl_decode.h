// From the distributions of a location to a rotated box, for host and device alike: the decode of
// ld_runtime.gfl_candidates.rotated_gfl_candidates, the readable twin.
#pragma once

#include "gfl_decode.h"
#include "rotated_nms.h"

namespace ld {

// What a location says: expected bins of x, y, half of w and half of h, and the mean of the doubled angles' directions.
struct RotatedMeans {
    float x, y, half_w, half_h, sin2, cos2;
};

// A mean of unit vectors that is shorter has no direction: its angle is 0.
LD_HOST_DEVICE float angle_of(float sin2, float cos2) {
    const float least_direction = 1e-6f;
    if (sqrtf(sin2 * sin2 + cos2 * cos2) < least_direction) return 0.0f;
    return normalised_angle(0.5 * static_cast<double>(atan2f(sin2, cos2)));
}

// Mean sine and cosine of the doubled angles of a softmax over `bins` logits that stand `step` values apart.
template <class Value>
LD_HOST_DEVICE void expected_direction(const Value* logits, int64_t step, int32_t bins, float& sin2, float& cos2) {
    const double turn = 2 * 3.141592653589793 / bins;
    float largest = static_cast<float>(logits[0]);
    for (int32_t k = 1; k < bins; ++k) largest = larger(static_cast<float>(logits[k * step]), largest);
    float total = 0.0f, sine = 0.0f, cosine = 0.0f;
    for (int32_t k = 0; k < bins; ++k) {
        const float part = expf(static_cast<float>(logits[k * step]) - largest);
        total += part;
        sine += part * static_cast<float>(sin(turn * k));
        cosine += part * static_cast<float>(cos(turn * k));
    }
    sin2 = sine / total;
    cos2 = cosine / total;
}

// Offsets are from the prior, whose place is the middle bin; not clipped to the canvas.
LD_HOST_DEVICE RotatedBox rotated_box_at(int32_t location, const RotatedMeans& means, const LdLevel& level,
                                         int32_t bins) {
    const float stride = static_cast<float>(level.stride), middle = 0.5f * static_cast<float>(bins - 1);
    const float x = static_cast<float>(location % level.width) * stride;
    const float y = static_cast<float>(location / level.width) * stride;
    return {x + stride * (means.x - middle), y + stride * (means.y - middle), 2.0f * stride * means.half_w,
            2.0f * stride * means.half_h, angle_of(means.sin2, means.cos2)};
}

}  // namespace ld
