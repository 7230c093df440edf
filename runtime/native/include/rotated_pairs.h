// Rotated boxes for the parallel NMS of cluster_nms.h. In float64, as the twin: few pairs of one class come near each
// other, and only those are looked at.
#pragma once

#include "rotated_nms.h"

namespace ld {

// A box, the radius of the circle around it, and the cosine and sine of its angle.
struct RotatedRow {
    RotatedBox box;
    float radius;
    double cos, sin;
};

LD_HOST_DEVICE RotatedRow row_of_box(const RotatedBox& box) {
    const double w = static_cast<double>(box.w), h = static_cast<double>(box.h), angle = static_cast<double>(box.angle);
    return {box, static_cast<float>(sqrt(w * w + h * h) * 0.5), ::cos(angle), ::sin(angle)};
}

LD_HOST_DEVICE TurnedBox<double> turned(const RotatedRow& row) {
    return {static_cast<double>(row.box.x), static_cast<double>(row.box.y), static_cast<double>(row.box.w) * 0.5,
            static_cast<double>(row.box.h) * 0.5, row.cos, row.sin};
}

struct RotatedPairs {
    using Row = RotatedRow;
    using Settings = LdRotatedNmsSettings;
    using Sum = RotatedVoteSum<double>;

    static LD_HOST_DEVICE bool is_there(const Row& row) { return row.box.w > 0.0f; }

    // 0 where the circles do not meet: float32 is wrong by less than the margin.
    static LD_HOST_DEVICE float overlap(const Row& a, const Row& b) {
        const float margin = 1.00001f, tiny = 1e-30f;
        const float x = a.box.x - b.box.x, y = a.box.y - b.box.y, reach = (a.radius + b.radius) * margin;
        if (x * x + y * y > reach * reach + tiny) return 0.0f;
        return rotated_iou(turned(a), turned(b));
    }

    static LD_HOST_DEVICE bool suppresses(const Row& better, const Row& box, const Settings& settings) {
        return overlap(better, box) > settings.iou_threshold;
    }

    static LD_HOST_DEVICE void add_itself(Sum& sum, const Row& box, float score, const Settings& settings) {
        add_vote(sum, box.box, box.box, 1.0f, score, settings.vote_sigma);
    }

    static LD_HOST_DEVICE void add(Sum& sum, const Row& box, const Row& voter, float score, const Settings& settings) {
        const float iou = overlap(box, voter);
        if (iou > settings.vote_threshold) add_vote(sum, box.box, voter.box, iou, score, settings.vote_sigma);
    }

    static LD_HOST_DEVICE RotatedBox voted(const Row& box, const Sum& sum) { return voted_box(box.box, sum); }
};

}  // namespace ld
