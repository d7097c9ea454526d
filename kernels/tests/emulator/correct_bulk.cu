// Kernels with mbarriers and bulk copies and without a mistake, as correct.cu.
#include "prelude.cuh"

/// out = 2x in 16 steps a block: one thread fetches three stages ahead, three warps consume and tell it when they have read.
extern "C" __global__ void bulk_ring(const float* x, float* out, float* fresh) {
    constexpr int STAGES = 3, STEPS = 16;
    SMEM_DYNAMIC(float, tile);
    SMEM_STATIC(u64, full, [STAGES]);
    SMEM_STATIC(u64, empty, [STAGES]);
    int t = threadIdx.x, start = blockIdx.x * 2048;
    if (t < STAGES) {
        ptx::mbarrier_init(&full[t], 1);
        ptx::mbarrier_init(&empty[t], 3);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    for (int step = 0; step < STEPS; step++) {
        int stage = step % STAGES, parity = step / STAGES & 1;
        if (t == 0) {
            ptx::mbarrier_wait(&empty[stage], parity ^ 1);
            ptx::mbarrier_arrive_expect(&full[stage], 512);
            for (int half = 0; half < 128; half += 64)
                ptx::bulk_load(tile + stage * 128 + half, x + start + step * 128 + half, 256, &full[stage]);
        } else if (t >= WARP) {
            ptx::mbarrier_wait(&full[stage], parity);
            for (int i = t - WARP; i < 128; i += 96) out[start + step * 128 + i] = 2.0f * tile[stage * 128 + i];
            __syncwarp();
            if (t % WARP == 0) ptx::mbarrier_arrive(&empty[stage]);
        }
    }
}
EXPORT_KERNEL(bulk_ring)

/// out = 2x, written in bulk from two stages, of which one is filled while the other is stored.
extern "C" __global__ void bulk_epilogue(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    int t = threadIdx.x, start = blockIdx.x * 2048;
    for (int step = 0; step < 16; step++) {
        float* stage = tile + step % 2 * 128;
        if (t == 0) ptx::bulk_store_wait_read<1>();
        __syncthreads();
        stage[t] = 2.0f * x[start + step * 128 + t];
        ptx::fence_proxy_async();
        __syncthreads();
        if (t == 0) {
            ptx::bulk_store(out + start + step * 128, stage, 512);
            ptx::bulk_store_commit();
        }
    }
    if (t == 0) ptx::bulk_store_wait_read<0>();
}
EXPORT_KERNEL(bulk_epilogue)

/// out = 2x, fetched, doubled in place and stored from one buffer.
extern "C" __global__ void bulk_in_place(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    SMEM_STATIC(u64, full, [1]);
    int t = threadIdx.x, start = blockIdx.x * 2048;
    if (t == 0) {
        ptx::mbarrier_init(full, 1);
        ptx::fence_proxy_async();
    }
    __syncthreads();
    for (int step = 0; step < 4; step++) {
        if (t == 0) {
            ptx::bulk_load(tile, x + start + step * 512, 2048, full);
            ptx::mbarrier_arrive_expect(full, 2048);
        }
        ptx::mbarrier_wait(full, step & 1);
        for (int i = t; i < 512; i += 128) tile[i] *= 2.0f;
        ptx::fence_proxy_async();
        __syncthreads();
        if (t == 0) {
            ptx::bulk_store(out + start + step * 512, tile, 2048);
            ptx::bulk_store_commit();
            ptx::bulk_store_wait_read<0>();
        }
    }
}
EXPORT_KERNEL(bulk_in_place)

/// out = 2x, handed from one half of the threads to the other through a stage that two mbarriers guard, all of them arriving.
extern "C" __global__ void bulk_free_handover(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, buffer, [64]);
    SMEM_STATIC(u64, barriers, [2]);
    int t = threadIdx.x % 64, start = blockIdx.x * 2048;
    u64 *full = &barriers[0], *empty = &barriers[1];
    if (threadIdx.x < 2) ptx::mbarrier_init(&barriers[threadIdx.x], 64);
    __syncthreads();
    for (int step = 0; step < 32; step++) {
        if (threadIdx.x < 64) {
            ptx::mbarrier_wait(empty, (step & 1) ^ 1);
            buffer[t] = x[start + step * 64 + t];
            ptx::mbarrier_arrive(full);
        } else {
            ptx::mbarrier_wait(full, step & 1);
            out[start + step * 64 + t] = 2.0f * buffer[t];
            ptx::mbarrier_arrive(empty);
        }
    }
}
EXPORT_KERNEL(bulk_free_handover)

/// out = 2x: one thread waits for the copy and tells the others by a barrier; then the mbarrier's memory serves something
/// else, and is an mbarrier again.
extern "C" __global__ void bulk_barrier_again(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    SMEM_STATIC(u64, full, [1]);
    int t = threadIdx.x, start = blockIdx.x * 2048;
    for (int step = 0; step < 16; step++) {
        if (t == 0) {
            ptx::mbarrier_init(full, 1);
            ptx::fence_mbarrier_init();
            ptx::mbarrier_arrive_expect(full, 512);
            ptx::bulk_load(tile, x + start + step * 128, 512, full);
            ptx::mbarrier_wait(full, 0);
            ptx::mbarrier_invalidate(full);
            full[0] = 2;
        }
        __syncthreads();
        out[start + step * 128 + t] = float(full[0]) * tile[t];
        __syncthreads();
    }
}
EXPORT_KERNEL(bulk_barrier_again)

/// out = 2x: every thread brings 32 bytes in and out again on its own, twice.
extern "C" __global__ void bulk_by_everyone(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u64, full, [1]);
    SMEM_DYNAMIC(float, tile);
    float* mine = tile + threadIdx.x * 8;
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(full, 128);
        ptx::fence_mbarrier_init();
    }
    __syncthreads();
    for (int step = 0; step < 2; step++) {
        i64 at = (global_threads() * step + global_thread()) * 8;
        ptx::mbarrier_arrive_expect(full, 32);
        ptx::bulk_load(mine, x + at, 32, full);
        ptx::mbarrier_wait(full, step);
        for (int i = 0; i < 8; i++) mine[i] *= 2.0f;
        ptx::fence_proxy_async();
        ptx::bulk_store(out + at, mine, 32);
        ptx::bulk_store_commit();
        ptx::bulk_store_wait<0>();
        out[at] += 0.0f;
    }
}
EXPORT_KERNEL(bulk_by_everyone)
