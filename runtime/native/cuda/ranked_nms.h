// What both ops share: order by key, and the NMS of rows in order.
#pragma once

#include "cluster_nms.h"
#include "launch.h"
#include "ld_kernels.h"

namespace ld {

// Rows of a batch in order, best first: of each image `capacity` of them, of which the first `count` are there. A row
// without area is out.
struct Ranked {
    int32_t capacity;
    int32_t* count;
    Box* boxes;
    float* scores;
    int64_t* labels;
    Mask mask;
    int32_t* kept;  // rows of the detections
};

// The rows of one image.
LD_HOST_DEVICE Ranked of_image(const Ranked& all, int32_t image) {
    const int64_t first = static_cast<int64_t>(image) * all.capacity;
    const Mask mask = {all.mask.words + first * all.mask.row_words, all.mask.filled + first * filled_words(all.mask),
                       all.mask.row_words};
    return {all.capacity,       all.count + image, all.boxes + first, all.scores + first,
            all.labels + first, mask,              all.kept + first};
}

// Row `rank`, and nothing in its mask. Every row below `count` must be put.
LD_HOST_DEVICE void put_row(const Ranked& image, int32_t rank, const Box& box, float score, int64_t label) {
    image.boxes[rank] = box;
    image.scores[rank] = score;
    image.labels[rank] = label;
    for (int32_t f = 0; f < filled_words(image.mask); ++f) filled_of(image.mask, rank)[f] = 0;
}

inline Ranked take_ranked(Workspace& workspace, int32_t batch, int32_t capacity) {
    const int64_t rows = static_cast<int64_t>(batch) * capacity;
    const int32_t row_words = words_of(capacity);
    return {capacity,
            workspace.take<int32_t>(batch),
            workspace.take<Box>(rows),
            workspace.take<float>(rows),
            workspace.take<int64_t>(rows),
            {workspace.take<uint64_t>(rows * row_words), workspace.take<uint64_t>(rows * words_of(row_words)),
             row_words},
            workspace.take<int32_t>(rows)};
}

inline bool within_limits(int32_t batch, int32_t candidates) {
    return batch >= 0 && batch <= LD_MAX_BATCH && candidates >= 0 && candidates <= LD_MAX_CANDIDATES;
}

// ranks[i] = how many keys of its image are larger than keys[i]; both (batch, count). Keys differ, but for 0: no key.
// `ranks` must be 0.
void rank_keys(Launcher& launch, const uint64_t* keys, int32_t* ranks, int32_t batch, int32_t count);

// From rows in order to detections.
void detect_ranked(Launcher& launch, const Ranked& rows, int32_t batch, const LdNmsSettings& settings,
                   const LdDetections& detections);

}  // namespace ld
