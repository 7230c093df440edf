// Score-voting Cluster-NMS for parallel hardware: every CUDA kernel calls these functions, and the host runs them one
// after the other to prove them (host/device_form.cpp). How two boxes compare is a type: `DIoUPairs` here, `RotatedPairs`
// in rotated_pairs.h.
//
// Boxes stand in order: score descending, lower index first. Which box suppresses which lies in a bitmask of one row
// per box: bit i of row j says that i, better than j, removes j if i is kept. Few words of a row are not 0: the others
// are neither written nor read, nor are those past j.
//
// Who is kept follows in rounds. A box is removed as soon as one of its suppressors is kept, and kept as soon as all of
// them are removed. Both bitsets only grow, so threads may read words that others are writing, and the result does not
// depend on who comes first: it is the greedy one. A round settles at least the first open box.
#pragma once

#include "cluster_diou.h"
#include "ld_settings.h"

namespace ld {

constexpr int32_t TILE = 64;  // boxes of one word of a bitset

LD_HOST_DEVICE int32_t words_of(int32_t count) { return (count + TILE - 1) / TILE; }

LD_HOST_DEVICE uint64_t bit(int32_t index) { return uint64_t{1} << (index % TILE); }

LD_HOST_DEVICE int32_t ones(uint64_t word) {
#ifdef __CUDA_ARCH__
    return __popcll(word);
#else
    int32_t count = 0;
    for (; word; word &= word - 1) ++count;
    return count;
#endif
}

// The word as it is in memory now.
LD_HOST_DEVICE uint64_t current(const uint64_t* word) {
#ifdef __CUDA_ARCH__
    return *static_cast<const volatile uint64_t*>(word);
#else
    return *word;
#endif
}

// Index of the lowest bit of a word that is not 0.
LD_HOST_DEVICE int32_t lowest(uint64_t word) { return ones((word & -word) - 1); }

LD_HOST_DEVICE void set_bit(uint64_t* bitset, int32_t index) {
#ifdef __CUDA_ARCH__
    // On half a word: hardware has this one for shared memory. The low half comes first.
    atomicOr(reinterpret_cast<uint32_t*>(bitset) + index / 32, 1u << (index % 32));
#else
    bitset[index / TILE] |= bit(index);
#endif
}

// Larger for the candidate that comes first. Never 0 for a score that is in and an index below 2^32 - 1.
LD_HOST_DEVICE uint64_t order_key(float score, uint32_t index) {
    union {
        float number;
        uint32_t bits;
    } word;
    word.number = score + 0.0f;  // -0 is 0
    const uint32_t ordered = word.bits & 0x80000000u ? ~word.bits : word.bits | 0x80000000u;
    return (static_cast<uint64_t>(ordered) << 32) | (0xFFFFFFFFu - index);
}

LD_HOST_DEVICE uint32_t index_of_key(uint64_t key) { return 0xFFFFFFFFu - static_cast<uint32_t>(key); }

LD_HOST_DEVICE float score_of_key(uint64_t key) {
    const uint32_t ordered = static_cast<uint32_t>(key >> 32);
    union {
        uint32_t bits;
        float number;
    } word;
    word.bits = ordered & 0x80000000u ? ordered & 0x7FFFFFFFu : ~ordered;
    return word.number;
}

// Who removes whom: rows of `row_words` words, and for each row a bitset of the words that are not 0.
struct Mask {
    uint64_t* words;
    uint64_t* filled;
    int32_t row_words;
};

LD_HOST_DEVICE uint64_t* row_of(const Mask& mask, int32_t index) {
    return mask.words + static_cast<int64_t>(index) * mask.row_words;
}

LD_HOST_DEVICE int32_t filled_words(const Mask& mask) { return words_of(mask.row_words); }

LD_HOST_DEVICE uint64_t* filled_of(const Mask& mask, int32_t index) {
    return mask.filled + static_cast<int64_t>(index) * filled_words(mask);
}

LD_HOST_DEVICE void put_word(const Mask& mask, int32_t index, int32_t w, uint64_t word) {
    if (!word) return;
    row_of(mask, index)[w] = word;
    set_bit(filled_of(mask, index), w);
}

// The lower triangle of tiles, counted row by row: tile `number` is at `row`, `column` <= row. Below 2^20 tiles the root
// is rounded by less than it is away from the next row's.
struct TilePlace {
    int32_t row, column;
};

LD_HOST_DEVICE int32_t tiles_before(int32_t row) { return row * (row + 1) / 2; }

LD_HOST_DEVICE TilePlace tile_place(int32_t number) {
    const int32_t row = static_cast<int32_t>((sqrtf(8.0f * static_cast<float>(number) + 1.0f) - 1.0f) * 0.5f);
    return {row, number - tiles_before(row)};
}

// One word of the mask: bit b says that others[b], if kept, removes `box`. The others are the boxes 64 * w, ... of one
// tile that are better than this one: all 64, or those before it where the tile is its own. The arrays may be copies.
template <class Pairs, class Label>
LD_HOST_DEVICE uint64_t suppressor_word(const typename Pairs::Row& box, Label label, const typename Pairs::Row* others,
                                        const Label* other_labels, int32_t num_others,
                                        const typename Pairs::Settings& settings) {
    uint64_t word = 0;
    for (int32_t b = 0; b < num_others; ++b) {
        if (other_labels[b] == label && Pairs::suppresses(others[b], box, settings)) word |= bit(b);
    }
    return word;
}

// What a row says about its box.
struct Verdict {
    bool removed;  // a suppressor is kept
    bool open;     // a suppressor is undecided
};

LD_HOST_DEVICE Verdict judge(const Mask& mask, int32_t index, const uint64_t* kept, const uint64_t* removed) {
    const uint64_t* row = row_of(mask, index);
    const uint64_t* filled = filled_of(mask, index);
    Verdict verdict = {false, false};
    for (int32_t f = 0; f <= index / TILE / TILE; ++f) {
        for (uint64_t words = filled[f]; words; words &= words - 1) {
            const int32_t w = f * TILE + lowest(words);
            if (row[w] & current(kept + w)) return {true, false};
            verdict.open = verdict.open || (row[w] & ~current(removed + w)) != 0;
        }
    }
    return verdict;
}

LD_HOST_DEVICE bool is_open(int32_t index, const uint64_t* kept, const uint64_t* removed) {
    return !((current(kept + index / TILE) | current(removed + index / TILE)) & bit(index));
}

// One round for boxes first, first + step, ... below count. Returns whether one of them is not settled now. At most
// `count` rounds are needed.
LD_HOST_DEVICE bool settle_round(const Mask& mask, int32_t count, int32_t first, int32_t step, uint64_t* kept,
                                 uint64_t* removed) {
    bool open = false;
    for (int32_t j = first; j < count; j += step) {
        if (!is_open(j, kept, removed)) continue;
        const Verdict verdict = judge(mask, j, kept, removed);
        if (!verdict.open) set_bit(verdict.removed ? removed : kept, j);
        open = open || verdict.open;
    }
    return open;
}

// Words of the bitsets up to the first that holds an open box, and the kept ones in them.
struct Settled {
    int32_t words, kept;
};

// How many are kept before the first open box: once these are max_detections, later boxes need not be settled.
// `settled` is what an earlier call found, {0, 0} at first.
LD_HOST_DEVICE int32_t kept_for_sure(const uint64_t* kept, const uint64_t* removed, int32_t count, Settled& settled) {
    for (; settled.words < words_of(count); ++settled.words) {
        const uint64_t word = kept[settled.words];
        const uint64_t open = ~(word | removed[settled.words]);
        if (open) return settled.kept + ones(word & ((open & -open) - 1));  // those past `count` are open, and not kept
        settled.kept += ones(word);
    }
    return settled.kept;
}

// Indices of the kept boxes in word `w`, each at its rank among all kept ones, as far as that is below `most`.
LD_HOST_DEVICE void list_kept(const uint64_t* kept, int32_t w, int32_t most, int32_t* list) {
    int32_t rank = 0;
    for (int32_t before = 0; before < w && rank < most; ++before) rank += ones(kept[before]);
    for (uint64_t word = kept[w]; word && rank < most; word &= word - 1) list[rank++] = w * TILE + lowest(word);
}

// Sums of the votes for one box. Those of several threads are added up.
struct VoteSum {
    float weight, x1, y1, x2, y2;
};

LD_HOST_DEVICE void add_vote(VoteSum& sum, const Box& box, float weight) {
    sum.weight += weight;
    sum.x1 += weight * box.x1;
    sum.y1 += weight * box.y1;
    sum.x2 += weight * box.x2;
    sum.y2 += weight * box.y2;
}

LD_HOST_DEVICE Box voted_box(const VoteSum& sum) {
    return {sum.x1 / sum.weight, sum.y1 / sum.weight, sum.x2 / sum.weight, sum.y2 / sum.weight};
}

// Upright boxes, by D.
struct DIoUPairs {
    using Row = Box;
    using Settings = LdNmsSettings;
    using Sum = VoteSum;

    // Whether a row is a candidate at all.
    static LD_HOST_DEVICE bool is_there(const Row& row) { return has_area(row); }

    static LD_HOST_DEVICE bool suppresses(const Row& better, const Row& box, const Settings& settings) {
        const float threshold = settings.iou_threshold;
        return distance_iou_above(better, box, threshold, settings.distance_exponent) > threshold;
    }

    static LD_HOST_DEVICE void add_itself(Sum& sum, const Row& box, float score, const Settings&) {
        add_vote(sum, box, score);  // D = 1
    }

    static LD_HOST_DEVICE void add(Sum& sum, const Row& box, const Row& voter, float score, const Settings& settings) {
        const float d = distance_iou_above(box, voter, settings.vote_threshold, settings.distance_exponent);
        if (d > settings.vote_threshold) add_vote(sum, voter, vote_weight(d, score, settings.vote_sigma));
    }

    static LD_HOST_DEVICE Box voted(const Row&, const Sum& sum) { return voted_box(sum); }
};

// Votes of the boxes kept + first, kept + first + step, ... below count for box `kept`; box 0 of them is itself.
template <class Pairs, class Label>
LD_HOST_DEVICE typename Pairs::Sum votes_for(const typename Pairs::Row* boxes, const float* scores, const Label* labels,
                                             int32_t kept, int32_t count, int32_t first, int32_t step,
                                             const typename Pairs::Settings& settings) {
    constexpr int32_t AHEAD = 8;  // labels that are asked for at once: most are of another class
    typename Pairs::Sum sum = {};
    const typename Pairs::Row box = boxes[kept];
    const Label label = labels[kept];
    if (first == 0) Pairs::add_itself(sum, box, scores[kept], settings);
    for (int32_t start = kept + (first ? first : step); start < count; start += AHEAD * step) {
        uint32_t same = 0;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (int32_t k = 0; k < AHEAD; ++k) {
            const int32_t j = start + k * step;
            same |= static_cast<uint32_t>(j < count && labels[j] == label) << k;
        }
        for (; same; same &= same - 1) {
            const int32_t j = start + lowest(same) * step;
            Pairs::add(sum, box, boxes[j], scores[j], settings);
        }
    }
    return sum;
}

}  // namespace ld
