// Stands in for CUDA's own header, so that g++ compiles the kernels as they are and the host runs them: block after
// block, the threads of a block as fibers. Order of blocks and threads is shuffled, barriers and warps' votes wait for
// those that they must wait for, shared memory starts as garbage, and a barrier that not all reach is an error.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <vector>

#define __global__
#define __device__
#define __launch_bounds__(threads)
#define __grid_constant__
#define __shared__ static __attribute__((section("emulated_shared")))

struct dim3 {
    uint32_t x, y, z;
    constexpr dim3(uint32_t x_ = 1, uint32_t y_ = 1, uint32_t z_ = 1) : x(x_), y(y_), z(z_) {}
};

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorInvalidConfiguration = 9 };
using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;  // TensorRT's headers name it

struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
};

extern "C" char __start_emulated_shared[], __stop_emulated_shared[];

namespace emulation {

constexpr size_t STACK = 128 * 1024;
constexpr uint32_t WARP = 32;

enum class State { ready, at_block, in_warp, done };

struct Fiber {
    ucontext_t context;
    State state;
    dim3 thread;
    uint32_t mask;               // of the warp's vote that it waits in
    uint64_t value;              // what it votes
    std::array<uint64_t, 32> seen;  // what the lanes voted
};

struct Machine {
    ucontext_t scheduler;
    std::vector<Fiber> fibers;
    std::vector<std::unique_ptr<char[]>> stacks;
    Fiber* running = nullptr;
    const std::function<void()>* kernel = nullptr;
    int votes = 0;   // of the block's barrier
    int result = 0;
    dim3 block, block_dim;
    std::mt19937 random{1};
};

inline Machine machine;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "emulated kernel: %s, block (%u, %u, %u)\n", what, machine.block.x, machine.block.y,
                 machine.block.z);
    std::abort();
}

inline void leave(State state) {
    Fiber* mine = machine.running;
    mine->state = state;
    swapcontext(&mine->context, &machine.scheduler);
}

inline void run_fiber() {
    (*machine.kernel)();
    machine.running->state = State::done;
    swapcontext(&machine.running->context, &machine.scheduler);
}

inline int at_block(int vote) {
    machine.votes += vote != 0;
    leave(State::at_block);
    return machine.result;
}

inline uint32_t lane() { return machine.running->thread.x % WARP; }

// What each lane of the mask brought.
template <class T>
std::array<uint64_t, 32> in_warp(uint32_t mask, T value) {
    static_assert(sizeof(T) <= sizeof(uint64_t));
    Fiber* mine = machine.running;
    if (!(mask >> lane() & 1)) fail("a lane votes that is not in the mask");
    mine->mask = mask;
    mine->value = 0;
    std::memcpy(&mine->value, &value, sizeof value);
    leave(State::in_warp);
    return mine->seen;
}

template <class T>
T as(uint64_t bits) {
    T value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Lets the lanes of a warp go on whose mates have all come. Returns whether some did.
inline bool release_warp(size_t first) {
    bool released = false;
    for (size_t l = 0; l < WARP; ++l) {
        const Fiber& fiber = machine.fibers[first + l];
        if (fiber.state != State::in_warp) continue;
        const uint32_t mask = fiber.mask;
        std::array<uint64_t, 32> seen = {};
        bool all = true;
        for (size_t other = 0; other < WARP; ++other) {
            if (!(mask >> other & 1)) continue;
            const Fiber& mate = machine.fibers[first + other];
            all = all && mate.state == State::in_warp && mate.mask == mask;
            seen[other] = mate.value;
        }
        if (!all) continue;
        for (size_t other = 0; other < WARP; ++other) {
            if (!(mask >> other & 1)) continue;
            machine.fibers[first + other].seen = seen;
            machine.fibers[first + other].state = State::ready;
        }
        released = true;
    }
    return released;
}

// Runs a warp for a while: to a barrier of the block, or sometimes less far. Returns whether it moved.
inline bool run_warp(size_t first) {
    bool moved = false;
    do {
        const uint32_t start = machine.random() % WARP;
        for (uint32_t k = 0; k < WARP; ++k) {
            Fiber& fiber = machine.fibers[first + (start + k) % WARP];
            if (fiber.state != State::ready) continue;
            machine.running = &fiber;
            swapcontext(&machine.scheduler, &fiber.context);
            moved = true;
        }
    } while (release_warp(first) && machine.random() % 4 != 0);
    return moved;
}

inline bool release_block() {
    for (const Fiber& fiber : machine.fibers) {
        if (fiber.state != State::at_block && fiber.state != State::done) return false;
    }
    bool released = false;
    for (Fiber& fiber : machine.fibers) {
        if (fiber.state != State::at_block) continue;
        fiber.state = State::ready;
        released = true;
    }
    machine.result = machine.votes;
    machine.votes = 0;
    return released;
}

inline void run_block() {
    const uint32_t threads = machine.block_dim.x;
    while (machine.stacks.size() < threads) machine.stacks.push_back(std::make_unique<char[]>(STACK));
    machine.fibers.resize(threads);
    std::memset(__start_emulated_shared, 0xA5, static_cast<size_t>(__stop_emulated_shared - __start_emulated_shared));
    for (uint32_t t = 0; t < threads; ++t) {
        Fiber& fiber = machine.fibers[t];
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = machine.stacks[t].get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        fiber.state = State::ready;
        fiber.thread = dim3(t, 0, 0);
        makecontext(&fiber.context, run_fiber, 0);
    }
    std::vector<size_t> warps(threads / WARP);
    do {
        bool moved = true;
        while (moved) {
            moved = false;
            for (size_t w = 0; w < warps.size(); ++w) warps[w] = w * WARP;
            std::shuffle(warps.begin(), warps.end(), machine.random);
            for (const size_t first : warps) moved = run_warp(first) || moved;
        }
    } while (release_block());
    for (const Fiber& fiber : machine.fibers) {
        if (fiber.state != State::done) fail("threads wait for others that never come");
    }
}

// Sometimes another thread comes first.
inline void maybe_yield() {
    if (machine.random() % 4 == 0) leave(State::ready);
}

}  // namespace emulation

#define threadIdx (emulation::machine.running->thread)
#define blockIdx (emulation::machine.block)

template <class... Parameters, class... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...), Arguments... arguments) {
    using namespace emulation;
    const dim3 grid = config->gridDim;
    if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7FFFFFFFu ||
        config->blockDim.x == 0 || config->blockDim.x > 1024 || config->blockDim.x % WARP != 0) {
        return cudaErrorInvalidConfiguration;
    }
    const std::function<void()> call = [&] { kernel(arguments...); };
    machine.kernel = &call;
    machine.block_dim = config->blockDim;
    std::vector<uint64_t> blocks(uint64_t{grid.x} * grid.y * grid.z);
    std::iota(blocks.begin(), blocks.end(), uint64_t{0});
    std::shuffle(blocks.begin(), blocks.end(), machine.random);
    for (const uint64_t number : blocks) {
        const uint64_t rest = number / grid.x;
        machine.block = dim3(static_cast<uint32_t>(number % grid.x), static_cast<uint32_t>(rest % grid.y),
                             static_cast<uint32_t>(rest / grid.y));
        run_block();
    }
    return cudaSuccess;
}

inline cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t) {
    std::memset(memory, value, bytes);
    return cudaSuccess;
}

template <class T>
T atomicAdd(T* address, T value) {
    emulation::maybe_yield();
    const T before = *address;
    *address = before + value;
    return before;
}

inline void __syncthreads() { emulation::at_block(0); }
inline int __syncthreads_count(int vote) { return emulation::at_block(vote); }
inline int __syncthreads_or(int vote) { return emulation::at_block(vote) != 0; }
inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu) { emulation::in_warp(mask, 0); }

inline uint32_t __ballot_sync(uint32_t mask, int vote) {
    uint32_t ballot = 0;
    const auto seen = emulation::in_warp(mask, vote != 0);
    for (uint32_t l = 0; l < 32; ++l) ballot |= static_cast<uint32_t>(seen[l] != 0) << l;
    return ballot;
}

inline int __any_sync(uint32_t mask, int vote) { return __ballot_sync(mask, vote) != 0; }

template <class T>
uint32_t __match_any_sync(uint32_t mask, T value) {
    uint32_t same = 0;
    const auto seen = emulation::in_warp(mask, value);
    for (uint32_t l = 0; l < 32; ++l) {
        same |= static_cast<uint32_t>((mask >> l & 1) && emulation::as<T>(seen[l]) == value) << l;
    }
    return same;
}

template <class T>
T __shfl_sync(uint32_t mask, T value, int lane) {
    const auto seen = emulation::in_warp(mask, value);
    if (!(mask >> (lane & 31) & 1)) emulation::fail("a value is asked of a lane that is not in the mask");
    return emulation::as<T>(seen[static_cast<size_t>(lane & 31)]);
}

template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta) {
    const auto seen = emulation::in_warp(mask, value);
    const uint32_t lane = emulation::lane();
    return lane < delta ? value : emulation::as<T>(seen[lane - delta]);
}

template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int lanes) {
    const auto seen = emulation::in_warp(mask, value);
    return emulation::as<T>(seen[emulation::lane() ^ static_cast<uint32_t>(lanes)]);
}
