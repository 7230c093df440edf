// The plugins of ld_deploy's ops, and which functions of the kernels each calls.
#pragma once

#include "detection_plugin.h"

namespace ld {

// What is other between upright and rotated boxes. NUMBERS: of a box, and the distributions of a location.
struct Upright {
    using Settings = LdNmsSettings;
    static constexpr int32_t NUMBERS = 4;
    static constexpr const char* NMS = "ClusterDIoUNMS";
    static constexpr const char* DETECT = "GFLDetect";
    static constexpr auto attributes = nms_attributes;
    static constexpr auto settings = nms_settings;
    static constexpr auto nms_workspace = ld_cluster_diou_nms_workspace;
    static constexpr auto nms_enqueue = ld_cluster_diou_nms_enqueue;
    static constexpr auto detect_workspace = ld_gfl_detect_workspace;
    static constexpr auto detect_enqueue = ld_gfl_detect_enqueue;
};

struct Rotated {
    using Settings = LdRotatedNmsSettings;
    static constexpr int32_t NUMBERS = 5;
    static constexpr const char* NMS = "RotatedClusterNMS";
    static constexpr const char* DETECT = "RotatedGFLDetect";
    static constexpr auto attributes = rotated_nms_attributes;
    static constexpr auto settings = rotated_nms_settings;
    static constexpr auto nms_workspace = ld_rotated_cluster_nms_workspace;
    static constexpr auto nms_enqueue = ld_rotated_cluster_nms_enqueue;
    static constexpr auto detect_workspace = ld_rotated_gfl_detect_workspace;
    static constexpr auto detect_enqueue = ld_rotated_gfl_detect_enqueue;
};

// Inputs: boxes (N, K, NUMBERS), scores (N, K), labels int64 (N, K).
template <class Boxes>
class NmsPlugin : public DetectionPlugin {
public:
    static constexpr const char* OP = Boxes::NMS;
    static const std::vector<AttributeSpec>& specs() { return Boxes::attributes(); }

    // Throws a PluginError where a setting makes no sense.
    explicit NmsPlugin(const Attributes& attributes)
        : DetectionPlugin(OP, attributes, Boxes::NUMBERS), settings_(Boxes::settings(OP, attributes)) {}

    nvinfer1::IPluginV3* clone() noexcept override;

protected:
    int32_t num_inputs() const override { return 3; }
    int32_t labels_input() const override { return 2; }
    void check(const Shapes& shapes) const override;
    size_t workspace(const Shapes& shapes) const override;
    int32_t run(const Shapes& shapes, LdType type, const void* const* inputs, const LdDetections& detections,
                void* workspace, cudaStream_t stream) const override;

private:
    typename Boxes::Settings settings_;
};

// Inputs, by level: class logits (N, C, h, w); then by level: edge logits (N, NUMBERS * bins, h, w).
template <class Boxes>
class DetectPlugin : public DetectionPlugin {
public:
    static constexpr const char* OP = Boxes::DETECT;
    static const std::vector<AttributeSpec>& specs();

    // Throws a PluginError where a setting, strides or limits make no sense.
    explicit DetectPlugin(const Attributes& attributes);

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

    typename Boxes::Settings settings_;
    std::vector<int32_t> strides_;
};

}  // namespace ld
