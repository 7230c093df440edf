// For the tests only.
#include "cuda_runtime.h"

#include "cluster_nms.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Another order of blocks and threads.
EXPORT void ld_emulation_seed(uint32_t seed) { emulation::machine.random.seed(seed); }

// Row and column of each of the first `count` tiles.
EXPORT void ld_emulation_tile_places(int32_t count, int32_t* rows, int32_t* columns) {
    for (int32_t number = 0; number < count; ++number) {
        const ld::TilePlace place = ld::tile_place(number);
        rows[number] = place.row;
        columns[number] = place.column;
    }
}
