#include "logger.h"
#include "plugins.h"

namespace ld {

nvinfer1::IPluginV3* ClusterDIoUNMS::clone() noexcept {
    try {
        return new ClusterDIoUNMS(attributes());
    } catch (const std::exception& error) {
        log_error(error.what());
        return nullptr;
    }
}

void ClusterDIoUNMS::check(const Shapes& shapes) const {
    const nvinfer1::Dims &boxes = shapes[0], &scores = shapes[1], &labels = shapes[2];
    const bool ranks = boxes.nbDims == 3 && scores.nbDims == 2 && labels.nbDims == 2;
    bool fit = ranks && boxes.d[2] == 4;
    for (int32_t k = 0; ranks && k < 2; ++k) fit = fit && boxes.d[k] == scores.d[k] && boxes.d[k] == labels.d[k];
    if (!fit) {
        refuse("needs boxes (N, K, 4), scores (N, K) and labels (N, K), got " + text_of(boxes) + ", " +
               text_of(scores) + ", " + text_of(labels));
    }
}

size_t ClusterDIoUNMS::workspace(const Shapes& shapes) const {
    return ld_cluster_diou_nms_workspace(static_cast<int32_t>(shapes[0].d[0]), static_cast<int32_t>(shapes[0].d[1]));
}

int32_t ClusterDIoUNMS::run(const Shapes& shapes, LdType type, const void* const* inputs,
                            const LdDetections& detections, void* workspace, cudaStream_t stream) const {
    return ld_cluster_diou_nms_enqueue(inputs[0], inputs[1], type, static_cast<const int64_t*>(inputs[2]),
                                       static_cast<int32_t>(shapes[0].d[0]), static_cast<int32_t>(shapes[0].d[1]),
                                       &settings(), &detections, workspace, stream);
}

}  // namespace ld
