// What the plugins of all ops share: outputs, formats, serialisation, and that no error is silent.
#pragma once

#include <NvInferRuntime.h>

#include <string>
#include <vector>

#include "attributes.h"
#include "ld_kernels.h"

namespace ld {

constexpr const char* NAMESPACE = "ld_deploy";
constexpr const char* VERSION = "1";

// Outputs, fixed in size: num_detections int32 (N, 1), boxes float32 (N, max_detections, 4), or 5 where they are
// rotated, scores float32 (N, max_detections), labels int64 (N, max_detections). Inputs are float32 or half, all of one
// type, but for labels.
class DetectionPlugin : public nvinfer1::IPluginV3,
                        public nvinfer1::IPluginV3OneCore,
                        public nvinfer1::IPluginV3OneBuild,
                        public nvinfer1::IPluginV3OneRuntime {
public:
    using Shapes = std::vector<nvinfer1::Dims>;

    // Numbers: of a box.
    DetectionPlugin(const char* op, const Attributes& attributes, int32_t numbers);

    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override;

    const char* getPluginName() const noexcept override { return op_; }
    const char* getPluginVersion() const noexcept override { return VERSION; }
    const char* getPluginNamespace() const noexcept override { return NAMESPACE; }

    int32_t getNbOutputs() const noexcept override { return 4; }
    int32_t getOutputDataTypes(nvinfer1::DataType* outputs, int32_t num_outputs, const nvinfer1::DataType* inputs,
                               int32_t num_inputs) const noexcept override;
    int32_t getOutputShapes(const nvinfer1::DimsExprs* inputs, int32_t num_inputs,
                            const nvinfer1::DimsExprs* shape_inputs, int32_t num_shape_inputs,
                            nvinfer1::DimsExprs* outputs, int32_t num_outputs,
                            nvinfer1::IExprBuilder& builder) noexcept override;
    bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc* tensors,
                                   int32_t num_inputs, int32_t num_outputs) noexcept override;
    int32_t configurePlugin(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t num_inputs,
                            const nvinfer1::DynamicPluginTensorDesc* outputs, int32_t num_outputs) noexcept override;
    size_t getWorkspaceSize(const nvinfer1::DynamicPluginTensorDesc* inputs, int32_t num_inputs,
                            const nvinfer1::DynamicPluginTensorDesc* outputs,
                            int32_t num_outputs) const noexcept override;
    const char* getTimingCacheID() noexcept override { return timing_cache_id_.c_str(); }

    int32_t onShapeChange(const nvinfer1::PluginTensorDesc* inputs, int32_t num_inputs,
                          const nvinfer1::PluginTensorDesc* outputs, int32_t num_outputs) noexcept override;
    int32_t enqueue(const nvinfer1::PluginTensorDesc* input_descs, const nvinfer1::PluginTensorDesc* output_descs,
                    const void* const* inputs, void* const* outputs, void* workspace,
                    cudaStream_t stream) noexcept override;
    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }
    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override;

protected:
    virtual int32_t num_inputs() const = 0;

    // The input, if there is one, that is int64.
    virtual int32_t labels_input() const { return -1; }

    // Throws a PluginError where inputs of these shapes do not go together.
    virtual void check(const Shapes& shapes) const = 0;

    // 0 beyond the kernels' limits.
    virtual size_t workspace(const Shapes& shapes) const = 0;

    virtual int32_t run(const Shapes& shapes, LdType type, const void* const* inputs, const LdDetections& detections,
                        void* workspace, cudaStream_t stream) const = 0;

    const Attributes& attributes() const { return attributes_; }

    [[noreturn]] void refuse(const std::string& what) const;

private:
    void check_sizes(const Shapes& shapes, int32_t num_inputs) const;

    const char* op_;
    Attributes attributes_;
    int32_t numbers_, max_detections_;
    std::string timing_cache_id_;
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_ = {};
};

std::string text_of(const nvinfer1::Dims& dims);

}  // namespace ld
