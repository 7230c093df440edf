// What both ops share: order by key, and the NMS of rows in order.
#pragma once

#include "cluster_nms.h"
#include "launch.h"
#include "ld_kernels.h"
#include "rotated_pairs.h"

namespace ld {

// Rows of a batch in order, best first: of each image `capacity` of them, of which the first `count` are there. A row
// that is not `Pairs::is_there` is out.
template <class Pairs>
struct Ranked {
    int32_t capacity;
    int32_t* count;
    typename Pairs::Row* boxes;
    float* scores;
    int64_t* labels;
    Mask mask;
    int32_t* kept;  // rows of the detections
};

// The rows of one image.
template <class Pairs>
LD_HOST_DEVICE Ranked<Pairs> of_image(const Ranked<Pairs>& all, int32_t image) {
    const int64_t first = static_cast<int64_t>(image) * all.capacity;
    const Mask mask = {all.mask.words + first * all.mask.row_words, all.mask.filled + first * filled_words(all.mask),
                       all.mask.row_words};
    return {all.capacity,       all.count + image, all.boxes + first, all.scores + first,
            all.labels + first, mask,              all.kept + first};
}

// Row `rank`, and nothing in its mask. Every row below `count` must be put.
template <class Pairs>
LD_HOST_DEVICE void put_row(const Ranked<Pairs>& image, int32_t rank, const typename Pairs::Row& box, float score,
                            int64_t label) {
    image.boxes[rank] = box;
    image.scores[rank] = score;
    image.labels[rank] = label;
    for (int32_t f = 0; f < filled_words(image.mask); ++f) filled_of(image.mask, rank)[f] = 0;
}

template <class Pairs>
Ranked<Pairs> take_ranked(Workspace& workspace, int32_t batch, int32_t capacity) {
    const int64_t rows = static_cast<int64_t>(batch) * capacity;
    const int32_t row_words = words_of(capacity);
    return {capacity,
            workspace.take<int32_t>(batch),
            workspace.take<typename Pairs::Row>(rows),
            workspace.take<float>(rows),
            workspace.take<int64_t>(rows),
            {workspace.take<uint64_t>(rows * row_words), workspace.take<uint64_t>(rows * words_of(row_words)),
             row_words},
            workspace.take<int32_t>(rows)};
}

// A box as it is given, as a row, and as it is put out.
LD_HOST_DEVICE Box row_of_box(const Box& box) { return box; }

template <class Value>
__device__ void read_box(const Value* values, Box& box) {
    box = {static_cast<float>(values[0]), static_cast<float>(values[1]), static_cast<float>(values[2]),
           static_cast<float>(values[3])};
}

template <class Value>
__device__ void read_box(const Value* values, RotatedBox& box) {
    box = {static_cast<float>(values[0]), static_cast<float>(values[1]), static_cast<float>(values[2]),
           static_cast<float>(values[3]), static_cast<float>(values[4])};
}

template <class AnyBox>
constexpr int32_t NUMBERS = static_cast<int32_t>(sizeof(AnyBox) / sizeof(float));

inline bool within_limits(int32_t batch, int32_t candidates) {
    return batch >= 0 && batch <= LD_MAX_BATCH && candidates >= 0 && candidates <= LD_MAX_CANDIDATES;
}

// ranks[i] = how many keys of its image are larger than keys[i]; both (batch, count). Keys differ, but for 0: no key.
// `ranks` must be 0.
void rank_keys(Launcher& launch, const uint64_t* keys, int32_t* ranks, int32_t batch, int32_t count);

// From rows in order to detections. Of `DIoUPairs` and `RotatedPairs`.
template <class Pairs>
void detect_ranked(Launcher& launch, const Ranked<Pairs>& rows, int32_t batch, const typename Pairs::Settings& settings,
                   const LdDetections& detections);

}  // namespace ld
