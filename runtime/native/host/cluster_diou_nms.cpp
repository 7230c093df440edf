// The NMS on one core. One sweep per kept box over the later boxes of its class finds those that it suppresses and
// those that vote for it; boxes of a class lie side by side, so that the sweep is a vector loop. It ends with the last
// box that is wanted: nothing after it can matter.
#include <algorithm>
#include <new>
#include <vector>

#include "class_order.h"
#include "ld_host.h"

namespace {

using ld::Box;

constexpr int32_t BLOCK = 16;  // boxes that a sweep passes over with one test

// By position. Coordinates are padded by a block of boxes that overlap nothing.
struct ByClass {
    std::vector<float> x1, y1, x2, y2, area, score;

    Box box(int32_t p) const {
        const size_t i = static_cast<size_t>(p);
        return {x1[i], y1[i], x2[i], y2[i]};
    }
};

ByClass by_class(const Box* boxes, const float* scores, const ld::ClassOrder& order) {
    const size_t count = order.index.size();
    ByClass found;
    for (auto* values : {&found.x1, &found.y1, &found.x2, &found.y2, &found.area}) values->assign(count + BLOCK, 0.0f);
    found.score.resize(count);
    for (size_t p = 0; p < count; ++p) {
        const Box& box = boxes[order.index[p]];
        found.x1[p] = box.x1;
        found.y1[p] = box.y1;
        found.x2[p] = box.x2;
        found.y2[p] = box.y2;
        found.area[p] = ld::area(box);
        found.score[p] = scores[order.index[p]];
    }
    return found;
}

// A bound that saves divisions: whose IoU is above the threshold passes `inner >= bound * union`, some others too.
float union_share(float threshold) { return nextafterf(threshold - fabsf(threshold) * 1e-6f, -INFINITY); }

// Positions in [begin, end) whose box may have an IoU above the threshold with `box`. Returns how many.
LD_EACH_X86 int32_t near_boxes(const float* x1, const float* y1, const float* x2, const float* y2, const float* areas,
                               int32_t begin, int32_t end, Box box, float share, int32_t* near) {
    const float area = ld::area(box);
    int32_t found = 0;
    for (int32_t p = begin; p < end; p += BLOCK) {
        int32_t passes[BLOCK];
        int32_t any = 0;
        for (int32_t k = 0; k < BLOCK; ++k) {
            const float inner = ld::inner_area(box, {x1[p + k], y1[p + k], x2[p + k], y2[p + k]});
            passes[k] = inner >= share * (area + areas[p + k] - inner);
            any |= passes[k];
        }
        if (!any) continue;
        for (int32_t k = 0; k < BLOCK && p + k < end; ++k) {
            if (passes[k]) near[found++] = p + k;
        }
    }
    return found;
}

int32_t cluster_diou_nms(const Box* boxes, const float* scores, const int64_t* labels, int32_t count,
                         const LdNmsSettings& settings, Box* out_boxes, float* out_scores, int64_t* out_labels) {
    if (settings.max_detections <= 0) return 0;
    const ld::ClassOrder order = ld::class_order(ld::in_order(boxes, scores, count, settings.score_threshold), labels);
    const ByClass all = by_class(boxes, scores, order);
    const float lower = std::min(settings.iou_threshold, settings.vote_threshold);
    const float share = union_share(lower);
    std::vector<char> removed(order.index.size());
    std::vector<int32_t> near(order.index.size());
    int32_t kept = 0;
    for (const int32_t i : order.position_of_rank) {
        if (removed[static_cast<size_t>(i)]) continue;
        const size_t number = static_cast<size_t>(order.number[static_cast<size_t>(i)]);
        const Box box = all.box(i);
        const float score = all.score[static_cast<size_t>(i)];
        const int32_t found = near_boxes(all.x1.data(), all.y1.data(), all.x2.data(), all.y2.data(), all.area.data(),
                                         i + 1, order.end_of_class[number], box, share, near.data());
        ld::VoteSum sum = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        ld::add_vote(sum, box, score);
        for (int32_t n = 0; n < found; ++n) {
            const int32_t j = near[static_cast<size_t>(n)];
            const Box other = all.box(j);
            const float d = ld::distance_iou_above(box, other, lower, settings.distance_exponent);
            if (d > settings.iou_threshold) removed[static_cast<size_t>(j)] = 1;
            if (d > settings.vote_threshold) {
                ld::add_vote(sum, other, ld::vote_weight(d, all.score[static_cast<size_t>(j)], settings.vote_sigma));
            }
        }
        out_boxes[kept] = ld::voted_box(sum);
        out_scores[kept] = score;
        out_labels[kept] = order.label[number];
        if (++kept == settings.max_detections) break;
    }
    return kept;
}

}  // namespace

int32_t ld_cluster_diou_nms(const float* boxes, const float* scores, const int64_t* labels, int32_t count,
                            const LdNmsSettings* settings, float* out_boxes, float* out_scores, int64_t* out_labels) {
    try {
        return cluster_diou_nms(reinterpret_cast<const Box*>(boxes), scores, labels, count, *settings,
                                reinterpret_cast<Box*>(out_boxes), out_scores, out_labels);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}
