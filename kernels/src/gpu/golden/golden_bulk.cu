// The wrappers of ptx_sm90.cuh, as golden.cu has those of ptx.cuh: mbarriers and bulk copies. One warp of 8 words a lane.
#include "prelude.cuh"

constexpr int WORDS = WARP * 8;
constexpr int HALF = WORDS / 2;

/// out = in backwards: fetched as two halves in two phases of one mbarrier, turned around by all lanes, who tell each other
/// by another mbarrier that they have written, and stored in one piece.
extern "C" __global__ void bulk(const u32* in, u32* out) {
    SMEM_STATIC(u64, barriers, [2]);
    SMEM_DYNAMIC(u32, tile);
    u32* turned = tile + WORDS;
    u64 *full = &barriers[0], *ready = &barriers[1];
    bool first = threadIdx.x == 0;
    if (first) {
        ptx::mbarrier_init(full, 1);
        ptx::mbarrier_init(ready, WARP);
        ptx::fence_mbarrier_init();
    }
    __syncwarp();
    for (int phase = 0; phase < 2; phase++) {
        if (first) {
            ptx::mbarrier_arrive_expect(full, HALF * 4);
            ptx::bulk_load(tile + phase * HALF, in + phase * HALF, HALF * 4, full);
        }
        ptx::mbarrier_wait(full, phase);
    }
    for (int i = threadIdx.x; i < WORDS; i += WARP) turned[WORDS - 1 - i] = tile[i];
    ptx::fence_proxy_async();
    ptx::mbarrier_arrive(ready);
    ptx::mbarrier_wait(ready, 0);
    if (!first) return;
    ptx::bulk_store(out, turned, WORDS * 4);
    ptx::bulk_store_commit();
    ptx::bulk_store_wait_read<0>();
    turned[0] = 0;  // has been read
    ptx::mbarrier_invalidate(full);
    ptx::mbarrier_invalidate(ready);
    ptx::bulk_store_wait<0>();
    if (out[0] != in[WORDS - 1]) out[1] = ~out[1];  // has been written
}
EXPORT_KERNEL(bulk)
