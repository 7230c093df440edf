// Candidates class by class and in order within each: what every NMS of the host sweeps over.
#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "cluster_nms.h"

namespace ld {

// Number of each label, by open addressing.
class LabelNumbers {
public:
    explicit LabelNumbers(size_t labels) {
        while (slots_ < 2 * labels) slots_ *= 2;
        numbers_.assign(slots_, -1);
        labels_.resize(slots_);
    }

    int32_t operator()(int64_t label) {
        size_t slot = (static_cast<uint64_t>(label) * 0x9E3779B97F4A7C15u >> 32) & (slots_ - 1);
        while (numbers_[slot] >= 0 && labels_[slot] != label) slot = (slot + 1) & (slots_ - 1);
        if (numbers_[slot] < 0) {
            numbers_[slot] = count_++;
            labels_[slot] = label;
        }
        return numbers_[slot];
    }

    int32_t count() const { return count_; }

private:
    size_t slots_ = 16;
    int32_t count_ = 0;
    std::vector<int32_t> numbers_;
    std::vector<int64_t> labels_;
};

// Indices of the candidates that are in, best first.
template <class AnyBox>
std::vector<uint32_t> in_order(const AnyBox* boxes, const float* scores, int32_t count, float score_threshold) {
    std::vector<uint64_t> keys;
    keys.reserve(static_cast<size_t>(count));
    for (int32_t i = 0; i < count; ++i) {
        if (is_in(boxes[i], scores[i], score_threshold)) {
            keys.push_back(order_key(scores[i], static_cast<uint32_t>(i)));
        }
    }
    if (!std::is_sorted(keys.begin(), keys.end(), std::greater<>())) {
        std::sort(keys.begin(), keys.end(), std::greater<>());
    }
    std::vector<uint32_t> order(keys.size());
    std::transform(keys.begin(), keys.end(), order.begin(), index_of_key);
    return order;
}

// Places of the candidates that are in: those of a class lie side by side, best first.
struct ClassOrder {
    std::vector<int32_t> position_of_rank;
    std::vector<uint32_t> index;        // of the candidate at a position
    std::vector<int32_t> number;        // of the class at a position
    std::vector<int32_t> end_of_class;  // by number
    std::vector<int64_t> label;         // by number
};

inline ClassOrder class_order(const std::vector<uint32_t>& order, const int64_t* labels) {
    const size_t count = order.size();
    ClassOrder found;
    std::vector<int32_t> numbers(count), sizes;
    LabelNumbers number_of(count);
    for (size_t rank = 0; rank < count; ++rank) {
        numbers[rank] = number_of(labels[order[rank]]);
        if (static_cast<size_t>(number_of.count()) > sizes.size()) {
            sizes.push_back(0);
            found.label.push_back(labels[order[rank]]);
        }
        ++sizes[static_cast<size_t>(numbers[rank])];
    }
    std::vector<int32_t> next(sizes.size());
    for (size_t c = 1; c < sizes.size(); ++c) next[c] = next[c - 1] + sizes[c - 1];
    found.end_of_class = next;
    for (size_t c = 0; c < sizes.size(); ++c) found.end_of_class[c] += sizes[c];

    found.position_of_rank.resize(count);
    found.index.resize(count);
    found.number.resize(count);
    for (size_t rank = 0; rank < count; ++rank) {
        const int32_t position = next[static_cast<size_t>(numbers[rank])]++;
        found.position_of_rank[rank] = position;
        found.index[static_cast<size_t>(position)] = order[rank];
        found.number[static_cast<size_t>(position)] = numbers[rank];
    }
    return found;
}

}  // namespace ld
