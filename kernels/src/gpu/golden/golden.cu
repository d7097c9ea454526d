// Every wrapper of ptx.cuh once, on given numbers: what a GPU answers is recorded, and the emulator has to answer the same.
// One warp each; lane i reads and writes its own PER_LANE words.
#include "prelude.cuh"

constexpr int PER_LANE = 8;

#define LANE_WORDS                              \
    const u32* mine = in + threadIdx.x * PER_LANE; \
    u32* result = out + threadIdx.x * PER_LANE

extern "C" __global__ void convert(const u32* in, u32* out) {
    LANE_WORDS;
    float x = __uint_as_float(mine[0]), y = __uint_as_float(mine[1]);
    result[0] = ptx::pack_bf16(x, y);
    result[1] = ptx::pack_f16(x, y);
    result[2] = __float_as_uint(ptx::f16_to_float(u16(mine[2])));
    result[3] = ptx::to_tf32(x);
}
EXPORT_KERNEL(convert)

/// Two matrices' worth of rows copied with cp.async, one row in four as zeros, then read with ldmatrix. Each lane copies its
/// neighbour's row, so that only __syncwarp orders a row's copy before the lane that names the row to ldmatrix.
extern "C" __global__ void move(const u32* in, u32* out) {
    u32* result = out + threadIdx.x * PER_LANE;
    SMEM_STATIC(u32, rows, [WARP][4]);
    int copied = threadIdx.x ^ 1;
    ptx::copy_async_16(rows[copied], in + copied * PER_LANE, copied % 4 != 3);
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
    __syncwarp();
    u32 plain[4], transposed[4];
    ptx::load_matrix_4(plain, rows[threadIdx.x]);
    ptx::load_matrix_4_transposed(transposed, rows[threadIdx.x]);
    for (int i = 0; i < 4; i++) result[i] = plain[i], result[4 + i] = transposed[i];
}
EXPORT_KERNEL(move)

/// One product of the warp's fragments; the accumulators start as integers of the lane.
#define PRODUCT(name, mma)                                                           \
    extern "C" __global__ void name(const u32* in, u32* out) {                       \
        LANE_WORDS;                                                                  \
        u32 a[4] = {mine[0], mine[1], mine[2], mine[3]}, b[2] = {mine[4], mine[5]};  \
        float d[4];                                                                  \
        for (int i = 0; i < 4; i++) d[i] = float(threadIdx.x * 4 + i);               \
        ptx::mma(d, a, b);                                                           \
        for (int i = 0; i < 4; i++) result[i] = __float_as_uint(d[i]);               \
    }                                                                                \
    EXPORT_KERNEL(name)

PRODUCT(product_bf16, mma_bf16)
PRODUCT(product_tf32, mma_tf32)
