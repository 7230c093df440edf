#include "logger.h"
#include "plugins.h"

namespace ld {

template <class Boxes>
const std::vector<AttributeSpec>& DetectPlugin<Boxes>::specs() {
    static const std::vector<AttributeSpec> specs = [] {
        std::vector<AttributeSpec> all = Boxes::attributes();
        all.push_back({"strides", nvinfer1::PluginFieldType::kINT32, true});
        all.push_back({"per_level_top_k", nvinfer1::PluginFieldType::kINT32, false});
        all.push_back({"pre_nms_top_k", nvinfer1::PluginFieldType::kINT32, false});
        return all;
    }();
    return specs;
}

template <class Boxes>
DetectPlugin<Boxes>::DetectPlugin(const Attributes& attributes)
    : DetectionPlugin(OP, attributes, Boxes::NUMBERS),
      settings_(Boxes::settings(OP, attributes)),
      strides_(attributes.integers("strides")) {
    if (levels() > LD_MAX_LEVELS) {
        refuse("at most " + std::to_string(LD_MAX_LEVELS) + " levels, got " + std::to_string(levels()) + " strides");
    }
    for (const int32_t stride : strides_) {
        if (stride < 1) refuse("attribute strides must be above 0, got " + std::to_string(stride));
    }
    for (const char* name : {"per_level_top_k", "pre_nms_top_k"}) {
        if (attributes.integer(name) < 1) refuse(std::string("attribute ") + name + " must be 1 or more");
    }
}

template <class Boxes>
nvinfer1::IPluginV3* DetectPlugin<Boxes>::clone() noexcept {
    try {
        return new DetectPlugin(attributes());
    } catch (const std::exception& error) {
        log_error(error.what());
        return nullptr;
    }
}

template <class Boxes>
void DetectPlugin<Boxes>::check(const Shapes& shapes) const {
    for (int32_t l = 0; l < levels(); ++l) {
        const nvinfer1::Dims& logits = shapes[static_cast<size_t>(l)];
        const nvinfer1::Dims& edges = shapes[static_cast<size_t>(levels() + l)];
        const bool ranks = logits.nbDims == 4 && edges.nbDims == 4 && shapes[0].nbDims == 4;
        bool fit = ranks && edges.d[1] % Boxes::NUMBERS == 0 && edges.d[1] > 0;
        for (const int32_t k : {0, 2, 3}) fit = fit && logits.d[k] == edges.d[k];
        fit = fit && logits.d[0] == shapes[0].d[0] && logits.d[1] == shapes[0].d[1];
        fit = fit && edges.d[1] == shapes[static_cast<size_t>(levels())].d[1];
        if (!fit) {
            refuse("needs class logits (N, C, h, w) and edge logits (N, " + std::to_string(Boxes::NUMBERS) +
                   " * (reg_max + 1), h, w), with one N, C and reg_max at all levels, got at level " +
                   std::to_string(l) + " " + text_of(logits) + " and " + text_of(edges) + ", at level 0 " +
                   text_of(shapes[0]) + " and " + text_of(shapes[static_cast<size_t>(levels())]));
        }
    }
}

template <class Boxes>
typename DetectPlugin<Boxes>::Head DetectPlugin<Boxes>::head(const Shapes& shapes) const {
    Head head = {};
    for (int32_t l = 0; l < levels(); ++l) {
        const nvinfer1::Dims& logits = shapes[static_cast<size_t>(l)];
        head.levels[l] = {static_cast<int32_t>(logits.d[2]), static_cast<int32_t>(logits.d[3]),
                          strides_[static_cast<size_t>(l)]};
    }
    head.rule.classes = static_cast<int32_t>(shapes[0].d[1]);
    head.rule.bins = static_cast<int32_t>(shapes[static_cast<size_t>(levels())].d[1] / Boxes::NUMBERS);
    head.rule.per_level_top_k = attributes().integer("per_level_top_k");
    head.rule.pre_nms_top_k = attributes().integer("pre_nms_top_k");
    head.rule.canvas_height = static_cast<float>(shapes[0].d[2] * strides_[0]);
    head.rule.canvas_width = static_cast<float>(shapes[0].d[3] * strides_[0]);
    return head;
}

template <class Boxes>
size_t DetectPlugin<Boxes>::workspace(const Shapes& shapes) const {
    const Head all = head(shapes);
    return Boxes::detect_workspace(static_cast<int32_t>(shapes[0].d[0]), all.levels, levels(), &all.rule);
}

template <class Boxes>
int32_t DetectPlugin<Boxes>::run(const Shapes& shapes, LdType type, const void* const* inputs,
                                 const LdDetections& detections, void* workspace, cudaStream_t stream) const {
    const Head all = head(shapes);
    return Boxes::detect_enqueue(inputs, inputs + levels(), type, static_cast<int32_t>(shapes[0].d[0]), all.levels,
                                 levels(), &all.rule, &settings_, &detections, workspace, stream);
}

template class DetectPlugin<Upright>;
template class DetectPlugin<Rotated>;

}  // namespace ld
