// What TensorRT looks for in a plugin library.
#include "logger.h"
#include "plugins.h"

namespace {

template <class Plugin>
class Creator : public nvinfer1::IPluginCreatorV3One {
public:
    Creator() {
        for (const ld::AttributeSpec& spec : Plugin::specs()) {
            fields_.emplace_back(spec.name, nullptr, spec.type, spec.is_list ? 0 : 1);
        }
        collection_ = {static_cast<int32_t>(fields_.size()), fields_.data()};
    }

    const char* getPluginName() const noexcept override { return Plugin::OP; }
    const char* getPluginVersion() const noexcept override { return ld::VERSION; }
    const char* getPluginNamespace() const noexcept override { return ld::NAMESPACE; }
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }

    nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase) noexcept override {
        try {
            return new Plugin(ld::Attributes(Plugin::OP, Plugin::specs(), fields));
        } catch (const std::exception& error) {
            ld::log_error(error.what());
            return nullptr;
        }
    }

private:
    std::vector<nvinfer1::PluginField> fields_;
    nvinfer1::PluginFieldCollection collection_ = {};
};

}  // namespace

extern "C" LD_API void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { ld::set_logger_finder(finder); }

extern "C" LD_API nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
    static Creator<ld::NmsPlugin<ld::Upright>> nms;
    static Creator<ld::DetectPlugin<ld::Upright>> detect;
    static Creator<ld::NmsPlugin<ld::Rotated>> rotated_nms;
    static Creator<ld::DetectPlugin<ld::Rotated>> rotated_detect;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&nms, &detect, &rotated_nms, &rotated_detect};
    count = static_cast<int32_t>(sizeof(creators) / sizeof(creators[0]));
    return creators;
}
