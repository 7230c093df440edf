// What the plugin has to say goes to TensorRT's logger.
#pragma once

#include <NvInferRuntime.h>

#include <string>

namespace ld {

// Where the logger is found: TensorRT tells the library when it loads it.
void set_logger_finder(nvinfer1::ILoggerFinder* finder);

// To TensorRT's logger, or to stderr where there is none.
void log_error(const std::string& message) noexcept;

}  // namespace ld
