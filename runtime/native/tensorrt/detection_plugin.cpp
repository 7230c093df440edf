#include "detection_plugin.h"

#include "logger.h"

namespace ld {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimsExprs;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;

constexpr DataType OUTPUT_TYPES[] = {DataType::kINT32, DataType::kFLOAT, DataType::kFLOAT, DataType::kINT64};

// 0, or -1 where it threw: TensorRT's interface is noexcept.
template <class Action>
int32_t guarded(const Action& action) noexcept {
    try {
        action();
        return 0;
    } catch (const std::exception& error) {
        log_error(error.what());
        return -1;
    }
}

DetectionPlugin::Shapes shapes_of(const PluginTensorDesc* tensors, int32_t count) {
    DetectionPlugin::Shapes shapes;
    for (int32_t k = 0; k < count; ++k) shapes.push_back(tensors[k].dims);
    return shapes;
}

DetectionPlugin::Shapes largest_shapes(const DynamicPluginTensorDesc* tensors, int32_t count) {
    DetectionPlugin::Shapes shapes;
    for (int32_t k = 0; k < count; ++k) shapes.push_back(tensors[k].max);
    return shapes;
}

}  // namespace

std::string text_of(const nvinfer1::Dims& dims) {
    std::string text = "(";
    for (int32_t k = 0; k < dims.nbDims; ++k) text += (k ? ", " : "") + std::to_string(dims.d[k]);
    return text + ")";
}

DetectionPlugin::DetectionPlugin(const char* op, const Attributes& attributes, int32_t numbers)
    : op_(op),
      attributes_(attributes),
      numbers_(numbers),
      max_detections_(attributes.integer("max_detections")),
      timing_cache_id_(std::string(NAMESPACE) + "::" + op + " " + VERSION + " " + attributes.text()) {}

nvinfer1::IPluginCapability* DetectionPlugin::getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept {
    switch (type) {
    case nvinfer1::PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
    case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
    case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
}

int32_t DetectionPlugin::getOutputDataTypes(DataType* outputs, int32_t num_outputs, const DataType*,
                                            int32_t) const noexcept {
    if (num_outputs != getNbOutputs()) return -1;
    for (int32_t k = 0; k < num_outputs; ++k) outputs[k] = OUTPUT_TYPES[k];
    return 0;
}

int32_t DetectionPlugin::getOutputShapes(const DimsExprs* inputs, int32_t num_inputs, const DimsExprs*, int32_t,
                                         DimsExprs* outputs, int32_t num_outputs,
                                         nvinfer1::IExprBuilder& builder) noexcept {
    if (num_inputs < 1 || num_outputs != getNbOutputs()) return -1;
    for (int32_t k = 0; k < num_outputs; ++k) {
        outputs[k].nbDims = k == 1 ? 3 : 2;
        outputs[k].d[0] = inputs[0].d[0];
        outputs[k].d[1] = builder.constant(k == 0 ? 1 : max_detections_);
    }
    outputs[1].d[2] = builder.constant(numbers_);
    return 0;
}

bool DetectionPlugin::supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors,
                                                int32_t num_inputs, int32_t num_outputs) noexcept {
    if (position < 0 || position >= num_inputs + num_outputs || num_outputs != getNbOutputs()) return false;
    const PluginTensorDesc& tensor = tensors[position].desc;
    if (tensor.format != nvinfer1::PluginFormat::kLINEAR) return false;
    if (position >= num_inputs) return tensor.type == OUTPUT_TYPES[position - num_inputs];
    if (position == labels_input()) return tensor.type == DataType::kINT64;
    if (position > 0) return tensor.type == tensors[0].desc.type;
    return tensor.type == DataType::kFLOAT || tensor.type == DataType::kHALF;
}

int32_t DetectionPlugin::configurePlugin(const DynamicPluginTensorDesc* inputs, int32_t num_inputs,
                                         const DynamicPluginTensorDesc*, int32_t) noexcept {
    return guarded([&] { check_sizes(largest_shapes(inputs, num_inputs), num_inputs); });
}

size_t DetectionPlugin::getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t num_inputs,
                                         const DynamicPluginTensorDesc*, int32_t) const noexcept {
    size_t size = 0;
    guarded([&] {
        const Shapes shapes = largest_shapes(inputs, num_inputs);
        check_sizes(shapes, num_inputs);
        size = workspace(shapes);
    });
    return size;
}

int32_t DetectionPlugin::onShapeChange(const PluginTensorDesc* inputs, int32_t num_inputs, const PluginTensorDesc*,
                                       int32_t) noexcept {
    return guarded([&] { check_sizes(shapes_of(inputs, num_inputs), num_inputs); });
}

int32_t DetectionPlugin::enqueue(const PluginTensorDesc* input_descs, const PluginTensorDesc*,
                                 const void* const* inputs, void* const* outputs, void* workspace,
                                 cudaStream_t stream) noexcept {
    return guarded([&] {
        const LdDetections detections = {static_cast<int32_t*>(outputs[0]), static_cast<float*>(outputs[1]),
                                         static_cast<float*>(outputs[2]), static_cast<int64_t*>(outputs[3])};
        const LdType type = input_descs[0].type == DataType::kHALF ? LD_FLOAT16 : LD_FLOAT32;
        const int32_t error =
            run(shapes_of(input_descs, num_inputs()), type, inputs, detections, workspace, stream);
        if (error) refuse("CUDA error " + std::to_string(error) + " when its kernels were launched");
    });
}

const nvinfer1::PluginFieldCollection* DetectionPlugin::getFieldsToSerialize() noexcept {
    guarded([&] {
        fields_ = attributes_.fields();
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    });
    return &collection_;
}

void DetectionPlugin::refuse(const std::string& what) const {
    throw PluginError(std::string(NAMESPACE) + "::" + op_ + ": " + what);
}

void DetectionPlugin::check_sizes(const Shapes& shapes, int32_t count) const {
    if (count != num_inputs()) {
        refuse("needs " + std::to_string(num_inputs()) + " inputs, got " + std::to_string(count));
    }
    check(shapes);
    if (!workspace(shapes)) {
        refuse("inputs like " + text_of(shapes[0]) + " are beyond the limits of its kernels: at most " +
               std::to_string(LD_MAX_BATCH) + " images, and " + std::to_string(LD_MAX_CANDIDATES) +
               " candidates of each");
    }
}

}  // namespace ld
