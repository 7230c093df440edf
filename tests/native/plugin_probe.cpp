// TensorRT's side of a plugin, for the tests: calls what the builder and the runtime call, through the creators that the
// library exports. It is compiled together with the plugin and the emulated kernels, against any version of the headers.
#include <NvInferRuntime.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

using namespace nvinfer1;

extern "C" IPluginCreatorInterface* const* getCreators(int32_t& count);
extern "C" void setLoggerFinder(ILoggerFinder* finder);

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace {

// A size that is not known (-1), or a constant.
class Size : public IDimensionExpr, public apiv::VDimensionExpr {
public:
    explicit Size(int64_t value) : value_(value) { mImpl = this; }
    bool isConstant() const override { return value_ >= 0; }
    int64_t getConstantValue() const override { return value_; }
    bool isSizeTensor() const override { return false; }

private:
    int64_t value_;
};

class Sizes : public IExprBuilder, public apiv::VExprBuilder {
public:
    Sizes() { mImpl = this; }
    const IDimensionExpr* constant(int64_t value) override {
        made_.push_back(std::make_unique<Size>(value));
        return made_.back().get();
    }
    const IDimensionExpr* operation(DimensionOperation, const IDimensionExpr&, const IDimensionExpr&) override {
        return nullptr;
    }
    const IDimensionExpr* declareSizeTensor(int32_t, const IDimensionExpr&, const IDimensionExpr&) override {
        return nullptr;
    }

private:
    std::vector<std::unique_ptr<Size>> made_;
};

class Log : public ILogger, public ILoggerFinder {
public:
    void log(Severity severity, const char* message) noexcept override {
        if (severity == Severity::kERROR) text += std::string(message) + "\n";
    }
    ILogger* findLogger() override { return this; }
    std::string text;
};

Log& logger() {
    static Log log;
    return log;
}

template <class T>
T* capability(IPluginV3* plugin, PluginCapabilityType type) {
    return static_cast<T*>(plugin->getCapabilityInterface(type));
}

IPluginV3OneBuild* build_of(IPluginV3* plugin) {
    return capability<IPluginV3OneBuild>(plugin, PluginCapabilityType::kBUILD);
}

IPluginV3OneRuntime* runtime_of(IPluginV3* plugin) {
    return capability<IPluginV3OneRuntime>(plugin, PluginCapabilityType::kRUNTIME);
}

std::vector<DynamicPluginTensorDesc> dynamic(const PluginTensorDesc* tensors, int32_t count) {
    std::vector<DynamicPluginTensorDesc> all(static_cast<size_t>(count));
    for (size_t k = 0; k < all.size(); ++k) {
        all[k].desc = tensors[k];
        all[k].min = all[k].max = all[k].opt = tensors[k].dims;
        for (int32_t d = 0; d < tensors[k].dims.nbDims; ++d) all[k].desc.dims.d[d] = -1;
    }
    return all;
}

}  // namespace

EXPORT int32_t probe_version() { return NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR; }

// What was logged since the last call.
EXPORT const char* probe_log() {
    static std::string text;
    text.swap(logger().text);
    logger().text.clear();
    return text.c_str();
}

// The creator of an op: "name version namespace", or null.
EXPORT IPluginCreatorV3One* probe_creator(const char* op) {
    setLoggerFinder(&logger());
    int32_t count = 0;
    IPluginCreatorInterface* const* creators = getCreators(count);
    for (int32_t k = 0; k < count; ++k) {
        if (std::string(creators[k]->getInterfaceInfo().kind) != "PLUGIN CREATOR_V3ONE") continue;
        auto* creator = static_cast<IPluginCreatorV3One*>(creators[k]);
        if (!std::strcmp(creator->getPluginName(), op)) return creator;
    }
    return nullptr;
}

EXPORT const char* probe_names(IPluginCreatorV3One* creator, IPluginV3* plugin) {
    static std::string text;
    auto* core = plugin ? capability<IPluginV3OneCore>(plugin, PluginCapabilityType::kCORE) : nullptr;
    text = core ? core->getPluginName() : creator->getPluginName();
    text += std::string(" ") + (core ? core->getPluginVersion() : creator->getPluginVersion());
    text += std::string(" ") + (core ? core->getPluginNamespace() : creator->getPluginNamespace());
    return text.c_str();
}

EXPORT const PluginFieldCollection* probe_fields(IPluginCreatorV3One* creator) { return creator->getFieldNames(); }

EXPORT IPluginV3* probe_create(IPluginCreatorV3One* creator, const PluginFieldCollection* fields, int32_t at_runtime) {
    return creator->createPlugin("tail", fields, at_runtime ? TensorRTPhase::kRUNTIME : TensorRTPhase::kBUILD);
}

EXPORT const PluginFieldCollection* probe_serialized(IPluginV3* plugin) {
    return runtime_of(plugin)->getFieldsToSerialize();
}

EXPORT IPluginV3* probe_clone(IPluginV3* plugin) { return plugin->clone(); }
EXPORT IPluginV3* probe_attach(IPluginV3* plugin) { return runtime_of(plugin)->attachToContext(nullptr); }
EXPORT void probe_delete(IPluginV3* plugin) { delete plugin; }
EXPORT const char* probe_timing_cache_id(IPluginV3* plugin) { return build_of(plugin)->getTimingCacheID(); }
EXPORT int32_t probe_num_outputs(IPluginV3* plugin) { return build_of(plugin)->getNbOutputs(); }

EXPORT int32_t probe_output_types(IPluginV3* plugin, const DataType* inputs, int32_t count, DataType* outputs) {
    return build_of(plugin)->getOutputDataTypes(outputs, 4, inputs, count);
}

// Sizes of -1 are unknown.
EXPORT int32_t probe_output_shapes(IPluginV3* plugin, const Dims* inputs, int32_t count, Dims* outputs) {
    Sizes sizes;
    std::vector<DimsExprs> in(static_cast<size_t>(count));
    DimsExprs out[4] = {};
    for (size_t k = 0; k < in.size(); ++k) {
        in[k].nbDims = inputs[k].nbDims;
        for (int32_t d = 0; d < in[k].nbDims; ++d) in[k].d[d] = sizes.constant(inputs[k].d[d]);
    }
    const int32_t error = build_of(plugin)->getOutputShapes(in.data(), count, nullptr, 0, out, 4, sizes);
    for (int32_t k = 0; k < 4; ++k) {
        outputs[k].nbDims = out[k].nbDims;
        for (int32_t d = 0; d < out[k].nbDims; ++d) outputs[k].d[d] = out[k].d[d]->getConstantValue();
    }
    return error;
}

EXPORT int32_t probe_supports(IPluginV3* plugin, int32_t position, const PluginTensorDesc* tensors, int32_t inputs,
                              int32_t outputs) {
    return build_of(plugin)->supportsFormatCombination(position, dynamic(tensors, inputs + outputs).data(), inputs,
                                                       outputs);
}

// Of the largest inputs.
EXPORT int32_t probe_configure(IPluginV3* plugin, const PluginTensorDesc* inputs, int32_t count) {
    return build_of(plugin)->configurePlugin(dynamic(inputs, count).data(), count, nullptr, 4);
}

EXPORT size_t probe_workspace(IPluginV3* plugin, const PluginTensorDesc* inputs, int32_t count) {
    return build_of(plugin)->getWorkspaceSize(dynamic(inputs, count).data(), count, nullptr, 4);
}

EXPORT int32_t probe_on_shape_change(IPluginV3* plugin, const PluginTensorDesc* inputs, int32_t count) {
    return runtime_of(plugin)->onShapeChange(inputs, count, nullptr, 4);
}

EXPORT int32_t probe_enqueue(IPluginV3* plugin, const PluginTensorDesc* descs, const void* const* inputs,
                             void* const* outputs, void* workspace) {
    return runtime_of(plugin)->enqueue(descs, nullptr, inputs, outputs, workspace, nullptr);
}
