// From the maps of a GFL head to candidates and detections, on one core: one pass over the class logits, against a
// logit instead of a score, and the decode of what was selected only.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <new>
#include <vector>

#include "cluster_nms.h"
#include "gfl_decode.h"
#include "ld_host.h"
#include "rotated_gfl_decode.h"

namespace {

using ld::Box;
using ld::RotatedBox;

constexpr int32_t SCAN = 64;   // logits that are passed over with one test
constexpr int32_t CHUNK = 64;  // locations that are decoded together

// The best `most` of the keys that are added.
class Best {
public:
    Best(int32_t most, float limit) : most_(static_cast<size_t>(std::max(most, 0))), limit_(limit) {}

    // Logits below it need not be added. NaN: none needs.
    float limit() const { return limit_; }

    void add(uint64_t key) {
        keys_.push_back(key);
        if (keys_.size() >= 4 * most_ + 64) cut();
    }

    const std::vector<uint64_t>& keys() {
        cut();
        return keys_;
    }

private:
    void cut() {
        if (keys_.size() <= most_) return;
        if (most_ > 0) {
            const auto last = keys_.begin() + static_cast<std::ptrdiff_t>(most_ - 1);
            std::nth_element(keys_.begin(), last, keys_.end(), std::greater<>());
            limit_ = std::max(limit_, ld::score_of_key(*last));  // an equal one may have the lower index
        } else {
            limit_ = NAN;
        }
        keys_.resize(most_);
    }

    size_t most_;
    float limit_;
    std::vector<uint64_t> keys_;
};

LD_EACH_X86 bool any_reaches(const float* values, int32_t count, float limit) {
    int32_t any = 0;
    for (int32_t k = 0; k < count; ++k) any |= values[k] >= limit;
    return any != 0;
}

// Keys of the pairs of one level: of the logit and `first_index` + location * classes + class.
void scan(const float* logits, int32_t classes, int32_t locations, uint32_t first_index, Best& best) {
    for (int32_t c = 0; c < classes; ++c, logits += locations) {
        for (int32_t start = 0; start < locations; start += SCAN) {
            const int32_t count = std::min(SCAN, locations - start);
            if (!any_reaches(logits + start, count, best.limit())) continue;
            for (int32_t location = start; location < start + count; ++location) {
                if (!(logits[location] >= best.limit())) continue;
                const uint32_t pair = static_cast<uint32_t>(location) * static_cast<uint32_t>(classes);
                best.add(ld::order_key(logits[location], first_index + pair + static_cast<uint32_t>(c)));
            }
        }
    }
}

// exp of x <= 0 to about 2 ulp, in operations that make a vector loop (polynomial of Cephes' expf). NaN stays NaN.
inline float exp_of_negative(float x) {
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, in the low bits
    const float shifted = x * 1.44269504f + magic;
    const float n = shifted - magic;
    const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    float power_of_two;
    std::memcpy(&power_of_two, &bits, sizeof power_of_two);
    return x < -87.0f ? 0.0f : p * power_of_two;
}

// expected_bin of CHUNK distributions side by side: logits (bins, CHUNK).
LD_EACH_X86 void expected_bins(const float* logits, int32_t bins, float* expected) {
    float largest[CHUNK], total[CHUNK] = {}, weighted[CHUNK] = {};
    for (int32_t k = 0; k < CHUNK; ++k) largest[k] = logits[k];
    for (int32_t bin = 1; bin < bins; ++bin) {
        for (int32_t k = 0; k < CHUNK; ++k) largest[k] = ld::larger(logits[bin * CHUNK + k], largest[k]);
    }
    for (int32_t bin = 0; bin < bins; ++bin) {
        for (int32_t k = 0; k < CHUNK; ++k) {
            const float part = exp_of_negative(logits[bin * CHUNK + k] - largest[k]);
            total[k] += part;
            weighted[k] += part * static_cast<float>(bin);
        }
    }
    for (int32_t k = 0; k < CHUNK; ++k) expected[k] = weighted[k] / total[k];
}

// Expectations of two functions of the bin, tables (bins) each, of CHUNK distributions side by side.
LD_EACH_X86 void expected_values(const float* logits, int32_t bins, const float* one, const float* other,
                                 float* expected_one, float* expected_other) {
    float largest[CHUNK], total[CHUNK] = {}, weighted_one[CHUNK] = {}, weighted_other[CHUNK] = {};
    for (int32_t k = 0; k < CHUNK; ++k) largest[k] = logits[k];
    for (int32_t bin = 1; bin < bins; ++bin) {
        for (int32_t k = 0; k < CHUNK; ++k) largest[k] = ld::larger(logits[bin * CHUNK + k], largest[k]);
    }
    for (int32_t bin = 0; bin < bins; ++bin) {
        for (int32_t k = 0; k < CHUNK; ++k) {
            const float part = exp_of_negative(logits[bin * CHUNK + k] - largest[k]);
            total[k] += part;
            weighted_one[k] += part * one[bin];
            weighted_other[k] += part * other[bin];
        }
    }
    for (int32_t k = 0; k < CHUNK; ++k) {
        expected_one[k] = weighted_one[k] / total[k];
        expected_other[k] = weighted_other[k] / total[k];
    }
}

struct Pair {
    int32_t location;
    int32_t rank;  // among all candidates
};

// Gathers one distribution of up to CHUNK locations, side by side.
void gather(const float* maps, size_t locations, int32_t bins, const Pair* chunk, int32_t count, float* logits) {
    for (int32_t bin = 0; bin < bins; ++bin) {
        const float* map = maps + static_cast<size_t>(bin) * locations;
        float* row = logits + bin * CHUNK;
        for (int32_t k = 0; k < count; ++k) row[k] = map[chunk[k].location];
    }
}

// How the boxes of up to CHUNK locations are decoded: one form for each kind of box.
class SideDecode {
public:
    using AnyBox = Box;

    explicit SideDecode(const LdCandidateRule& rule)
        : rule_(rule), logits_(static_cast<size_t>(rule.bins) * CHUNK) {}  // past the last location: any numbers

    void operator()(const float* edge_logits, const LdLevel& level, const Pair* chunk, int32_t count, Box* out_boxes) {
        const size_t locations = static_cast<size_t>(level.height) * static_cast<size_t>(level.width);
        float sides[4][CHUNK];
        for (int32_t side = 0; side < 4; ++side) {
            gather(edge_logits + static_cast<size_t>(side * rule_.bins) * locations, locations, rule_.bins, chunk,
                   count, logits_.data());
            expected_bins(logits_.data(), rule_.bins, sides[side]);
        }
        for (int32_t k = 0; k < count; ++k) {
            const float distances[4] = {sides[0][k], sides[1][k], sides[2][k], sides[3][k]};
            out_boxes[chunk[k].rank] = ld::box_at(chunk[k].location, distances, level, rule_);
        }
    }

private:
    const LdCandidateRule& rule_;
    std::vector<float> logits_;
};

class RotatedDecode {
public:
    using AnyBox = RotatedBox;

    explicit RotatedDecode(const LdCandidateRule& rule)
        : bins_(rule.bins), logits_(static_cast<size_t>(rule.bins) * CHUNK) {
        for (int32_t bin = 0; bin < bins_; ++bin) {  // of the doubled angle
            const double turn = 2 * 3.141592653589793 / bins_ * bin;
            sine_.push_back(static_cast<float>(std::sin(turn)));
            cosine_.push_back(static_cast<float>(std::cos(turn)));
        }
    }

    void operator()(const float* edge_logits, const LdLevel& level, const Pair* chunk, int32_t count,
                    RotatedBox* out_boxes) {
        const size_t locations = static_cast<size_t>(level.height) * static_cast<size_t>(level.width);
        float means[4][CHUNK], sin2[CHUNK], cos2[CHUNK];
        for (int32_t row = 0; row < 5; ++row) {
            gather(edge_logits + static_cast<size_t>(row * bins_) * locations, locations, bins_, chunk, count,
                   logits_.data());
            if (row < 4) {
                expected_bins(logits_.data(), bins_, means[row]);
            } else {
                expected_values(logits_.data(), bins_, sine_.data(), cosine_.data(), sin2, cos2);
            }
        }
        for (int32_t k = 0; k < count; ++k) {
            const ld::RotatedMeans of = {means[0][k], means[1][k], means[2][k], means[3][k], sin2[k], cos2[k]};
            out_boxes[chunk[k].rank] = ld::rotated_box_at(chunk[k].location, of, level, bins_);
        }
    }

private:
    int32_t bins_;
    std::vector<float> logits_, sine_, cosine_;
};

// Boxes of one level's pairs, in the order of their locations so that neighbours share cache lines.
template <class Decode>
void decode_pairs(const float* edge_logits, const LdLevel& level, Decode& decode, std::vector<Pair>& pairs,
                  typename Decode::AnyBox* out_boxes) {
    std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) { return a.location < b.location; });
    for (size_t start = 0; start < pairs.size(); start += CHUNK) {
        const int32_t count = static_cast<int32_t>(std::min<size_t>(CHUNK, pairs.size() - start));
        decode(edge_logits, level, pairs.data() + start, count, out_boxes);
    }
}

// How many candidates there can be: a rule without limits is no reason to ask for memory without limits.
size_t most_candidates(const LdLevel* levels, int32_t num_levels, const LdCandidateRule& rule) {
    int64_t pairs = 0;
    for (int32_t l = 0; l < num_levels; ++l) pairs += int64_t{levels[l].height} * levels[l].width * rule.classes;
    return static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(rule.pre_nms_top_k, pairs)));
}

template <class Decode>
int32_t candidates(const float* const* class_logits, const float* const* edge_logits, const LdLevel* levels,
                   int32_t num_levels, const LdCandidateRule& rule, float score_threshold,
                   typename Decode::AnyBox* out_boxes, float* out_scores, int64_t* out_labels) {
    const float limit = ld::smallest_logit_above(score_threshold);
    const uint32_t classes = static_cast<uint32_t>(rule.classes);
    std::vector<uint32_t> first_index(static_cast<size_t>(num_levels) + 1);
    Best overall(rule.pre_nms_top_k, limit);
    for (int32_t l = 0; l < num_levels; ++l) {
        const size_t level = static_cast<size_t>(l);
        const int32_t locations = levels[l].height * levels[l].width;
        Best of_level(rule.per_level_top_k, overall.limit());
        scan(class_logits[l], rule.classes, locations, first_index[level], of_level);
        for (const uint64_t key : of_level.keys()) overall.add(key);
        first_index[level + 1] = first_index[level] + static_cast<uint32_t>(locations) * classes;
    }
    std::vector<uint64_t> keys = overall.keys();
    std::sort(keys.begin(), keys.end(), std::greater<>());

    std::vector<std::vector<Pair>> pairs(static_cast<size_t>(num_levels));
    for (size_t rank = 0; rank < keys.size(); ++rank) {
        const uint32_t index = ld::index_of_key(keys[rank]);
        size_t level = 0;
        while (index >= first_index[level + 1]) ++level;
        const uint32_t pair = index - first_index[level];
        pairs[level].push_back({static_cast<int32_t>(pair / classes), static_cast<int32_t>(rank)});
        out_scores[rank] = ld::score_of_logit(ld::score_of_key(keys[rank]));
        out_labels[rank] = static_cast<int64_t>(pair % classes);
    }
    Decode decode(rule);
    for (int32_t l = 0; l < num_levels; ++l) {
        decode_pairs(edge_logits[l], levels[l], decode, pairs[static_cast<size_t>(l)], out_boxes);
    }
    return static_cast<int32_t>(keys.size());
}

// From maps to detections, with an NMS of candidates.
template <class Decode, class Settings, class Nms>
int32_t detect(const float* const* class_logits, const float* const* edge_logits, const LdLevel* levels,
               int32_t num_levels, const LdCandidateRule& rule, const Settings* settings, Nms nms, float* out_boxes,
               float* out_scores, int64_t* out_labels) {
    const size_t most = most_candidates(levels, num_levels, rule);
    std::vector<typename Decode::AnyBox> boxes(most);
    std::vector<float> scores(most);
    std::vector<int64_t> labels(most);
    const int32_t count = candidates<Decode>(class_logits, edge_logits, levels, num_levels, rule,
                                             settings->score_threshold, boxes.data(), scores.data(), labels.data());
    return nms(reinterpret_cast<const float*>(boxes.data()), scores.data(), labels.data(), count, settings, out_boxes,
               out_scores, out_labels);
}

}  // namespace

int32_t ld_gfl_candidates(const float* const* class_logits, const float* const* edge_logits, const LdLevel* levels,
                          int32_t num_levels, const LdCandidateRule* rule, float score_threshold, float* out_boxes,
                          float* out_scores, int64_t* out_labels) {
    try {
        return candidates<SideDecode>(class_logits, edge_logits, levels, num_levels, *rule, score_threshold,
                                      reinterpret_cast<Box*>(out_boxes), out_scores, out_labels);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

int32_t ld_gfl_detect(const float* const* class_logits, const float* const* edge_logits, const LdLevel* levels,
                      int32_t num_levels, const LdCandidateRule* rule, const LdNmsSettings* settings, float* out_boxes,
                      float* out_scores, int64_t* out_labels) {
    try {
        return detect<SideDecode>(class_logits, edge_logits, levels, num_levels, *rule, settings, ld_cluster_diou_nms,
                                  out_boxes, out_scores, out_labels);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

int32_t ld_rotated_gfl_candidates(const float* const* class_logits, const float* const* edge_logits,
                                  const LdLevel* levels, int32_t num_levels, const LdCandidateRule* rule,
                                  float score_threshold, float* out_boxes, float* out_scores, int64_t* out_labels) {
    try {
        return candidates<RotatedDecode>(class_logits, edge_logits, levels, num_levels, *rule, score_threshold,
                                         reinterpret_cast<RotatedBox*>(out_boxes), out_scores, out_labels);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}

int32_t ld_rotated_gfl_detect(const float* const* class_logits, const float* const* edge_logits, const LdLevel* levels,
                              int32_t num_levels, const LdCandidateRule* rule, const LdRotatedNmsSettings* settings,
                              float* out_boxes, float* out_scores, int64_t* out_labels) {
    try {
        return detect<RotatedDecode>(class_logits, edge_logits, levels, num_levels, *rule, settings,
                                     ld_rotated_cluster_nms, out_boxes, out_scores, out_labels);
    } catch (const std::bad_alloc&) {
        return -1;
    }
}
