#include <algorithm>

#include "ranked_nms.h"

namespace ld {
namespace {

constexpr int32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xFFFFFFFFu;
constexpr int32_t RANKED_KEYS = 256;    // keys of a block, and others that it compares them with
constexpr int32_t RESOLVERS = 1024;     // threads that settle an image
constexpr int32_t VOTING_WARPS = 4;     // detections of a block
constexpr int32_t MAX_WORDS = LD_MAX_CANDIDATES / TILE;

static_assert(MAX_WORDS <= RESOLVERS, "a thread lists the kept boxes of one word");

// Counting is as quick as sorting at the sizes of an NMS, which looks at all pairs anyway, and has no passes.
__global__ void __launch_bounds__(RANKED_KEYS) count_larger(const uint64_t* keys, int32_t* ranks, int32_t count) {
    __shared__ uint64_t others[RANKED_KEYS];
    const int64_t image = static_cast<int64_t>(blockIdx.z) * count;
    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    const int32_t mine = static_cast<int32_t>(blockIdx.x) * RANKED_KEYS + thread;
    const int32_t other = static_cast<int32_t>(blockIdx.y) * RANKED_KEYS + thread;
    const uint64_t key = mine < count ? keys[image + mine] : 0;
    others[thread] = other < count ? keys[image + other] : 0;
    __syncthreads();
    if (!key) return;
    int32_t larger_ones = 0;
#pragma unroll 8
    for (int32_t k = 0; k < RANKED_KEYS; ++k) larger_ones += others[k] > key;
    if (larger_ones) atomicAdd(ranks + image + mine, larger_ones);
}

// One tile of the mask: thread t looks at row t of it.
template <class Pairs>
__global__ void __launch_bounds__(TILE) fill_mask(const Ranked<Pairs> rows, const typename Pairs::Settings settings) {
    __shared__ typename Pairs::Row others[TILE];
    __shared__ int64_t other_labels[TILE];
    const Ranked<Pairs> image = of_image(rows, static_cast<int32_t>(blockIdx.y));
    const TilePlace place = tile_place(static_cast<int32_t>(blockIdx.x));
    const int32_t count = *image.count;
    if (place.row * TILE >= count) return;

    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    const int32_t first = place.column * TILE;
    if (first + thread < count) {
        others[thread] = image.boxes[first + thread];
        other_labels[thread] = image.labels[first + thread];
    }
    __syncthreads();
    const int32_t j = place.row * TILE + thread;
    if (j >= count) return;
    const int32_t better = j - first < TILE ? j - first : TILE;
    const uint64_t word = suppressor_word<Pairs>(image.boxes[j], image.labels[j], others, other_labels, better, settings);
    put_word(image.mask, j, place.column, word);
}

// One block per image: who is kept, as far as max_detections needs it.
template <class Pairs>
__global__ void __launch_bounds__(RESOLVERS) resolve(const Ranked<Pairs> rows, int32_t max_detections,
                                                     int32_t* num_detections) {
    __shared__ uint64_t kept[MAX_WORDS];
    __shared__ uint64_t removed[MAX_WORDS];
    __shared__ int32_t sure;
    const Ranked<Pairs> image = of_image(rows, static_cast<int32_t>(blockIdx.x));
    const int32_t thread = static_cast<int32_t>(threadIdx.x);
    const int32_t count = *image.count;
    const int32_t words = words_of(count);
    if (thread < words) kept[thread] = removed[thread] = 0;
    if (thread == 0) sure = 0;
    __syncthreads();
    for (int32_t j = thread; j < count; j += RESOLVERS) {
        if (!Pairs::is_there(image.boxes[j])) set_bit(removed, j);
    }
    __syncthreads();

    Settled settled = {0, 0};  // of thread 0
    for (int32_t round = 0; round < count; ++round) {
        const bool open = settle_round(image.mask, count, thread, RESOLVERS, kept, removed);
        const int any_open = __syncthreads_or(open);
        if (thread == 0) sure = kept_for_sure(kept, removed, count, settled);
        __syncthreads();
        if (!any_open || sure >= max_detections) break;
    }
    const int32_t found = sure < max_detections ? sure : max_detections;
    if (thread < words) list_kept(kept, thread, found, image.kept);
    if (thread == 0) num_detections[blockIdx.x] = found;
}

template <class Number>
__device__ Number sum_of_warp(Number value) {
    for (int32_t step = WARP / 2; step > 0; step /= 2) value += __shfl_xor_sync(ALL_LANES, value, step);
    return value;
}

__device__ VoteSum sum_of_warp(const VoteSum& sum) {
    return {sum_of_warp(sum.weight), sum_of_warp(sum.x1), sum_of_warp(sum.y1), sum_of_warp(sum.x2), sum_of_warp(sum.y2)};
}

__device__ RotatedVoteSum<double> sum_of_warp(const RotatedVoteSum<double>& sum) {
    return {sum_of_warp(sum.weight), sum_of_warp(sum.x), sum_of_warp(sum.y),
            sum_of_warp(sum.w),      sum_of_warp(sum.h), sum_of_warp(sum.angle)};
}

__device__ void write_box(const Box& box, float* out) {
    out[0] = box.x1;
    out[1] = box.y1;
    out[2] = box.x2;
    out[3] = box.y2;
}

__device__ void write_box(const RotatedBox& box, float* out) {
    out[0] = box.x;
    out[1] = box.y;
    out[2] = box.w;
    out[3] = box.h;
    out[4] = box.angle;
}

// One warp per detection: its votes, or padding.
template <class Pairs>
__global__ void __launch_bounds__(VOTING_WARPS * WARP) vote(const Ranked<Pairs> rows,
                                                            const typename Pairs::Settings settings,
                                                            const LdDetections detections) {
    const int32_t slot = static_cast<int32_t>(blockIdx.x) * VOTING_WARPS + static_cast<int32_t>(threadIdx.x) / WARP;
    const int32_t lane = static_cast<int32_t>(threadIdx.x) % WARP;
    if (slot >= settings.max_detections) return;
    decltype(Pairs::voted({}, {})) box = {};
    float score = 0.0f;
    int64_t label = -1;
    if (slot < detections.num_detections[blockIdx.y]) {
        const Ranked<Pairs> image = of_image(rows, static_cast<int32_t>(blockIdx.y));
        const int32_t row = image.kept[slot];
        const auto sum = sum_of_warp(
            votes_for<Pairs>(image.boxes, image.scores, image.labels, row, *image.count, lane, WARP, settings));
        box = Pairs::voted(image.boxes[row], sum);
        score = image.scores[row];
        label = image.labels[row];
    }
    if (lane != 0) return;
    const int64_t out = static_cast<int64_t>(blockIdx.y) * settings.max_detections + slot;
    write_box(box, detections.boxes + NUMBERS<decltype(box)> * out);
    detections.scores[out] = score;
    detections.labels[out] = label;
}

}  // namespace

void rank_keys(Launcher& launch, const uint64_t* keys, int32_t* ranks, int32_t batch, int32_t count) {
    const uint32_t tiles = static_cast<uint32_t>(blocks_for(count, RANKED_KEYS));
    launch(count_larger, dim3(tiles, tiles, static_cast<uint32_t>(batch)), RANKED_KEYS, keys, ranks, count);
}

template <class Pairs>
void detect_ranked(Launcher& launch, const Ranked<Pairs>& rows, int32_t batch, const typename Pairs::Settings& settings,
                   const LdDetections& detections) {
    const uint32_t images = static_cast<uint32_t>(batch);
    const int32_t wanted = std::max(settings.max_detections, 0);
    if (rows.capacity == 0) {
        launch.set_zero(detections.num_detections, batch);
    } else {
        const uint32_t tiles = static_cast<uint32_t>(tiles_before(rows.mask.row_words));
        launch(fill_mask<Pairs>, dim3(tiles, images), TILE, rows, settings);
        launch(resolve<Pairs>, dim3(images), RESOLVERS, rows, wanted, detections.num_detections);
    }
    const uint32_t blocks = static_cast<uint32_t>(blocks_for(wanted, VOTING_WARPS));
    launch(vote<Pairs>, dim3(blocks, images), VOTING_WARPS * WARP, rows, settings, detections);
}

template void detect_ranked(Launcher&, const Ranked<DIoUPairs>&, int32_t, const LdNmsSettings&, const LdDetections&);
template void detect_ranked(Launcher&, const Ranked<RotatedPairs>&, int32_t, const LdRotatedNmsSettings&,
                            const LdDetections&);

}  // namespace ld
