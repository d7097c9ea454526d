// Matrix products in plain f32 arithmetic: exact products, sums in the order of k. See kernels/src/gemm.rs.
//
// 16 × 16 threads compute a square tile of c, PER_THREAD × PER_THREAD sums each. Operands pass through shared memory as
// (k, side), "side" being a row of a or a column of b; while one part is multiplied the next is on its way in registers.
#include "gemm.cuh"

constexpr int THREADS = 256;
constexpr int PER = PER_THREAD;
constexpr int TILE = 16 * PER;
constexpr int TILE_K = 16;
/// Elements read from global memory together: 4 where rows start at whole vectors, else 1.
constexpr int IN = LOAD_WIDTH;
/// Elements written together.
constexpr int OUT = STORE_WIDTH;

/// 4 floats more than a tile is wide, so that a column of it is spread over the banks.
typedef float Part[TILE_K][TILE + 4];

/// The part of an operand that a thread carries: PER elements.
struct Carried {
    Vec<T, IN> at[PER / IN];
};

/// Where the thread's vector `i` lies in a part. K_MAJOR: the operand is stored (side, k), otherwise (k, side).
template <bool K_MAJOR> __device__ inline void place_in_part(int i, int& k, int& side) {
    int vector = threadIdx.x + i * THREADS;
    k = K_MAJOR ? vector % (TILE_K / IN) * IN : vector / (TILE / IN);
    side = K_MAJOR ? vector / (TILE_K / IN) : vector % (TILE / IN) * IN;
}

/// Reads the part of x from (first_k, first_side) on; zeros beyond k_end and `sides`. Rows of x have `stride` elements.
template <bool K_MAJOR>
__device__ inline void fetch(Carried& carried, const T* x, i64 stride, int first_k, int k_end, int first_side, int sides) {
#pragma unroll
    for (int i = 0; i < PER / IN; i++) {
        int k, side;
        place_in_part<K_MAJOR>(i, k, side);
        k += first_k, side += first_side;
        carried.at[i] = Vec<T, IN>();
        if (k < k_end && side < sides) carried.at[i] = load<IN>(x + (K_MAJOR ? side * stride + k : k * stride + side));
    }
}

template <bool K_MAJOR> __device__ inline void put_down(const Carried& carried, Part& part) {
#pragma unroll
    for (int i = 0; i < PER / IN; i++) {
        int k, side;
        place_in_part<K_MAJOR>(i, k, side);
#pragma unroll
        for (int j = 0; j < IN; j++) {
            if (K_MAJOR) part[k + j][side] = widen(carried.at[i].at[j]);
            else part[k][side + j] = widen(carried.at[i].at[j]);
        }
    }
}

/// sums += a·b over one part. A thread's rows (and columns) are groups of 4, 64 apart: a warp then reads whole rows of
/// shared memory.
__device__ inline void multiply(float (&sums)[PER][PER], const Part& a, const Part& b, int row, int col) {
#pragma unroll
    for (int k = 0; k < TILE_K; k++) {
        Vec<float, 4> x[PER / 4], y[PER / 4];
#pragma unroll
        for (int i = 0; i < PER / 4; i++) {
            x[i] = load<4>(&a[k][row + 64 * i]);
            y[i] = load<4>(&b[k][col + 64 * i]);
        }
#pragma unroll
        for (int i = 0; i < PER; i++)
#pragma unroll
            for (int j = 0; j < PER; j++) sums[i][j] += x[i / 4].at[i % 4] * y[j / 4].at[j % 4];
    }
}

/// Blocks on a multiprocessor: 8×8 sums a thread leave registers for one.
constexpr int BLOCKS = PER == 4 ? 2 : 1;

extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS)
    gemm_simt(const T* a, const T* b, C* c, const T* bias, T* pre, const T* residual, float* partials,
              float alpha, int accumulate, int m, int n, int k, int k_per_split, int batch) {
    SMEM_STATIC(Part, a_parts, [2]);
    SMEM_STATIC(Part, b_parts, [2]);
    Work work = work_of_block(TILE, TILE, m, n, k, k_per_split, batch);
    a += work.product * m * k;
    b += work.product * k * n;
    i64 a_stride = A_K_MAJOR ? k : m, b_stride = B_K_MAJOR ? k : n;
    int row = threadIdx.x / 16 * 4, col = threadIdx.x % 16 * 4;

    float sums[PER][PER] = {};
    Carried next_a, next_b;
    fetch<A_K_MAJOR>(next_a, a, a_stride, work.k_begin, work.k_end, work.row, m);
    fetch<B_K_MAJOR>(next_b, b, b_stride, work.k_begin, work.k_end, work.col, n);
    for (int first_k = work.k_begin, now = 0; first_k < work.k_end; first_k += TILE_K, now ^= 1) {
        put_down<A_K_MAJOR>(next_a, a_parts[now]);
        put_down<B_K_MAJOR>(next_b, b_parts[now]);
        // The other part is written next, which nobody reads any more after this barrier.
        __syncthreads();
        fetch<A_K_MAJOR>(next_a, a, a_stride, first_k + TILE_K, work.k_end, work.row, m);
        fetch<B_K_MAJOR>(next_b, b, b_stride, first_k + TILE_K, work.k_end, work.col, n);
        multiply(sums, a_parts[now], b_parts[now], row, col);
    }

    Epilogue to = {c, bias, pre, residual, alpha, accumulate};
#pragma unroll
    for (int i = 0; i < PER; i++)
#pragma unroll
        for (int j = 0; j < PER; j += OUT) {
            Vec<float, OUT> sum;
#pragma unroll
            for (int l = 0; l < OUT; l++) sum.at[l] = sums[i][j + l];
            put(sum, partials, to, work, work.row + row + i / 4 * 64 + i % 4, work.col + col + j / 4 * 64 + j % 4, m, n);
        }
}
EXPORT_KERNEL(gemm_simt)
