// Matrix products of bf16 or tf32 on tensor cores, sums in f32. See kernels/src/gemm.rs.
//
// WARPS_M × WARPS_N warps compute a tile of c, each a rectangle of it in 16×8 fragments. Parts of a and b, 64 bytes long in
// k, pass through a ring of STAGES buffers in shared memory: while one is multiplied the next ones are being copied.
#include "gemm.cuh"

constexpr int TILE_K = 64 / sizeof(T);
/// Sums that one mma adds up: 16, or 8 of tf32.
constexpr int MMA_K = 32 / sizeof(T);
constexpr int THREADS = WARPS_M * WARPS_N * WARP;
constexpr int WARP_M = TILE_M / WARPS_M, WARP_N = TILE_N / WARPS_N;
/// Elements of a chunk: 16 bytes, what cp.async copies and ldmatrix reads.
constexpr int CHUNK = WIDE<T>;
/// Elements written to c together.
constexpr int OUT = STORE_WIDTH;

/// A part of an operand in shared memory, as it is stored in global memory: (SIDE, TILE_K) if K_MAJOR, else (TILE_K, SIDE),
/// "side" being a row of a or a column of b.
template <int SIDE, bool K_MAJOR> struct Part {
    static constexpr int ROWS = K_MAJOR ? SIDE : TILE_K, COLS = K_MAJOR ? TILE_K : SIDE;
    static constexpr int CHUNKS = COLS / CHUNK;

    T at[ROWS * COLS];

    /// Chunks of a row change places by XOR with the row's number, so that the same chunk of 8 successive rows, which
    /// ldmatrix reads at once, lies in 8 different groups of banks: 128 bytes, be that one row, several or half of one.
    /// Where floats are read by themselves it is two neighbouring chunks of 4 rows: XOR with twice the number.
    __device__ T* chunk(int row, int chunk) {
        constexpr int ROWS_OF_128_BYTES = CHUNKS < 8 ? 8 / CHUNKS : 1;
        constexpr int MASK = CHUNKS < 8 ? CHUNKS - 1 : 7;
        constexpr int FACTOR = !K_MAJOR && sizeof(T) == 4 ? 2 : 1;
        return at + row * COLS + (chunk ^ (row / ROWS_OF_128_BYTES * FACTOR & MASK)) * CHUNK;
    }

    /// Starts to copy the part from (first_row, first_col) on of a matrix whose rows are `stride` long; zeros beyond `rows`
    /// and `cols`.
    __device__ void copy_matrix(const T* matrix, i64 stride, int first_row, int rows, int first_col, int cols) {
        if constexpr (LOAD_WIDTH == CHUNK) {
#pragma unroll
            for (int i = 0; i < (ROWS * CHUNKS + THREADS - 1) / THREADS; i++) {
                int place = threadIdx.x + i * THREADS;
                if (ROWS * CHUNKS % THREADS != 0 && place >= ROWS * CHUNKS) break;
                int row = place / CHUNKS, col = place % CHUNKS * CHUNK;
                bool inside = first_row + row < rows && first_col + col < cols;
                const T* from = matrix + (first_row + row) * stride + first_col + col;
                ptx::copy_async_16(chunk(row, place % CHUNKS), inside ? from : matrix, inside);
            }
        } else {
            // Rows that do not start at multiples of 16 bytes: one element at a time.
#pragma unroll 2
            for (int place = threadIdx.x; place < ROWS * COLS; place += THREADS) {
                int row = place / COLS, col = place % COLS;
                bool inside = first_row + row < rows && first_col + col < cols;
                T zero = {};
                chunk(row, col / CHUNK)[col % CHUNK] = inside ? matrix[(first_row + row) * stride + first_col + col] : zero;
            }
        }
    }

    /// Starts to copy the part from (first_k, first_side) on of an operand.
    __device__ void copy(const T* operand, i64 stride, int first_k, int k_end, int first_side, int sides) {
        if (K_MAJOR) copy_matrix(operand, stride, first_side, sides, first_k, k_end);
        else copy_matrix(operand, stride, first_k, k_end, first_side, sides);
    }

    /// The fragment of 16 sides and MMA_K k from (side, k) on as four matrices of 8 sides: r[2·i + j] holds sides from
    /// 8·j and k from MMA_K/2·i on, and of these every lane side lane/4 and the 4 bytes at lane%4 along k.
    __device__ void fragment(u32 (&r)[4], int side, int k) {
        int lane = threadIdx.x % WARP, row = lane % 8, side_half = lane / 8 % 2, k_half = lane / 16;
        if constexpr (K_MAJOR) {
            ptx::load_matrix_4(r, chunk(side + side_half * 8 + row, k / CHUNK + k_half));
        } else if constexpr (sizeof(T) == 2) {
            ptx::load_matrix_4_transposed(r, chunk(k + k_half * 8 + row, side / CHUNK + side_half));
        } else {
            // ldmatrix transposes 2-byte elements only.
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int from = side + i % 2 * 8 + lane / 4;
                r[i] = __float_as_uint(widen(chunk(k + i / 2 * 4 + lane % 4, from / CHUNK)[from % CHUNK]));
            }
        }
        round_to_mma(T(), r);
    }

    /// Tensor cores would cut floats off after 10 bits of mantissa.
    __device__ static void round_to_mma(float, u32 (&r)[4]) {
#pragma unroll
        for (int i = 0; i < 4; i++) r[i] = ptx::to_tf32(__uint_as_float(r[i]));
    }
    template <typename U> __device__ static void round_to_mma(U, u32 (&)[4]) {}
};

struct Stage {
    Part<TILE_M, A_K_MAJOR> a;
    Part<TILE_N, B_K_MAJOR> b;
};

/// The tensor cores' product for elements of the first argument's type.
__device__ inline void mma(bf16, float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { ptx::mma_bf16(d, a, b); }
__device__ inline void mma(float, float (&d)[4], const u32 (&a)[4], const u32 (&b)[2]) { ptx::mma_tf32(d, a, b); }

typedef float Sums[WARP_M / 16][WARP_N / 8][4];

/// sums += a·b over one stage, for the warp's rectangle from (row, col) of the tile on.
__device__ inline void multiply(Sums& sums, Stage& stage, int row, int col) {
#pragma unroll
    for (int k = 0; k < TILE_K; k += MMA_K) {
        u32 a[WARP_M / 16][4], b[WARP_N / 8][2];
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++) stage.a.fragment(a[i], row + 16 * i, k);
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j += 2) {
            u32 pair[4];
            stage.b.fragment(pair, col + 8 * j, k);
            b[j][0] = pair[0], b[j][1] = pair[2];
            b[j + 1][0] = pair[1], b[j + 1][1] = pair[3];
        }
#pragma unroll
        for (int i = 0; i < WARP_M / 16; i++)
#pragma unroll
            for (int j = 0; j < WARP_N / 8; j++) mma(T(), sums[i][j], a[i], b[j]);
    }
}

/// Space of a warp's own to bring 16 rows of sums into c's order: lanes hold fragments, but should write whole rows. 8
/// floats more than the rectangle is wide, so that the rows of a fragment lie in different banks.
typedef float Rows[16][WARP_N + 8];

/// Hands the warp's sums on; its rectangle starts at (row, col) of c.
__device__ inline void put_rows(const Sums& sums, Rows& rows, float* partials, const Epilogue& to, const Work& work, int row,
                                int col, int m, int n) {
    int lane = threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < WARP_M / 16; i++) {
#pragma unroll
        for (int j = 0; j < WARP_N / 8; j++) {
            Vec<float, 2> upper = {sums[i][j][0], sums[i][j][1]}, lower = {sums[i][j][2], sums[i][j][3]};
            store(&rows[lane / 4][8 * j + lane % 4 * 2], upper);
            store(&rows[lane / 4 + 8][8 * j + lane % 4 * 2], lower);
        }
        __syncwarp();
#pragma unroll 2
        for (int place = lane * OUT; place < 16 * WARP_N; place += WARP * OUT) {
            Vec<float, OUT> sum = load<OUT>(&rows[place / WARP_N][place % WARP_N]);
            put(sum, partials, to, work, row + 16 * i + place / WARP_N, col + place % WARP_N, m, n);
        }
        __syncwarp();
    }
}

/// Dynamic shared memory: STAGES stages, which the warps' Rows take over in the end.
extern "C" __global__ void __launch_bounds__(THREADS)
    gemm(const T* a, const T* b, C* c, const T* bias, T* pre, const T* residual, float* partials, float alpha,
         int accumulate, int m, int n, int k, int k_per_split, int batch) {
    SMEM_DYNAMIC(Stage, stages);
    Work work = work_of_block(TILE_M, TILE_N, m, n, k, k_per_split, batch);
    a += work.product * m * k;
    b += work.product * k * n;
    i64 a_stride = A_K_MAJOR ? k : m, b_stride = B_K_MAJOR ? k : n;
    int warp = threadIdx.x / WARP, row = warp / WARPS_N * WARP_M, col = warp % WARPS_N * WARP_N;
    int steps = (work.k_end - work.k_begin + TILE_K - 1) / TILE_K;
    auto copy = [&](int step) {
        int first_k = work.k_begin + step * TILE_K;
        if (step < steps) {
            stages[step % STAGES].a.copy(a, a_stride, first_k, work.k_end, work.row, m);
            stages[step % STAGES].b.copy(b, b_stride, first_k, work.k_end, work.col, n);
        }
        ptx::copy_async_commit();
    };

    Sums sums = {};
    for (int step = 0; step < STAGES - 1; step++) copy(step);
    for (int step = 0; step < steps; step++) {
        // This stage has arrived for every thread, and nobody reads the last one any more: it is filled anew.
        ptx::copy_async_wait<STAGES - 2>();
        __syncthreads();
        copy(step + STAGES - 1);
        multiply(sums, stages[step % STAGES], row, col);
    }
    // The last step waited for the last part; groups closed since are empty. Other warps may still read the stages.
    __syncthreads();

    Epilogue to = {c, bias, pre, residual, alpha, accumulate};
    Rows& rows = reinterpret_cast<Rows*>(stages)[warp];
    put_rows(sums, rows, partials, to, work, work.row + row, work.col + col, m, n);
}
EXPORT_KERNEL(gemm)
