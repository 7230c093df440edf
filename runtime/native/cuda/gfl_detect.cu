// ld_deploy::GFLDetect and ld_deploy::RotatedGFLDetect: from the maps of a GFL head to detections.
//
// One pass over the class logits collects the keys of the pairs above the threshold, per image and level. Of each level
// a block selects the best by radix; the order of all selected ones decides who is decoded; then the NMS. A level with
// more pairs above the threshold than its buffer holds is selected from its map instead: the same result, later.
#include <algorithm>
#include <cuda_fp16.h>

#include "gfl_decode.h"
#include "ranked_nms.h"
#include "rotated_gfl_decode.h"

namespace ld {
namespace {

constexpr int32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xFFFFFFFFu;
constexpr int32_t THREADS = 256;
constexpr int32_t LOGITS_PER_THREAD = 16;
constexpr int32_t LOGITS_PER_BLOCK = THREADS * LOGITS_PER_THREAD;
constexpr int32_t BUFFER_KEYS = 65536;  // of an image and level
constexpr int32_t SELECTORS = 1024;     // threads that select of an image and level
constexpr int32_t DIGITS = 256;

// One level, of all images. Counts are per image.
struct LevelPlan {
    LdLevel level;
    int32_t locations, pairs;
    int32_t buffer_keys;    // room for keys
    int32_t top_k;          // keys to select
    uint32_t first_index;   // number of its first pair among those of all levels
    int32_t first_block;    // of the pass over the logits
    int32_t first_key;      // among the selected ones
    int64_t first_buffered;
};

struct Plan {
    LevelPlan levels[LD_MAX_LEVELS];
    int32_t num_levels;
    LdCandidateRule rule;
    float limit;  // of a logit: see smallest_logit_above
    int32_t blocks, keys, candidates;
    int64_t buffered;
};

template <class Value>
struct Maps {
    const Value* class_logits[LD_MAX_LEVELS];
    const Value* edge_logits[LD_MAX_LEVELS];
};

template <class Pairs>
struct Parts {
    int32_t* found;      // (batch, levels): keys above the threshold
    int32_t* selected;   // (batch, levels)
    uint64_t* buffer;    // (batch, plan.buffered)
    uint64_t* keys;      // (batch, plan.keys): the selected ones of each level, then 0
    int32_t* ranks;      // (batch, plan.keys)
    Ranked<Pairs> rows;
};

// Numbers its pairs location * classes + class, while the map has the classes first.
__device__ uint64_t key_of(const LevelPlan& plan, int32_t classes, int32_t place_in_map, float logit) {
    const int32_t location = place_in_map % plan.locations;
    const int32_t label = place_in_map / plan.locations;
    return order_key(logit, plan.first_index + static_cast<uint32_t>(location * classes + label));
}

__device__ int32_t sum_of_lower_lanes(int32_t value, int32_t lane) {
    int32_t sum = value;
    for (int32_t step = 1; step < WARP; step *= 2) {
        const int32_t lower = __shfl_up_sync(ALL_LANES, sum, static_cast<uint32_t>(step));
        if (lane >= step) sum += lower;
    }
    return sum - value;
}

template <class Value>
__global__ void __launch_bounds__(THREADS) collect_keys(const __grid_constant__ Plan plan,
                                                        const __grid_constant__ Maps<Value> maps, int32_t* all_found,
                                                        uint64_t* all_keys) {
    const int32_t block = static_cast<int32_t>(blockIdx.x), image = static_cast<int32_t>(blockIdx.y);
    const int32_t thread = static_cast<int32_t>(threadIdx.x), lane = thread % WARP;
    int32_t l = 0;
    while (l + 1 < plan.num_levels && block >= plan.levels[l + 1].first_block) ++l;
    const LevelPlan& level = plan.levels[l];
    const Value* logits = maps.class_logits[l] + static_cast<int64_t>(image) * level.pairs;
    const int64_t first = static_cast<int64_t>(block - level.first_block) * LOGITS_PER_BLOCK + thread;

    float values[LOGITS_PER_THREAD];
    int32_t mine = 0;
#pragma unroll
    for (int32_t k = 0; k < LOGITS_PER_THREAD; ++k) {
        const int64_t place = first + k * THREADS;
        values[k] = place < level.pairs ? static_cast<float>(logits[place]) : NAN;
        mine += values[k] >= plan.limit;
    }
    if (!__any_sync(ALL_LANES, mine)) return;

    const int32_t before = sum_of_lower_lanes(mine, lane);
    int32_t* counter = all_found + image * plan.num_levels + l;
    int32_t start = 0;
    if (lane == WARP - 1) start = atomicAdd(counter, before + mine);
    start = __shfl_sync(ALL_LANES, start, WARP - 1) + before;
    uint64_t* buffer = all_keys + image * plan.buffered + level.first_buffered;
#pragma unroll
    for (int32_t k = 0; k < LOGITS_PER_THREAD; ++k) {
        if (!(values[k] >= plan.limit)) continue;
        const int32_t place = static_cast<int32_t>(first + k * THREADS);
        if (start < level.buffer_keys) buffer[start] = key_of(level, plan.rule.classes, place, values[k]);
        ++start;
    }
}

// Keys of one image and level: what was collected, or all pairs of the map where that was too much.
template <class Value>
struct Keys {
    const LevelPlan& level;
    const uint64_t* buffer;
    const Value* logits;
    int32_t classes;
    float limit;
    int32_t count;
    bool from_map;

    // 0 beyond `count`, and for a pair that is out.
    __device__ uint64_t at(int32_t index) const {
        if (index >= count) return 0;
        if (!from_map) return buffer[index];
        const float logit = static_cast<float>(logits[index]);
        return logit >= limit ? key_of(level, classes, index, logit) : 0;
    }
};

// What is known of the smallest key wanted: its highest digits, and how many of the keys that share them are wanted.
struct Cut {
    uint64_t digits;
    int32_t wanted;
    bool all;  // every key that shares the digits is wanted
};

// One more digit of the cut, from how many of the keys that share it have which digit next. By the first warp.
__device__ void narrow(Cut* cut, const int32_t* counts) {
    constexpr int32_t EACH = DIGITS / WARP;
    const int32_t lane = static_cast<int32_t>(threadIdx.x);
    const Cut before = *cut;
    const int32_t highest = DIGITS - 1 - lane * EACH;  // lane 0 has the highest digits
    int32_t mine = 0;
    for (int32_t k = 0; k < EACH; ++k) mine += counts[highest - k];
    int32_t above = sum_of_lower_lanes(mine, lane);
    __syncwarp();  // all have read the cut
    if (above >= before.wanted || above + mine < before.wanted) return;  // holds for all lanes but one
    int32_t digit = highest;
    while (above + counts[digit] < before.wanted) above += counts[digit--];
    *cut = {before.digits * DIGITS + static_cast<uint64_t>(digit), before.wanted - above,
            counts[digit] == before.wanted - above};
}

// The smallest of the `wanted` largest keys, or of a range of keys that ends there. Keys differ. By the whole block.
template <class Value>
__device__ uint64_t smallest_wanted(const Keys<Value>& keys, int32_t wanted) {
    __shared__ int32_t counts[DIGITS];
    __shared__ Cut cut;
    const int32_t thread = static_cast<int32_t>(threadIdx.x), lane = thread % WARP;
    if (thread == 0) cut = {0, wanted, false};
    int32_t shift = 64;
    do {
        shift -= 8;
        if (thread < DIGITS) counts[thread] = 0;
        __syncthreads();
        const uint64_t digits = cut.digits;
        for (int32_t start = 0; start < keys.count; start += SELECTORS) {  // in step: lanes vote
            const uint64_t key = keys.at(start + thread);
            const bool shares = key != 0 && (key >> shift) / DIGITS == digits;
            const uint32_t sharing = __ballot_sync(ALL_LANES, shares);
            if (!shares) continue;
            const int32_t digit = static_cast<int32_t>((key >> shift) % DIGITS);
            const uint32_t same = __match_any_sync(sharing, digit);  // many lanes have one digit
            if (lane == lowest(same)) atomicAdd(counts + digit, ones(same));
        }
        __syncthreads();
        if (thread < WARP) narrow(&cut, counts);
        __syncthreads();
    } while (!cut.all && shift > 0);
    return cut.digits << shift;
}

template <class Pairs, class Value>
__global__ void __launch_bounds__(SELECTORS) select_best(const __grid_constant__ Plan plan,
                                                         const __grid_constant__ Maps<Value> maps,
                                                         const Parts<Pairs> parts) {
    __shared__ int32_t taken;
    const int32_t l = static_cast<int32_t>(blockIdx.x), image = static_cast<int32_t>(blockIdx.y);
    const int32_t thread = static_cast<int32_t>(threadIdx.x), lane = thread % WARP;
    const LevelPlan& level = plan.levels[l];
    const int32_t found = parts.found[image * plan.num_levels + l];
    const bool from_map = found > level.buffer_keys;
    const Keys<Value> keys = {level,
                              parts.buffer + image * plan.buffered + level.first_buffered,
                              maps.class_logits[l] + static_cast<int64_t>(image) * level.pairs,
                              plan.rule.classes,
                              plan.limit,
                              from_map ? level.pairs : found,
                              from_map};
    if (thread == 0) taken = 0;
    __syncthreads();
    uint64_t* selected = parts.keys + static_cast<int64_t>(image) * plan.keys + level.first_key;
    int32_t* ranks = parts.ranks + static_cast<int64_t>(image) * plan.keys + level.first_key;
    if (level.top_k > 0) {
        const uint64_t smallest = found <= level.top_k ? 1 : smallest_wanted(keys, level.top_k);
        for (int32_t start = 0; start < keys.count; start += SELECTORS) {
            const uint64_t key = keys.at(start + thread);
            const uint32_t wanted = __ballot_sync(ALL_LANES, key >= smallest);
            int32_t place = 0;
            if (lane == 0 && wanted) place = atomicAdd(&taken, ones(wanted));
            place = __shfl_sync(ALL_LANES, place, 0) + ones(wanted & ((uint64_t{1} << lane) - 1));
            if (key >= smallest && place < level.top_k) selected[place] = key;
        }
    }
    __syncthreads();
    const int32_t count = taken < level.top_k ? taken : level.top_k;
    for (int32_t k = thread; k < level.top_k; k += SELECTORS) {
        if (k >= count) selected[k] = 0;
        ranks[k] = 0;
    }
    if (thread == 0) parts.selected[image * plan.num_levels + l] = count;
}

// What a lane reads of a location: the mean of a distribution, of the angle's that of both parts of its direction.
struct Mean {
    float value, second;
};

struct UprightHead {
    using Pairs = DIoUPairs;
    static constexpr int32_t ROWS = 4, LANES = 4;

    template <class Value>
    static __device__ Mean mean(int32_t, const Value* logits, int64_t step, int32_t bins) {
        return {expected_bin(logits, step, bins), 0.0f};
    }

    static __device__ Box box(int32_t location, const Mean* means, const LdLevel& level, const LdCandidateRule& rule) {
        const float distances[ROWS] = {means[0].value, means[1].value, means[2].value, means[3].value};
        return box_at(location, distances, level, rule);
    }
};

struct RotatedHead {
    using Pairs = RotatedPairs;
    static constexpr int32_t ROWS = 5, LANES = 8;

    template <class Value>
    static __device__ Mean mean(int32_t row, const Value* logits, int64_t step, int32_t bins) {
        if (row < ROWS - 1) return {expected_bin(logits, step, bins), 0.0f};
        float sin2 = 0.0f, cos2 = 0.0f;
        expected_direction(logits, step, bins, sin2, cos2);
        return {sin2, cos2};
    }

    static __device__ RotatedBox box(int32_t location, const Mean* means, const LdLevel& level,
                                     const LdCandidateRule& rule) {
        const RotatedMeans of = {means[0].value, means[1].value, means[2].value,
                                 means[3].value, means[4].value, means[4].second};
        return rotated_box_at(location, of, level, rule.bins);
    }
};

// Some lanes per key, one for each distribution. What is no box becomes a row that is out: it is not kept and has no
// vote.
template <class Head, class Value>
__global__ void __launch_bounds__(THREADS) decode(const __grid_constant__ Plan plan,
                                                  const __grid_constant__ Maps<Value> maps,
                                                  const Parts<typename Head::Pairs> parts) {
    constexpr int32_t ROWS = Head::ROWS, LANES = Head::LANES;
    const int32_t image = static_cast<int32_t>(blockIdx.y);
    const int32_t thread = static_cast<int32_t>(threadIdx.x), lane = thread % WARP, row = thread % LANES;
    const int32_t slot = static_cast<int32_t>(blockIdx.x) * (THREADS / LANES) + thread / LANES;
    const auto rows = of_image(parts.rows, image);
    if (slot == 0 && row == 0) {
        int32_t total = 0;
        for (int32_t l = 0; l < plan.num_levels; ++l) total += parts.selected[image * plan.num_levels + l];
        *rows.count = total < plan.candidates ? total : plan.candidates;
    }
    const int64_t at = static_cast<int64_t>(image) * plan.keys + slot;
    const uint64_t key = slot < plan.keys ? parts.keys[at] : 0;
    const int32_t rank = key ? parts.ranks[at] : 0;
    const bool wanted = key != 0 && rank < plan.candidates;

    const uint32_t index = index_of_key(key);
    int32_t l = 0, pair = 0;
    Mean mine = {0.0f, 0.0f};
    if (wanted) {
        while (l + 1 < plan.num_levels && index >= plan.levels[l + 1].first_index) ++l;
        const LevelPlan& level = plan.levels[l];
        pair = static_cast<int32_t>(index - level.first_index);
        if (row < ROWS) {
            const int64_t map = (static_cast<int64_t>(image) * ROWS + row) * plan.rule.bins * level.locations;
            mine = Head::mean(row, maps.edge_logits[l] + map + pair / plan.rule.classes, level.locations,
                              plan.rule.bins);
        }
    }
    Mean means[ROWS];
    for (int32_t r = 0; r < ROWS; ++r) {
        means[r] = {__shfl_sync(ALL_LANES, mine.value, lane - row + r),
                    __shfl_sync(ALL_LANES, mine.second, lane - row + r)};
    }
    if (!wanted || row != 0) return;
    const auto box = Head::box(pair / plan.rule.classes, means, plan.levels[l].level, plan.rule);
    if (is_in(box, 1.0f, 0.0f)) {
        put_row(rows, rank, row_of_box(box), score_of_logit(score_of_key(key)), pair % plan.rule.classes);
    } else {
        put_row(rows, rank, {}, 0.0f, -1);
    }
}

// False where the sizes are beyond the limits.
bool make_plan(Plan& plan, const LdLevel* levels, int32_t num_levels, const LdCandidateRule& rule) {
    if (num_levels < 1 || num_levels > LD_MAX_LEVELS || rule.classes < 1 || rule.bins < 1) return false;
    const int32_t most = std::max(rule.pre_nms_top_k, 0);
    if (most > LD_MAX_CANDIDATES) return false;
    plan = {};
    plan.num_levels = num_levels;
    plan.rule = rule;
    int64_t index = 0, keys = 0;
    for (int32_t l = 0; l < num_levels; ++l) {
        if (levels[l].height < 0 || levels[l].width < 0) return false;
        const int64_t locations = static_cast<int64_t>(levels[l].height) * levels[l].width;
        if (locations > INT32_MAX / rule.classes) return false;
        LevelPlan& level = plan.levels[l];
        level.level = levels[l];
        level.locations = static_cast<int32_t>(locations);
        level.pairs = level.locations * rule.classes;
        level.buffer_keys = std::min(level.pairs, BUFFER_KEYS);
        level.top_k = std::max(0, std::min({rule.per_level_top_k, most, level.pairs}));
        level.first_index = static_cast<uint32_t>(index);
        level.first_block = plan.blocks;
        level.first_key = static_cast<int32_t>(keys);
        level.first_buffered = plan.buffered;
        index += level.pairs;
        keys += level.top_k;
        plan.blocks += blocks_for(level.pairs, LOGITS_PER_BLOCK);
        plan.buffered += level.buffer_keys;
    }
    if (index > INT32_MAX - SELECTORS) return false;  // threads count in steps of so many beyond the last
    plan.keys = static_cast<int32_t>(keys);
    plan.candidates = std::min(most, plan.keys);
    return true;
}

template <class Pairs>
Parts<Pairs> lay_out(Workspace& workspace, const Plan& plan, int32_t batch) {
    const int64_t images = batch;
    return {workspace.take<int32_t>(images * plan.num_levels),
            workspace.take<int32_t>(images * plan.num_levels),
            workspace.take<uint64_t>(images * plan.buffered),
            workspace.take<uint64_t>(images * plan.keys),
            workspace.take<int32_t>(images * plan.keys),
            take_ranked<Pairs>(workspace, batch, plan.candidates)};
}

// The maps of a call.
struct MapPointers {
    const void* const* class_logits;
    const void* const* edge_logits;
};

template <class Head, class Value>
void detect(Launcher& launch, const Plan& plan, const MapPointers& pointers, int32_t batch,
            const typename Head::Pairs::Settings& settings, const LdDetections& detections, void* memory) {
    using Pairs = typename Head::Pairs;
    Workspace workspace(memory);
    const Parts<Pairs> parts = lay_out<Pairs>(workspace, plan, batch);
    const uint32_t images = static_cast<uint32_t>(batch);
    Maps<Value> maps = {};
    for (int32_t l = 0; l < plan.num_levels; ++l) {
        maps.class_logits[l] = static_cast<const Value*>(pointers.class_logits[l]);
        maps.edge_logits[l] = static_cast<const Value*>(pointers.edge_logits[l]);
    }
    if (plan.candidates > 0) {
        launch.set_zero(parts.found, static_cast<int64_t>(batch) * plan.num_levels);
        launch(collect_keys<Value>, dim3(static_cast<uint32_t>(plan.blocks), images), THREADS, plan, maps, parts.found,
               parts.buffer);
        launch(select_best<Pairs, Value>, dim3(static_cast<uint32_t>(plan.num_levels), images), SELECTORS, plan, maps,
               parts);
        rank_keys(launch, parts.keys, parts.ranks, batch, plan.keys);
        const int32_t blocks = blocks_for(plan.keys, THREADS / Head::LANES);
        launch(decode<Head, Value>, dim3(static_cast<uint32_t>(blocks), images), THREADS, plan, maps, parts);
    }
    detect_ranked(launch, parts.rows, batch, settings, detections);
}

template <class Pairs>
size_t workspace_size(int32_t batch, const LdLevel* levels, int32_t num_levels, const LdCandidateRule& rule) {
    Plan plan;
    if (!make_plan(plan, levels, num_levels, rule) || !within_limits(batch, plan.candidates)) return 0;
    Workspace workspace(nullptr);
    lay_out<Pairs>(workspace, plan, batch);
    return workspace.size();
}

template <class Head>
int32_t enqueue(const MapPointers& maps, LdType type, int32_t batch, const LdLevel* levels, int32_t num_levels,
                const LdCandidateRule& rule, const typename Head::Pairs::Settings& settings,
                const LdDetections& detections, void* workspace, LdStream stream) {
    Launcher launch(stream);
    Plan plan;
    if (!make_plan(plan, levels, num_levels, rule) || !within_limits(batch, plan.candidates)) {
        launch.refuse();
        return launch.error();
    }
    plan.limit = smallest_logit_above(settings.score_threshold);
    const auto detect_of = type == LD_FLOAT16 ? detect<Head, __half> : detect<Head, float>;
    detect_of(launch, plan, maps, batch, settings, detections, workspace);
    return launch.error();
}

}  // namespace
}  // namespace ld

size_t ld_gfl_detect_workspace(int32_t batch, const LdLevel* levels, int32_t num_levels, const LdCandidateRule* rule) {
    return ld::workspace_size<ld::DIoUPairs>(batch, levels, num_levels, *rule);
}

int32_t ld_gfl_detect_enqueue(const void* const* class_logits, const void* const* edge_logits, LdType type,
                              int32_t batch, const LdLevel* levels, int32_t num_levels, const LdCandidateRule* rule,
                              const LdNmsSettings* settings, const LdDetections* detections, void* workspace,
                              LdStream stream) {
    return ld::enqueue<ld::UprightHead>({class_logits, edge_logits}, type, batch, levels, num_levels, *rule, *settings,
                                        *detections, workspace, stream);
}

size_t ld_rotated_gfl_detect_workspace(int32_t batch, const LdLevel* levels, int32_t num_levels,
                                       const LdCandidateRule* rule) {
    return ld::workspace_size<ld::RotatedPairs>(batch, levels, num_levels, *rule);
}

int32_t ld_rotated_gfl_detect_enqueue(const void* const* class_logits, const void* const* edge_logits, LdType type,
                                      int32_t batch, const LdLevel* levels, int32_t num_levels,
                                      const LdCandidateRule* rule, const LdRotatedNmsSettings* settings,
                                      const LdDetections* detections, void* workspace, LdStream stream) {
    return ld::enqueue<ld::RotatedHead>({class_logits, edge_logits}, type, batch, levels, num_levels, *rule, *settings,
                                        *detections, workspace, stream);
}
