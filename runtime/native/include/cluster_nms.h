// Score-voting Cluster-DIoU-NMS for parallel hardware: every CUDA kernel calls these functions, and the host runs them
// one after the other to prove them (host/device_form.cpp).
//
// Boxes stand in order: score descending, lower index first. Which box suppresses which lies in a bitmask of one row
// per box: bit i of row j says that i, better than j, removes j if i is kept. Bits at and above j are 0.
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

LD_HOST_DEVICE void set_bits(uint64_t* word, uint64_t bits) {
#ifdef __CUDA_ARCH__
    atomicOr(reinterpret_cast<unsigned long long*>(word), static_cast<unsigned long long>(bits));
#else
    *word |= bits;
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

// One word of the mask: bit b says that others[b], if kept, removes `box`. The others are the boxes 64 * w, ... of one
// tile that are better than this one: all 64, or those before it where the tile is its own. The arrays may be copies.
template <class Label>
LD_HOST_DEVICE uint64_t suppressor_word(const Box& box, Label label, const Box* others, const Label* other_labels,
                                        int32_t num_others, float iou_threshold, double distance_exponent) {
    uint64_t word = 0;
    for (int32_t b = 0; b < num_others; ++b) {
        if (other_labels[b] != label) continue;
        if (distance_iou_above(others[b], box, iou_threshold, distance_exponent) > iou_threshold) word |= bit(b);
    }
    return word;
}

// What a part of a row says about its box.
struct Verdict {
    bool removed;  // a suppressor is kept
    bool open;     // a suppressor is undecided
};

// Words first, first + step, ... of the row of box `index`. A warp combines its lanes' verdicts with "any".
LD_HOST_DEVICE Verdict judge(const uint64_t* row, int32_t index, const uint64_t* kept, const uint64_t* removed,
                             int32_t first, int32_t step) {
    Verdict verdict = {false, false};
    for (int32_t w = first; w <= index / TILE && !verdict.removed; w += step) {
        const uint64_t suppressors = row[w];
        if (!suppressors) continue;
        verdict.removed = (suppressors & current(kept + w)) != 0;
        verdict.open = verdict.open || (suppressors & ~current(removed + w)) != 0;
    }
    return verdict;
}

LD_HOST_DEVICE void apply(Verdict verdict, int32_t index, uint64_t* kept, uint64_t* removed) {
    if (verdict.removed) {
        set_bits(removed + index / TILE, bit(index));
    } else if (!verdict.open) {
        set_bits(kept + index / TILE, bit(index));
    }
}

LD_HOST_DEVICE bool is_open(int32_t index, const uint64_t* kept, const uint64_t* removed) {
    return !((current(kept + index / TILE) | current(removed + index / TILE)) & bit(index));
}

// One round for boxes first, first + step, ... below count. `mask` has rows of `row_words`. Returns whether one of them
// was open before and is not settled now. At most `count` rounds are needed.
LD_HOST_DEVICE bool settle_round(const uint64_t* mask, int32_t row_words, int32_t count, int32_t first, int32_t step,
                                 uint64_t* kept, uint64_t* removed) {
    bool open = false;
    for (int32_t j = first; j < count; j += step) {
        if (!is_open(j, kept, removed)) continue;
        const Verdict verdict = judge(mask + static_cast<int64_t>(j) * row_words, j, kept, removed, 0, 1);
        apply(verdict, j, kept, removed);
        open = open || (verdict.open && !verdict.removed);
    }
    return open;
}

// How many are kept before the first open box: once these are max_detections, later boxes need not be settled.
LD_HOST_DEVICE int32_t kept_for_sure(const uint64_t* kept, const uint64_t* removed, int32_t count) {
    int32_t found = 0;
    for (int32_t w = 0; w < words_of(count); ++w) {
        const uint64_t word = current(kept + w);
        const uint64_t open = ~(word | current(removed + w));
        if (open) return found + ones(word & ((open & -open) - 1));  // bits past `count` are open, and kept nowhere
        found += ones(word);
    }
    return found;
}

// Index of the kept box with `rank` kept ones before it, or -1.
LD_HOST_DEVICE int32_t kept_at(const uint64_t* kept, int32_t count, int32_t rank) {
    for (int32_t w = 0; w < words_of(count); ++w) {
        uint64_t word = kept[w];
        const int32_t here = ones(word);
        if (rank >= here) {
            rank -= here;
            continue;
        }
        for (; rank > 0; --rank) word &= word - 1;
        return w * TILE + ones((word & -word) - 1);
    }
    return -1;
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

// Votes of the boxes kept + first, kept + first + step, ... below count for box `kept`; box 0 of them is itself.
template <class Label>
LD_HOST_DEVICE VoteSum votes_for(const Box* boxes, const float* scores, const Label* labels, int32_t kept,
                                 int32_t count, int32_t first, int32_t step, const LdNmsSettings& settings) {
    VoteSum sum = {0.0f, 0.0f, 0.0f, 0.0f, 0.0f};
    const Box box = boxes[kept];
    for (int32_t j = kept + first; j < count; j += step) {
        if (j == kept) {
            add_vote(sum, box, scores[j]);  // D = 1
            continue;
        }
        if (labels[j] != labels[kept]) continue;
        const float d = distance_iou_above(box, boxes[j], settings.vote_threshold, settings.distance_exponent);
        if (d > settings.vote_threshold) add_vote(sum, boxes[j], vote_weight(d, scores[j], settings.vote_sigma));
    }
    return sum;
}

}  // namespace ld
