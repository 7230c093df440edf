// Attributes of an op as TensorRT hands them over: from the node of an ONNX file, or from a serialised engine.
#pragma once

#include <NvInferRuntime.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "ld_settings.h"

namespace ld {

// What the user can mend, said in full. It never leaves the plugin: TensorRT's interface is noexcept.
struct PluginError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

struct AttributeSpec {
    const char* name;
    nvinfer1::PluginFieldType type;  // kFLOAT32 or kINT32
    bool is_list;                    // one or more values
};

// Those of the ops, from the NMS.
const std::vector<AttributeSpec>& nms_attributes();
const std::vector<AttributeSpec>& rotated_nms_attributes();

class Attributes {
public:
    // Throws a PluginError where a field is missing, unknown, given twice, or of another type or length.
    Attributes(const char* op, const std::vector<AttributeSpec>& specs,
               const nvinfer1::PluginFieldCollection* fields);

    float number(const char* name) const { return of(name).numbers.at(0); }
    int32_t integer(const char* name) const { return of(name).integers.at(0); }
    const std::vector<int32_t>& integers(const char* name) const { return of(name).integers; }

    // Views of the values, for a serialised engine.
    std::vector<nvinfer1::PluginField> fields() const;

    // All values, exact: two plugins of one text do the same.
    std::string text() const;

private:
    struct Attribute {
        AttributeSpec spec;
        std::vector<float> numbers;
        std::vector<int32_t> integers;
    };

    const Attribute& of(const std::string& name) const;

    std::vector<Attribute> attributes_;
};

// Throw a PluginError where a value makes no sense.
LdNmsSettings nms_settings(const char* op, const Attributes& attributes);
LdRotatedNmsSettings rotated_nms_settings(const char* op, const Attributes& attributes);

}  // namespace ld
