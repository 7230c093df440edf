// Launches and workspace, on the host.
#pragma once

#include <cuda_runtime.h>
#include <stdint.h>

namespace ld {

inline int32_t blocks_for(int64_t count, int32_t per_block) {
    return static_cast<int32_t>((count + per_block - 1) / per_block);
}

// Puts work on a stream until something fails; the first error stays. A grid without blocks is no work.
class Launcher {
public:
    explicit Launcher(cudaStream_t stream) : stream_(stream) {}

    template <class... Parameters, class... Arguments>
    void operator()(void (*kernel)(Parameters...), dim3 grid, int32_t threads, const Arguments&... arguments) {
        if (error_ != cudaSuccess || grid.x == 0 || grid.y == 0 || grid.z == 0) return;
        cudaLaunchConfig_t config = {};
        config.gridDim = grid;
        config.blockDim = dim3(static_cast<uint32_t>(threads));
        config.stream = stream_;
        error_ = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
    }

    template <class T>
    void set_zero(T* values, int64_t count) {
        if (error_ != cudaSuccess || count == 0) return;
        error_ = cudaMemsetAsync(values, 0, static_cast<size_t>(count) * sizeof(T), stream_);
    }

    void refuse() {
        if (error_ == cudaSuccess) error_ = cudaErrorInvalidValue;
    }

    int32_t error() const { return static_cast<int32_t>(error_); }

private:
    cudaStream_t stream_;
    cudaError_t error_ = cudaSuccess;
};

// Hands out aligned parts of a workspace. On no memory it counts what is needed: one function lays out and measures.
class Workspace {
public:
    explicit Workspace(void* memory) : begin_(aligned(reinterpret_cast<uintptr_t>(memory))) {}

    template <class T>
    T* take(int64_t count) {
        T* part = reinterpret_cast<T*>(begin_ + size_);
        size_ = aligned(size_ + static_cast<size_t>(count) * sizeof(T));
        return part;
    }

    // With room to align the start.
    size_t size() const { return size_ + ALIGNMENT - 1; }

private:
    static constexpr uintptr_t ALIGNMENT = 256;

    static uintptr_t aligned(uintptr_t value) { return (value + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT; }

    uintptr_t begin_;
    size_t size_ = 0;
};

}  // namespace ld
