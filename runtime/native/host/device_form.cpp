// The functions of the CUDA kernels, run one after the other on the host: tests hold them to the numpy twin, so that
// what is left to a GPU is the launch. Not in ld_host.h: the other form is faster here.
#include <algorithm>
#include <functional>
#include <new>
#include <vector>

#include "cluster_nms.h"
#include "ld_host.h"

namespace {

using ld::Box;

struct Sorted {
    std::vector<Box> boxes;
    std::vector<float> scores;
    std::vector<int64_t> labels;
};

Sorted sorted(const Box* boxes, const float* scores, const int64_t* labels, int32_t count, float score_threshold) {
    std::vector<uint64_t> keys;
    for (int32_t i = 0; i < count; ++i) {
        if (ld::is_in(boxes[i], scores[i], score_threshold)) {
            keys.push_back(ld::order_key(scores[i], static_cast<uint32_t>(i)));
        }
    }
    std::sort(keys.begin(), keys.end(), std::greater<>());
    Sorted found;
    for (const uint64_t key : keys) {
        const uint32_t i = ld::index_of_key(key);
        found.boxes.push_back(boxes[i]);
        found.scores.push_back(ld::score_of_key(key));
        found.labels.push_back(labels[i]);
    }
    return found;
}

// `threads` boxes of a round are looked at before the next ones, as far as one thread can show that.
int32_t device_form(const Box* boxes, const float* scores, const int64_t* labels, int32_t count,
                    const LdNmsSettings& settings, int32_t threads, Box* out_boxes, float* out_scores,
                    int64_t* out_labels, int32_t* rounds) {
    const Sorted in = sorted(boxes, scores, labels, count, settings.score_threshold);
    const int32_t n = static_cast<int32_t>(in.boxes.size());
    const int32_t words = ld::words_of(n);
    std::vector<uint64_t> mask_words(static_cast<size_t>(n) * static_cast<size_t>(words), ~uint64_t{0});  // 0: unread
    std::vector<uint64_t> filled(static_cast<size_t>(n) * static_cast<size_t>(ld::words_of(words)));
    const ld::Mask mask = {mask_words.data(), filled.data(), words};
    for (int32_t tile = 0; tile < ld::tiles_before(words); ++tile) {
        const ld::TilePlace place = ld::tile_place(tile);
        const int32_t first = place.column * ld::TILE;
        for (int32_t j = place.row * ld::TILE; j < std::min(n, (place.row + 1) * ld::TILE); ++j) {
            const uint64_t word = ld::suppressor_word<ld::DIoUPairs>(
                in.boxes[static_cast<size_t>(j)], in.labels[static_cast<size_t>(j)], in.boxes.data() + first,
                in.labels.data() + first, std::min(ld::TILE, j - first), settings);
            ld::put_word(mask, j, place.column, word);
        }
    }
    std::vector<uint64_t> kept(static_cast<size_t>(words)), removed(static_cast<size_t>(words));
    ld::Settled settled = {0, 0};
    int32_t sure = 0;
    *rounds = 0;
    for (bool open = n > 0; open && sure < settings.max_detections && *rounds < n; ++*rounds) {
        open = false;
        for (int32_t thread = threads - 1; thread >= 0; --thread) {  // backwards: any order must do
            open |= ld::settle_round(mask, n, thread, threads, kept.data(), removed.data());
        }
        sure = ld::kept_for_sure(kept.data(), removed.data(), n, settled);
    }
    const int32_t found = std::max(0, std::min(sure, settings.max_detections));
    std::vector<int32_t> list(static_cast<size_t>(found));
    for (int32_t w = 0; w < words; ++w) ld::list_kept(kept.data(), w, found, list.data());
    for (int32_t k = 0; k < found; ++k) {
        const int32_t i = list[static_cast<size_t>(k)];
        ld::VoteSum sum = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
        for (int32_t thread = 0; thread < threads; ++thread) {
            const ld::VoteSum part = ld::votes_for<ld::DIoUPairs>(in.boxes.data(), in.scores.data(),
                                                                   in.labels.data(), i, n, thread, threads, settings);
            sum.weight += part.weight;
            sum.x1 += part.x1;
            sum.y1 += part.y1;
            sum.x2 += part.x2;
            sum.y2 += part.y2;
        }
        out_boxes[k] = ld::voted_box(sum);
        out_scores[k] = in.scores[static_cast<size_t>(i)];
        out_labels[k] = in.labels[static_cast<size_t>(i)];
    }
    return found;
}

}  // namespace

extern "C" LD_API int32_t ld_cluster_diou_nms_device_form(const float* boxes, const float* scores,
                                                          const int64_t* labels, int32_t count,
                                                          const LdNmsSettings* settings, int32_t threads,
                                                          float* out_boxes, float* out_scores, int64_t* out_labels,
                                                          int32_t* rounds) {
    try {
        return device_form(reinterpret_cast<const Box*>(boxes), scores, labels, count, *settings, threads,
                           reinterpret_cast<Box*>(out_boxes), out_scores, out_labels, rounds);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}
