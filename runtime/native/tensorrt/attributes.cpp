#include "attributes.h"

#include <cmath>
#include <cstring>
#include <sstream>

namespace ld {
namespace {

using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;

std::string type_name(PluginFieldType type) {
    switch (type) {
    case PluginFieldType::kFLOAT16: return "float16";
    case PluginFieldType::kFLOAT32: return "float32";
    case PluginFieldType::kFLOAT64: return "float64";
    case PluginFieldType::kINT8: return "int8";
    case PluginFieldType::kINT16: return "int16";
    case PluginFieldType::kINT32: return "int32";
    case PluginFieldType::kINT64: return "int64";
    case PluginFieldType::kCHAR: return "char";
    default: return "field type " + std::to_string(static_cast<int32_t>(type));
    }
}

[[noreturn]] void refuse(const char* op, const std::string& what) {
    throw PluginError(std::string("ld_deploy::") + op + ": " + what +
                      ": export the model again with `ld-deploy export` of the version that this plugin is of");
}

std::string wanted(const AttributeSpec& spec) {
    return (spec.is_list ? "one or more values of " : "one value of ") + type_name(spec.type);
}

template <class T>
std::vector<T> copied(const PluginField& field) {
    std::vector<T> values(static_cast<size_t>(field.length));
    std::memcpy(values.data(), field.data, values.size() * sizeof(T));  // of any alignment
    return values;
}

}  // namespace

const std::vector<AttributeSpec>& nms_attributes() {
    static const std::vector<AttributeSpec> specs = {
        {"iou_threshold", PluginFieldType::kFLOAT32, false},  {"distance_exponent", PluginFieldType::kFLOAT32, false},
        {"vote_threshold", PluginFieldType::kFLOAT32, false}, {"vote_sigma", PluginFieldType::kFLOAT32, false},
        {"score_threshold", PluginFieldType::kFLOAT32, false}, {"max_detections", PluginFieldType::kINT32, false},
    };
    return specs;
}

const std::vector<AttributeSpec>& rotated_nms_attributes() {
    static const std::vector<AttributeSpec> specs = {
        {"iou_threshold", PluginFieldType::kFLOAT32, false}, {"vote_threshold", PluginFieldType::kFLOAT32, false},
        {"vote_sigma", PluginFieldType::kFLOAT32, false},    {"score_threshold", PluginFieldType::kFLOAT32, false},
        {"max_detections", PluginFieldType::kINT32, false},
    };
    return specs;
}

Attributes::Attributes(const char* op, const std::vector<AttributeSpec>& specs,
                       const nvinfer1::PluginFieldCollection* fields) {
    const int32_t count = fields ? fields->nbFields : 0;
    for (const AttributeSpec& spec : specs) {
        const PluginField* found = nullptr;
        for (int32_t k = 0; k < count; ++k) {
            const PluginField& field = fields->fields[k];
            if (!field.name || std::strcmp(field.name, spec.name) != 0) continue;
            if (found) refuse(op, std::string("attribute ") + spec.name + " is given twice");
            found = &field;
        }
        if (!found) refuse(op, std::string("attribute ") + spec.name + ", " + wanted(spec) + ", is missing");
        const bool fits = spec.is_list ? found->length >= 1 : found->length == 1;
        if (found->type != spec.type || !fits || !found->data) {
            refuse(op, std::string("attribute ") + spec.name + " must be " + wanted(spec) + ", got " +
                           std::to_string(found->length) + " of " + type_name(found->type));
        }
        const bool is_float = spec.type == PluginFieldType::kFLOAT32;
        attributes_.push_back({spec, is_float ? copied<float>(*found) : std::vector<float>(),
                               is_float ? std::vector<int32_t>() : copied<int32_t>(*found)});
    }
    for (int32_t k = 0; k < count; ++k) {
        bool known = false;
        const char* name = fields->fields[k].name ? fields->fields[k].name : "";
        for (const AttributeSpec& spec : specs) known = known || std::strcmp(name, spec.name) == 0;
        if (!known) refuse(op, std::string("there is no attribute ") + name);
    }
}

std::vector<PluginField> Attributes::fields() const {
    std::vector<PluginField> views;
    for (const Attribute& one : attributes_) {
        const bool is_float = one.spec.type == PluginFieldType::kFLOAT32;
        const void* data = is_float ? static_cast<const void*>(one.numbers.data()) : one.integers.data();
        const size_t length = is_float ? one.numbers.size() : one.integers.size();
        views.emplace_back(one.spec.name, data, one.spec.type, static_cast<int32_t>(length));
    }
    return views;
}

std::string Attributes::text() const {
    std::ostringstream text;
    text << std::hexfloat;
    for (const Attribute& one : attributes_) {
        text << one.spec.name;
        for (const float value : one.numbers) text << ' ' << value;
        for (const int32_t value : one.integers) text << ' ' << value;
        text << ';';
    }
    return text.str();
}

const Attributes::Attribute& Attributes::of(const std::string& name) const {
    for (const Attribute& one : attributes_) {
        if (name == one.spec.name) return one;
    }
    throw std::logic_error("no attribute " + name);
}

namespace {

template <class Settings>
Settings common_settings(const char* op, const Attributes& attributes, const std::vector<AttributeSpec>& specs) {
    for (const AttributeSpec& spec : specs) {
        if (spec.type == PluginFieldType::kFLOAT32 && !std::isfinite(attributes.number(spec.name))) {
            refuse(op, std::string("attribute ") + spec.name + " is not finite");
        }
    }
    if (!(attributes.number("vote_sigma") > 0.0f)) refuse(op, "attribute vote_sigma must be above 0");
    if (attributes.integer("max_detections") < 1) refuse(op, "attribute max_detections must be 1 or more");
    Settings settings = {};
    settings.iou_threshold = attributes.number("iou_threshold");
    settings.vote_threshold = attributes.number("vote_threshold");
    settings.vote_sigma = attributes.number("vote_sigma");
    settings.score_threshold = attributes.number("score_threshold");
    settings.max_detections = attributes.integer("max_detections");
    return settings;
}

}  // namespace

LdNmsSettings nms_settings(const char* op, const Attributes& attributes) {
    LdNmsSettings settings = common_settings<LdNmsSettings>(op, attributes, nms_attributes());
    settings.distance_exponent = attributes.number("distance_exponent");
    return settings;
}

LdRotatedNmsSettings rotated_nms_settings(const char* op, const Attributes& attributes) {
    return common_settings<LdRotatedNmsSettings>(op, attributes, rotated_nms_attributes());
}

}  // namespace ld
