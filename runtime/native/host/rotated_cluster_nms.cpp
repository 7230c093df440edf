// The NMS of rotated boxes on one core, in float64. As in cluster_diou_nms.cpp, one sweep per kept box over the later
// boxes of its class; those whose circles do not meet are passed over in a vector loop, before any side is looked at.
#include <algorithm>
#include <new>
#include <vector>

#include "class_order.h"
#include "ld_host.h"
#include "rotated_nms.h"

namespace {

using ld::RotatedBox;
using Turned = ld::TurnedBox<double>;

constexpr int32_t BLOCK = 16;  // boxes that a sweep passes over with one test

// By position; circles around the boxes are padded by a block of NaN.
struct ByClass {
    std::vector<RotatedBox> box;
    std::vector<Turned> turned;
    std::vector<float> score, x, y, radius;
};

ByClass by_class(const RotatedBox* boxes, const float* scores, const ld::ClassOrder& order) {
    const size_t count = order.index.size();
    ByClass found;
    for (auto* values : {&found.x, &found.y, &found.radius}) values->assign(count + BLOCK, NAN);
    found.box.reserve(count);
    found.turned.reserve(count);
    found.score.reserve(count);
    for (size_t p = 0; p < count; ++p) {
        const RotatedBox& box = boxes[order.index[p]];
        found.box.push_back(box);
        found.turned.push_back(ld::turned<double>(box));
        found.score.push_back(scores[order.index[p]]);
        found.x[p] = box.x;
        found.y[p] = box.y;
        found.radius[p] = static_cast<float>(hypot(static_cast<double>(box.w), static_cast<double>(box.h)) * 0.5);
    }
    return found;
}

// Positions in [begin, end) whose circle may meet that of `own`: none that overlaps it is left out, as float32 is wrong
// by less than the margin. Returns how many.
LD_EACH_X86 int32_t near_boxes(const float* x, const float* y, const float* radius, int32_t own, int32_t begin,
                               int32_t end, int32_t* near) {
    constexpr float MARGIN = 1.00001f, TINY = 1e-30f;
    const float own_x = x[own], own_y = y[own], own_radius = radius[own];
    int32_t found = 0;
    for (int32_t p = begin; p < end; p += BLOCK) {
        int32_t passes[BLOCK];
        int32_t any = 0;
        for (int32_t k = 0; k < BLOCK; ++k) {
            const float dx = x[p + k] - own_x, dy = y[p + k] - own_y, reach = (radius[p + k] + own_radius) * MARGIN;
            passes[k] = dx * dx + dy * dy <= reach * reach + TINY;
            any |= passes[k];
        }
        if (!any) continue;
        for (int32_t k = 0; k < BLOCK && p + k < end; ++k) {
            if (passes[k]) near[found++] = p + k;
        }
    }
    return found;
}

int32_t rotated_cluster_nms(const RotatedBox* boxes, const float* scores, const int64_t* labels, int32_t count,
                            const LdRotatedNmsSettings& settings, RotatedBox* out_boxes, float* out_scores,
                            int64_t* out_labels) {
    if (settings.max_detections <= 0) return 0;
    const ld::ClassOrder order = ld::class_order(ld::in_order(boxes, scores, count, settings.score_threshold), labels);
    const ByClass all = by_class(boxes, scores, order);
    std::vector<char> removed(order.index.size());
    std::vector<int32_t> near(order.index.size());
    int32_t kept = 0;
    for (const int32_t position : order.position_of_rank) {
        const size_t i = static_cast<size_t>(position);
        if (removed[i]) continue;
        const size_t number = static_cast<size_t>(order.number[i]);
        const int32_t found = near_boxes(all.x.data(), all.y.data(), all.radius.data(), position, position + 1,
                                         order.end_of_class[number], near.data());
        ld::RotatedVoteSum<double> sum = {};
        ld::add_vote(sum, all.box[i], all.box[i], 1.0f, all.score[i], settings.vote_sigma);
        for (int32_t n = 0; n < found; ++n) {
            const size_t j = static_cast<size_t>(near[static_cast<size_t>(n)]);
            const float iou = ld::rotated_iou(all.turned[i], all.turned[j]);
            if (iou > settings.iou_threshold) removed[j] = 1;
            if (iou > settings.vote_threshold) {
                ld::add_vote(sum, all.box[i], all.box[j], iou, all.score[j], settings.vote_sigma);
            }
        }
        out_boxes[kept] = ld::voted_box(all.box[i], sum);
        out_scores[kept] = all.score[i];
        out_labels[kept] = order.label[number];
        if (++kept == settings.max_detections) break;
    }
    return kept;
}

}  // namespace

int32_t ld_rotated_cluster_nms(const float* boxes, const float* scores, const int64_t* labels, int32_t count,
                               const LdRotatedNmsSettings* settings, float* out_boxes, float* out_scores,
                               int64_t* out_labels) {
    try {
        return rotated_cluster_nms(reinterpret_cast<const RotatedBox*>(boxes), scores, labels, count, *settings,
                                   reinterpret_cast<RotatedBox*>(out_boxes), out_scores, out_labels);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}
