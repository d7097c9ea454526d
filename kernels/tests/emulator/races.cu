// One mistake a kernel, told at the line with BUG: accesses that nothing orders. Arguments as in correct.cu.
#include "prelude.cuh"

extern "C" __global__ void no_barrier(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    out[global_thread()] = tile[127 - threadIdx.x];  // BUG: race on shared memory|uninitialised shared memory
}
EXPORT_KERNEL(no_barrier)

extern "C" __global__ void no_barrier_before_reuse(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    for (int step = 0; step < 4; step++) {
        tile[threadIdx.x] = x[step * 128 + threadIdx.x];  // BUG: race on shared memory
        __syncthreads();
        out[global_thread() * 4 + step] = tile[127 - threadIdx.x];
    }
}
EXPORT_KERNEL(no_barrier_before_reuse)

extern "C" __global__ void tree_without_last_barriers(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    int t = threadIdx.x;
    tile[t] = x[t];
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (t < step) tile[t] += tile[t + step];  // BUG: race on shared memory
        if (step > 32) __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = tile[0];
}
EXPORT_KERNEL(tree_without_last_barriers)

extern "C" __global__ void shuffle_orders_nothing(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    float mine = __shfl_xor_sync(FULL_WARP, x[threadIdx.x], 1);
    out[global_thread()] = mine + tile[threadIdx.x ^ 1];  // BUG: race on shared memory
}
EXPORT_KERNEL(shuffle_orders_nothing)

extern "C" __global__ void warp_barrier_for_the_block(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    out[global_thread()] = tile[threadIdx.x ^ 32];  // BUG: race on shared memory|uninitialised shared memory
}
EXPORT_KERNEL(warp_barrier_for_the_block)

extern "C" __global__ void half_mask_for_the_warp(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncwarp(threadIdx.x % 32 < 16 ? 0xffff : 0xffff0000);
    out[global_thread()] = tile[threadIdx.x ^ 16];  // BUG: race on shared memory|uninitialised shared memory
}
EXPORT_KERNEL(half_mask_for_the_warp)

extern "C" __global__ void named_barrier_of_the_other_half(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::named_barrier(1 + threadIdx.x / 64, 64);
    out[global_thread()] = tile[127 - threadIdx.x];  // BUG: race on shared memory|uninitialised shared memory
}
EXPORT_KERNEL(named_barrier_of_the_other_half)

extern "C" __global__ void one_place_for_all(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [1]);
    tile[0] = x[threadIdx.x];  // BUG: race on shared memory
    __syncthreads();
    out[global_thread()] = tile[0];
}
EXPORT_KERNEL(one_place_for_all)

extern "C" __global__ void words_over_halves(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(u16, halves);
    halves[threadIdx.x] = u16(threadIdx.x);
    if (threadIdx.x % 2 == 0) reinterpret_cast<u32*>(halves)[threadIdx.x / 2] = 7;  // BUG: race on shared memory
    __syncthreads();
    out[global_thread()] = halves[threadIdx.x];
}
EXPORT_KERNEL(words_over_halves)

/// The consumers read without having been told that the buffer is full.
extern "C" __global__ void consumer_does_not_wait(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, buffer, [64]);
    int t = threadIdx.x % 64;
    if (threadIdx.x < 64) buffer[t] = 0.0f;
    __syncthreads();
    for (int step = 0; step < 4; step++) {
        if (threadIdx.x < 64) {
            buffer[t] = x[step * 64 + t];
            ptx::named_barrier(1, 128);
        } else {
            out[blockIdx.x * 256 + step * 64 + t] = buffer[t];  // BUG: race on shared memory
            ptx::named_barrier(1, 128);
        }
    }
}
EXPORT_KERNEL(consumer_does_not_wait)

extern "C" __global__ void copy_read_early(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [512]);
    ptx::copy_async_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    ptx::copy_async_commit();
    out[global_thread()] = tile[4 * threadIdx.x];  // BUG: cp.async under way
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(copy_read_early)

extern "C" __global__ void copy_waits_for_the_wrong_group(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [2][512]);
    for (int i = 0; i < 2; i++) {
        ptx::copy_async_16(tile[i] + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
        ptx::copy_async_commit();
    }
    ptx::copy_async_wait<1>();
    __syncthreads();
    out[global_thread()] = tile[1][threadIdx.x];  // BUG: cp.async under way
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(copy_waits_for_the_wrong_group)

extern "C" __global__ void copy_without_barrier(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [512]);
    ptx::copy_async_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
    out[global_thread()] = tile[508 - 4 * threadIdx.x];  // BUG: race on shared memory|uninitialised shared memory|cp.async under way
}
EXPORT_KERNEL(copy_without_barrier)

/// Three stages, and the copy into the one that was read last step starts before all have read it.
extern "C" __global__ void stage_refilled_early(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, stages, [3][128]);
    int t = threadIdx.x, start = blockIdx.x * 2048;
    auto fetch = [&](int step) {
        if (t < 32 && step < 16) ptx::copy_async_16(&stages[step % 3][4 * t], x + start + step * 128 + 4 * t, true);  // BUG: race on shared memory
        ptx::copy_async_commit();
    };
    fetch(0);
    fetch(1);
    for (int step = 0; step < 16; step++) {
        ptx::copy_async_wait<1>();
        __syncthreads();
        out[start + step * 128 + t] = stages[step % 3][127 - t];
        fetch(step + 3);
        ptx::copy_async_commit();
    }
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(stage_refilled_early)

/// Three stages without the barrier after the wait.
extern "C" __global__ void pipeline_without_barrier(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, stages, [3][128]);
    int t = threadIdx.x;
    auto fetch = [&](int step) {
        if (t < 32) ptx::copy_async_16(&stages[step % 3][4 * t], x + step * 128 + 4 * t, true);
        ptx::copy_async_commit();
    };
    fetch(0);
    fetch(1);
    __syncthreads();
    for (int step = 0; step < 8; step++) {
        ptx::copy_async_wait<1>();
        out[(blockIdx.x * 8 + step) * 128 + t] = stages[step % 3][t];  // BUG: race on shared memory|uninitialised shared memory|cp.async under way
        fetch(step + 2);
    }
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(pipeline_without_barrier)

extern "C" __global__ void blocks_share_an_output(const float* x, float* out, float* fresh) {
    out[threadIdx.x] = x[global_thread()];  // BUG: race on global memory
}
EXPORT_KERNEL(blocks_share_an_output)

extern "C" __global__ void threads_share_an_output(const float* x, float* out, float* fresh) {
    out[blockIdx.x * 64 + threadIdx.x / 2] = x[threadIdx.x];  // BUG: race on global memory
}
EXPORT_KERNEL(threads_share_an_output)

extern "C" __global__ void reads_the_other_block(const float* x, float* out, float* fresh) {
    out[global_thread()] = x[threadIdx.x];
    __syncthreads();
    out[1024 + global_thread()] = out[global_thread() ^ 128];  // BUG: race on global memory
}
EXPORT_KERNEL(reads_the_other_block)

extern "C" __global__ void shifts_in_place(const float* x, float* out, float* fresh) {
    float* mine = out + blockIdx.x * 256;
    mine[threadIdx.x] = mine[threadIdx.x + 1];  // BUG: race on global memory
}
EXPORT_KERNEL(shifts_in_place)

extern "C" __global__ void adds_without_atomics(const float* x, float* out, float* fresh) {
    out[0] += x[global_thread()];  // BUG: race on global memory
}
EXPORT_KERNEL(adds_without_atomics)

extern "C" __global__ void reads_an_atomic_early(const float* x, float* out, float* fresh) {
    atomicAdd(out, x[global_thread()]);
    if (threadIdx.x == 0) out[1 + blockIdx.x] = out[0];  // BUG: race on global memory
}
EXPORT_KERNEL(reads_an_atomic_early)

extern "C" __global__ void last_block_without_fence(const float* x, float* out, float* fresh) {
    if (threadIdx.x != 0) return;
    fresh[blockIdx.x] = x[blockIdx.x];
    bool last = atomicAdd(out + 1, 1.0f) == float(gridDim.x - 1);
    if (last) out[0] = fresh[0] + fresh[1];  // BUG: race on global memory
}
EXPORT_KERNEL(last_block_without_fence)
