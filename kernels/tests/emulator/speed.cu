// What checking costs: kernels of the usual kinds, on arguments of 65536 elements and 64 blocks of 128 threads.
#include "prelude.cuh"

/// out = the softmax of the rows of x as (64, 1024).
extern "C" __global__ void softmax(const float* x, float* out, float* fresh) {
    const float* row = x + blockIdx.x * 1024;
    float most = -infinity();
    for (int i = threadIdx.x; i < 1024; i += 128) most = fmaxf(most, row[i]);
    most = block_reduce<Max>(most, -infinity());
    float sum = 0.0f;
    for (int i = threadIdx.x; i < 1024; i += 128) sum += expf(row[i] - most);
    sum = block_reduce<Sum>(sum, 0.0f);
    for (int i = threadIdx.x; i < 1024; i += 128) out[blockIdx.x * 1024 + i] = expf(row[i] - most) / sum;
}
EXPORT_KERNEL(softmax)

/// out = x·x as (256, 256), a tile of (32, 32) a block, 8 elements a thread.
extern "C" __global__ void product(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, a, [32][33]);
    SMEM_STATIC(float, b, [32][32]);
    int column = threadIdx.x % 32, row = threadIdx.x / 32 * 8;
    int down = blockIdx.x / 8 * 32, across = blockIdx.x % 8 * 32;
    float sums[8] = {};
    for (int k = 0; k < 256; k += 32) {
        for (int i = 0; i < 8; i++) {
            a[row + i][column] = x[(down + row + i) * 256 + k + column];
            b[row + i][column] = x[(k + row + i) * 256 + across + column];
        }
        __syncthreads();
        for (int j = 0; j < 32; j++)
            for (int i = 0; i < 8; i++) sums[i] += a[row + i][j] * b[j][column];
        __syncthreads();
    }
    for (int i = 0; i < 8; i++) out[(down + row + i) * 256 + across + column] = sums[i];
}
EXPORT_KERNEL(product)

/// out = x as bf16 times ones by tensor cores: 64 rows of 16 by 16 a block, fetched in the background.
extern "C" __global__ void tensor_product(const float* x, float* out, float* fresh) {
    SMEM_STATIC(bf16, tiles, [2][64][24]);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    auto fetch = [&](int step) {
        const bf16* from = reinterpret_cast<const bf16*>(x) + blockIdx.x * 2048 + step % 2 * 1024;
        ptx::copy_async_16(&tiles[step % 2][threadIdx.x / 2][threadIdx.x % 2 * 8], from + threadIdx.x * 8, true);
        ptx::copy_async_commit();
    };
    float d[4] = {};
    u32 a[4], b[2] = {ptx::pack_bf16(1, 1), ptx::pack_bf16(1, 1)};
    fetch(0);
    for (int step = 0; step < 32; step++) {
        ptx::copy_async_wait<0>();
        __syncthreads();
        if (step < 31) fetch(step + 1);
        ptx::load_matrix_4(a, &tiles[step % 2][warp * 16 + lane % 8 + lane / 8 % 2 * 8][lane / 16 * 8]);
        ptx::mma_bf16(d, a, b);
    }
    for (int i = 0; i < 4; i++) out[(blockIdx.x * 128 + threadIdx.x) * 4 + i] = d[i];
}
EXPORT_KERNEL(tensor_product)
