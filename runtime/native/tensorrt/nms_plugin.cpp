#include "logger.h"
#include "plugins.h"

namespace ld {

template <class Boxes>
nvinfer1::IPluginV3* NmsPlugin<Boxes>::clone() noexcept {
    try {
        return new NmsPlugin(this->attributes());
    } catch (const std::exception& error) {
        log_error(error.what());
        return nullptr;
    }
}

template <class Boxes>
void NmsPlugin<Boxes>::check(const Shapes& shapes) const {
    const nvinfer1::Dims &boxes = shapes[0], &scores = shapes[1], &labels = shapes[2];
    const bool ranks = boxes.nbDims == 3 && scores.nbDims == 2 && labels.nbDims == 2;
    bool fit = ranks && boxes.d[2] == Boxes::NUMBERS;
    for (int32_t k = 0; ranks && k < 2; ++k) fit = fit && boxes.d[k] == scores.d[k] && boxes.d[k] == labels.d[k];
    if (!fit) {
        refuse("needs boxes (N, K, " + std::to_string(Boxes::NUMBERS) + "), scores (N, K) and labels (N, K), got " +
               text_of(boxes) + ", " + text_of(scores) + ", " + text_of(labels));
    }
}

template <class Boxes>
size_t NmsPlugin<Boxes>::workspace(const Shapes& shapes) const {
    return Boxes::nms_workspace(static_cast<int32_t>(shapes[0].d[0]), static_cast<int32_t>(shapes[0].d[1]));
}

template <class Boxes>
int32_t NmsPlugin<Boxes>::run(const Shapes& shapes, LdType type, const void* const* inputs,
                            const LdDetections& detections, void* workspace, cudaStream_t stream) const {
    return Boxes::nms_enqueue(inputs[0], inputs[1], type, static_cast<const int64_t*>(inputs[2]),
                                       static_cast<int32_t>(shapes[0].d[0]), static_cast<int32_t>(shapes[0].d[1]),
                                       &settings_, &detections, workspace, stream);
}

template class NmsPlugin<Upright>;
template class NmsPlugin<Rotated>;

}  // namespace ld
