#include "cuda_runtime.h"

// Another order of blocks and threads.
extern "C" __attribute__((visibility("default"))) void ld_emulation_seed(uint32_t seed) {
    emulation::machine.random.seed(seed);
}
