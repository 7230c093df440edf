// The votes of Score-voting Cluster-NMS of rotated boxes, for host and device alike.
#pragma once

#include "ld_settings.h"
#include "rotated_iou.h"

namespace ld {

// Sums of the votes for one box: of the weights, and of weight times how far a voter is from the box. Those of several
// threads are added up.
template <class Real>
struct RotatedVoteSum {
    Real weight, x, y, w, h, angle;
};

// The vote of a box for itself has IoU 1.
template <class Real>
LD_HOST_DEVICE void add_vote(RotatedVoteSum<Real>& sum, const RotatedBox& box, const RotatedBox& voter, float iou,
                             float score, float vote_sigma) {
    const Real quarter = static_cast<Real>(1.5707963267948966), half = static_cast<Real>(0.5);
    const Real away = 1 - static_cast<Real>(iou);
    const Real weight = ::exp(-(away * away) / static_cast<Real>(vote_sigma)) * static_cast<Real>(score);
    // The voter as it is written with the angle nearest to the box's.
    const Real turn = static_cast<Real>(voter.angle) - static_cast<Real>(box.angle);
    const Real quarters = ::floor(turn / quarter + half);
    const bool odd = quarters - 2 * ::floor(quarters * half) != 0;
    sum.weight += weight;
    sum.x += weight * (static_cast<Real>(voter.x) - static_cast<Real>(box.x));
    sum.y += weight * (static_cast<Real>(voter.y) - static_cast<Real>(box.y));
    sum.w += weight * (static_cast<Real>(odd ? voter.h : voter.w) - static_cast<Real>(box.w));
    sum.h += weight * (static_cast<Real>(odd ? voter.w : voter.h) - static_cast<Real>(box.h));
    sum.angle += weight * (turn - quarters * quarter);
}

// An angle in [-pi/2, pi/2), also after the rounding to float32.
template <class Real>
LD_HOST_DEVICE float normalised_angle(Real angle) {
    const Real pi = static_cast<Real>(3.141592653589793), half = static_cast<Real>(0.5);
    const float half_pi = 1.57079637f;
    const float rounded = static_cast<float>(angle - pi * ::floor(angle / pi + half));
    return rounded >= half_pi ? -half_pi : rounded;
}

template <class Real>
LD_HOST_DEVICE RotatedBox voted_box(const RotatedBox& box, const RotatedVoteSum<Real>& sum) {
    return {static_cast<float>(static_cast<Real>(box.x) + sum.x / sum.weight),
            static_cast<float>(static_cast<Real>(box.y) + sum.y / sum.weight),
            static_cast<float>(static_cast<Real>(box.w) + sum.w / sum.weight),
            static_cast<float>(static_cast<Real>(box.h) + sum.h / sum.weight),
            normalised_angle(static_cast<Real>(box.angle) + sum.angle / sum.weight)};
}

}  // namespace ld
