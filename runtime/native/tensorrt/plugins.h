// The plugins of ld_deploy::ClusterDIoUNMS and ld_deploy::GFLDetect, and their creators.
#pragma once

#include "detection_plugin.h"

namespace ld {

// Inputs: boxes (N, K, 4), scores (N, K), labels int64 (N, K).
class ClusterDIoUNMS : public DetectionPlugin {
public:
    static constexpr const char* OP = "ClusterDIoUNMS";
    static const std::vector<AttributeSpec>& specs() { return nms_attributes(); }

    explicit ClusterDIoUNMS(const Attributes& attributes) : DetectionPlugin(OP, attributes) {}

    nvinfer1::IPluginV3* clone() noexcept override;

protected:
    int32_t num_inputs() const override { return 3; }
    int32_t labels_input() const override { return 2; }
    void check(const Shapes& shapes) const override;
    size_t workspace(const Shapes& shapes) const override;
    int32_t run(const Shapes& shapes, LdType type, const void* const* inputs, const LdDetections& detections,
                void* workspace, cudaStream_t stream) const override;
};

// Inputs, by level: class logits (N, C, h, w); then by level: edge logits (N, 4 * bins, h, w).
class GFLDetect : public DetectionPlugin {
public:
    static constexpr const char* OP = "GFLDetect";
    static const std::vector<AttributeSpec>& specs();

    // Throws a PluginError where strides or limits make no sense.
    explicit GFLDetect(const Attributes& attributes);

    nvinfer1::IPluginV3* clone() noexcept override;

protected:
    int32_t num_inputs() const override { return 2 * levels(); }
    void check(const Shapes& shapes) const override;
    size_t workspace(const Shapes& shapes) const override;
    int32_t run(const Shapes& shapes, LdType type, const void* const* inputs, const LdDetections& detections,
                void* workspace, cudaStream_t stream) const override;

private:
    struct Head {
        LdLevel levels[LD_MAX_LEVELS];
        LdCandidateRule rule;
    };

    int32_t levels() const { return static_cast<int32_t>(strides_.size()); }
    Head head(const Shapes& shapes) const;

    std::vector<int32_t> strides_;
};

}  // namespace ld
