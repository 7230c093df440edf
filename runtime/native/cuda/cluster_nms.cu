// ld_deploy::ClusterDIoUNMS and ld_deploy::RotatedClusterNMS: keys of the candidates that are in, their order, and the NMS
// of the rows in order.
#include <cuda_fp16.h>

#include "ranked_nms.h"

namespace ld {
namespace {

constexpr int32_t THREADS = 256;

template <class Value>
struct Candidates {
    int32_t count;  // per image
    const Value* boxes;
    const Value* scores;
    const int64_t* labels;
};

template <class Pairs, class Value>
__device__ auto box_of(const Value* boxes, int64_t index) {
    decltype(Pairs::voted({}, {})) box;
    read_box(boxes + NUMBERS<decltype(box)> * index, box);
    return box;
}

// A key for each candidate, 0 for one that is out.
template <class Pairs, class Value>
__global__ void __launch_bounds__(THREADS) make_keys(const Candidates<Value> candidates, float score_threshold,
                                                     uint64_t* keys, int32_t* ranks, int32_t* row_count) {
    const int32_t index = static_cast<int32_t>(blockIdx.x) * THREADS + static_cast<int32_t>(threadIdx.x);
    if (index == 0) row_count[blockIdx.y] = 0;
    if (index >= candidates.count) return;
    const int64_t i = static_cast<int64_t>(blockIdx.y) * candidates.count + index;
    const float score = static_cast<float>(candidates.scores[i]);
    const bool in = is_in(box_of<Pairs>(candidates.boxes, i), score, score_threshold);
    keys[i] = in ? order_key(score, static_cast<uint32_t>(index)) : 0;
    ranks[i] = 0;
}

template <class Pairs, class Value>
__global__ void __launch_bounds__(THREADS) put_in_order(const Candidates<Value> candidates, const uint64_t* keys,
                                                        const int32_t* ranks, const Ranked<Pairs> rows) {
    const int32_t index = static_cast<int32_t>(blockIdx.x) * THREADS + static_cast<int32_t>(threadIdx.x);
    const int64_t i = static_cast<int64_t>(blockIdx.y) * candidates.count + index;
    const Ranked<Pairs> image = of_image(rows, static_cast<int32_t>(blockIdx.y));
    const bool in = index < candidates.count && keys[i] != 0;
    if (in) {
        put_row(image, ranks[i], row_of_box(box_of<Pairs>(candidates.boxes, i)),
                static_cast<float>(candidates.scores[i]), candidates.labels[i]);
    }
    const int32_t in_block = __syncthreads_count(in);
    if (threadIdx.x == 0 && in_block) atomicAdd(image.count, in_block);
}

template <class Pairs>
struct Parts {
    uint64_t* keys;
    int32_t* ranks;
    Ranked<Pairs> rows;
};

template <class Pairs>
Parts<Pairs> lay_out(Workspace& workspace, int32_t batch, int32_t candidates) {
    const int64_t all = static_cast<int64_t>(batch) * candidates;
    return {workspace.take<uint64_t>(all), workspace.take<int32_t>(all),
            take_ranked<Pairs>(workspace, batch, candidates)};
}

template <class Pairs>
size_t workspace_size(int32_t batch, int32_t candidates) {
    if (!within_limits(batch, candidates)) return 0;
    Workspace workspace(nullptr);
    lay_out<Pairs>(workspace, batch, candidates);
    return workspace.size();
}

template <class Pairs, class Value>
void detect(Launcher& launch, const Candidates<Value>& candidates, int32_t batch,
            const typename Pairs::Settings& settings, const LdDetections& detections, void* memory) {
    Workspace workspace(memory);
    const Parts<Pairs> parts = lay_out<Pairs>(workspace, batch, candidates.count);
    const dim3 grid(static_cast<uint32_t>(blocks_for(candidates.count, THREADS)), static_cast<uint32_t>(batch));
    launch(make_keys<Pairs, Value>, grid, THREADS, candidates, settings.score_threshold, parts.keys, parts.ranks,
           parts.rows.count);
    rank_keys(launch, parts.keys, parts.ranks, batch, candidates.count);
    launch(put_in_order<Pairs, Value>, grid, THREADS, candidates, parts.keys, parts.ranks, parts.rows);
    detect_ranked(launch, parts.rows, batch, settings, detections);
}

template <class Pairs>
int32_t enqueue(const void* boxes, const void* scores, LdType type, const int64_t* labels, int32_t batch,
                int32_t candidates, const typename Pairs::Settings& settings, const LdDetections& detections,
                void* workspace, LdStream stream) {
    Launcher launch(stream);
    const auto detect_of = [&](auto zero) {
        using Value = decltype(zero);
        const Candidates<Value> all = {candidates, static_cast<const Value*>(boxes), static_cast<const Value*>(scores),
                                       labels};
        detect<Pairs>(launch, all, batch, settings, detections, workspace);
    };
    if (!within_limits(batch, candidates)) {
        launch.refuse();
    } else if (type == LD_FLOAT16) {
        detect_of(__half());
    } else {
        detect_of(0.0f);
    }
    return launch.error();
}

}  // namespace
}  // namespace ld

size_t ld_cluster_diou_nms_workspace(int32_t batch, int32_t candidates) {
    return ld::workspace_size<ld::DIoUPairs>(batch, candidates);
}

int32_t ld_cluster_diou_nms_enqueue(const void* boxes, const void* scores, LdType type, const int64_t* labels,
                                    int32_t batch, int32_t candidates, const LdNmsSettings* settings,
                                    const LdDetections* detections, void* workspace, LdStream stream) {
    return ld::enqueue<ld::DIoUPairs>(boxes, scores, type, labels, batch, candidates, *settings, *detections, workspace,
                                      stream);
}

size_t ld_rotated_cluster_nms_workspace(int32_t batch, int32_t candidates) {
    return ld::workspace_size<ld::RotatedPairs>(batch, candidates);
}

int32_t ld_rotated_cluster_nms_enqueue(const void* boxes, const void* scores, LdType type, const int64_t* labels,
                                       int32_t batch, int32_t candidates, const LdRotatedNmsSettings* settings,
                                       const LdDetections* detections, void* workspace, LdStream stream) {
    return ld::enqueue<ld::RotatedPairs>(boxes, scores, type, labels, batch, candidates, *settings, *detections,
                                         workspace, stream);
}
