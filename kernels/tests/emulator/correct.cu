// Kernels without a mistake: no mode of the emulator may complain. All take the same arguments: `x` and `out` of 4096
// elements, `fresh` of as many that nobody has written; 2 blocks of 128 threads, 4096 bytes of dynamic shared memory.
#include "prelude.cuh"

/// out[block] = the sum of the block's 128 elements, by a tree in shared memory.
extern "C" __global__ void tree_reduction(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    int t = threadIdx.x;
    tile[t] = x[global_thread()];
    __syncthreads();
    for (int step = 64; step > 0; step /= 2) {
        if (t < step) tile[t] += tile[t + step];
        __syncthreads();
    }
    if (t == 0) out[blockIdx.x] = tile[0];
}
EXPORT_KERNEL(tree_reduction)

/// out[block] as above; the last 32 elements by one warp with __syncwarp.
extern "C" __global__ void warp_reduction(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    int t = threadIdx.x;
    tile[t] = x[global_thread()];
    __syncthreads();
    if (t >= WARP) return;
    float sum = tile[t] + tile[t + 32] + tile[t + 64] + tile[t + 96];
    for (int step = 16; step > 0; step /= 2) {
        __syncwarp();
        tile[t] = sum;
        __syncwarp();
        if (t < step) sum += tile[t + step];
    }
    if (t == 0) out[blockIdx.x] = sum;
}
EXPORT_KERNEL(warp_reduction)

/// out = the transpose of x as (64, 64), in tiles of 32.
extern "C" __global__ void tiled_transpose(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [32][33]);
    int column = threadIdx.x % 32, row = threadIdx.x / 32;
    for (int across = 0; across < 64; across += 32) {
        int down = blockIdx.x * 32;
        for (int i = row; i < 32; i += 4) tile[i][column] = x[(down + i) * 64 + across + column];
        __syncthreads();
        for (int i = row; i < 32; i += 4) out[(across + i) * 64 + down + column] = tile[column][i];
        __syncthreads();
    }
}
EXPORT_KERNEL(tiled_transpose)

/// out = 2x in 16 steps a block, copies running two steps ahead in three stages.
extern "C" __global__ void copy_pipeline(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, stages, [3][128]);
    int t = threadIdx.x, start = blockIdx.x * 2048;
    auto fetch = [&](int step) {
        if (t < 32) ptx::copy_async_16(&stages[step % 3][4 * t], x + start + (step < 16 ? step : 0) * 128 + 4 * t, step < 16);
        ptx::copy_async_commit();
    };
    fetch(0);
    fetch(1);
    for (int step = 0; step < 16; step++) {
        ptx::copy_async_wait<1>();
        __syncthreads();
        fetch(step + 2);
        out[start + step * 128 + t] = 2.0f * stages[step % 3][t];
    }
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(copy_pipeline)

/// out = the running sum of each 32 elements, by shuffles.
extern "C" __global__ void shuffle_scan(const float* x, float* out, float* fresh) {
    int lane = threadIdx.x % WARP;
    float sum = x[global_thread()];
    for (int step = 1; step < WARP; step *= 2) {
        float before = __shfl_up_sync(FULL_WARP, sum, step);
        if (lane >= step) sum += before;
    }
    out[global_thread()] = sum;
}
EXPORT_KERNEL(shuffle_scan)

/// out = 2x, fetched by two warps and written by two others; one barrier says that the buffer is full, another that it is
/// empty again.
extern "C" __global__ void producer_consumer(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, buffer, [64]);
    int t = threadIdx.x % 64, start = blockIdx.x * 2048;
    for (int step = 0; step < 32; step++) {
        if (threadIdx.x < 64) {
            buffer[t] = x[start + step * 64 + t];
            ptx::named_barrier(1, 128);
            ptx::named_barrier(2, 128);
        } else {
            ptx::named_barrier(1, 128);
            out[start + step * 64 + t] = 2.0f * buffer[t];
            ptx::named_barrier(2, 128);
        }
    }
}
EXPORT_KERNEL(producer_consumer)

/// out = the neighbour's element, of the 32 or 64 elements that share a barrier: two warps meet at 1, the others alone.
extern "C" __global__ void barriers_of_parts(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    int t = threadIdx.x, warp = t / WARP;
    for (int step = 0; step < 4; step++) {
        tile[t] = x[global_thread()];
        if (warp < 2) ptx::named_barrier(1, 64);
        else __syncwarp();
        out[global_thread()] = tile[t ^ (warp < 2 ? 32 : 1)];
        if (warp < 2) ptx::named_barrier(2, 64);
        else __syncwarp();
    }
}
EXPORT_KERNEL(barriers_of_parts)

/// out[0] = the sum of 256 elements: the block that finishes last adds up what each left in `fresh`.
extern "C" __global__ void last_block(const float* x, float* out, float* fresh) {
    SMEM_STATIC(bool, last, [1]);
    float sum = block_reduce<Sum>(x[global_thread()], 0.0f);
    if (threadIdx.x == 0) {
        fresh[blockIdx.x] = sum;
        __threadfence();
        last[0] = atomicAdd(out + 1, 1.0f) == float(gridDim.x - 1);
    }
    __syncthreads();
    if (!last[0] || threadIdx.x != 0) return;
    __threadfence();
    out[0] = fresh[0] + fresh[1];
}
EXPORT_KERNEL(last_block)

/// out[0] = the same, by atomic addition from every thread.
extern "C" __global__ void atomic_sum(const float* x, float* out, float* fresh) { atomicAdd(out, x[global_thread()]); }
EXPORT_KERNEL(atomic_sum)

/// Half-words of one word written by different threads, and read as words after a barrier.
extern "C" __global__ void packed_halves(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(u16, halves);
    int t = threadIdx.x;
    u32 bits = __float_as_uint(x[blockIdx.x * 128 + t / 2]);
    halves[t] = u16(t % 2 ? bits >> 16 : bits);
    __syncthreads();
    if (t < 64) out[blockIdx.x * 128 + t] = __uint_as_float(reinterpret_cast<u32*>(halves)[t]);
}
EXPORT_KERNEL(packed_halves)

/// out = a product of (16, 16)·(16, 8) by every warp, its left side through ldmatrix from memory of the warp's own.
extern "C" __global__ void warp_product(const float* x, float* out, float* fresh) {
    SMEM_STATIC(bf16, tiles, [4][16][16]);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    bf16(&tile)[16][16] = tiles[warp];
    for (int i = lane; i < 256; i += WARP) tile[i / 16][i % 16] = narrow<bf16>(x[i]);
    __syncwarp();
    u32 a[4], b[2] = {ptx::pack_bf16(1, 1), ptx::pack_bf16(1, 1)};
    float d[4] = {};
    ptx::load_matrix_4(a, &tile[lane % 8 + lane / 8 % 2 * 8][lane / 16 * 8]);
    ptx::mma_bf16(d, a, b);
    float* mine = out + (blockIdx.x * 4 + warp) * 128;
    for (int i = 0; i < 4; i++) mine[(lane / 4 + i / 2 * 8) * 8 + lane % 4 * 2 + i % 2] = d[i];
}
EXPORT_KERNEL(warp_product)
