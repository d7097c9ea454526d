// What the attention kernels share: the mask, tiles of heads in shared memory, and their products.
//
// A block of 4 warps owns 64 rows of one head (queries or keys) and streams the other side past them, STREAMED rows at a
// time. A warp owns 16 of the rows. All it computes for them is kept in registers as tiles of 16 × 8 in the layout of
// mma_bf16's result: with g = lane/4 and t = lane%4 a lane holds (g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1).
// Heads in bf16 are multiplied by tensor cores, heads in f32 by plain FMA that follow the same layout.
//
// Macros: TYPE_T; HEAD_DIM; STREAMED, a multiple of 16; ALIGNED, whether every row of a head starts at 16 bytes;
// SEGMENTS and DROPOUT, whether the call has them.
#pragma once
#include "prelude.cuh"
#include "random.cuh"

typedef TYPE_T T;
constexpr int WARPS = 4, THREADS = WARPS * WARP, OWNED = 16 * WARPS;
/// Blocks per multiprocessor that the compiler keeps registers free for. 0 leaves it the choice; 1 keeps it from spilling a
/// few registers to fit one block more, which it does with segments, with dropout and in f32.
constexpr int FEWEST_BLOCKS = SEGMENTS || DROPOUT || sizeof(T) == 4 ? 1 : 0;
constexpr int DIM = HEAD_DIM;
/// The width of a head in shared memory: padded with zeros to whole matrix instructions.
constexpr int WIDTH = (DIM + 15) / 16 * 16;
/// Elements from row to row of shared memory: an odd number of 16-byte chunks, so that eight rows start in eight different
/// groups of banks.
constexpr int ROW = WIDTH + WIDE<T>;
constexpr float LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

/// Tiles of 16 rows and 8·N columns.
template <int N> using Tiles = float[N][4];

/// Arguments of every attention kernel: the fields of kernels/src/attention.rs. q is (batch, q_len, q_heads, DIM), k and v
/// are (batch, kv_stride, kv_heads, DIM). `prefix`: queries before it see the keys before it, later ones those up to their
/// own place; 0 is the causal mask and 2³¹ − 1 the full one. With WINDOW the mask is causal and `prefix` the keys that a query
/// sees.
#define ATTENTION_ARGUMENTS                                                                                        \
    int q_len, int k_len, int q_heads, int kv_heads, int kv_stride, int prefix, float scale, const int *q_lens,    \
        const int *k_lens, const int *segments, float dropout, u64 seed

/// Which keys the queries of one sequence see.
struct Mask {
    int queries, keys;    // that count
    int offset;           // place of query 0 among the keys; negative where there are more queries than keys
    int prefix, window;
    const int* segments;  // of the keys

    __device__ Mask(int batch, int q_len, int k_len, int prefix, const int* q_lens, const int* k_lens, const int* all_segments)
        : queries(q_lens ? max(0, min(q_lens[batch], q_len)) : q_len),
          keys(k_lens ? max(0, min(k_lens[batch], k_len)) : k_len),
          offset(k_len - q_len),
          prefix(WINDOW ? 0 : prefix),
          window(prefix),
          segments(SEGMENTS ? all_segments + i64(batch) * k_len : nullptr) {}

    /// The number of keys from the first on that `query` sees, segments aside. It never falls from query to query among
    /// those that count, and is 0 beyond.
    __device__ int visible(int query) const {
        if (query >= queries) return 0;
        return min(query < prefix ? prefix : max(0, query + offset + 1), keys);
    }

    /// The most keys that any query of the block from `first` on sees.
    __device__ int visible_to_block(int first) const { return first < queries ? visible(min(first + OWNED, queries) - 1) : 0; }

    /// The first key that `query` sees, if it sees any, segments aside. It never falls from query to query.
    __device__ int start(int query) const { return WINDOW ? max(0, query + offset + 1 - window) : 0; }

    /// Where the keys that a block of queries sees begin, at a multiple of STREAMED.
    __device__ int start_of_block(int first) const { return start(first) / STREAMED * STREAMED; }

    /// The end of the queries that see any key before `end`.
    __device__ int last_query(int end) const { return WINDOW ? min(queries, end - 1 - offset + window) : queries; }

    /// The first query that sees `key`, if any does.
    __device__ int first_query(int key) const { return key < prefix ? 0 : max(0, key - offset); }

    /// The segment of a query's own place.
    __device__ int segment(int query) const { return SEGMENTS && query < queries ? segments[query + offset] : 0; }

    /// Whether a query of segment `own` that sees the keys from `start` to `visible` sees this one. Segment 0 is seen by all,
    /// a negative one by none.
    __device__ bool sees(int start, int visible, int own, int key) const {
        if (key >= visible || (WINDOW && key < start)) return false;
        if (!SEGMENTS) return true;
        int segment = segments[key];
        return segment == 0 || (segment == own && segment > 0);
    }
};

/// Factors of the dropout mask: 0, or 1/(1−p) for what is kept. The counter is the flat (batch, head, query, key) index.
struct Dropout {
    float p, kept;
    u64 seed;
    __device__ Dropout(float p, u64 seed) : p(p), kept(1.0f / (1.0f - p)), seed(seed) {}
    __device__ float factor(u64 index) const { return uniform(spread(seed), index) >= p ? kept : 0.0f; }
};

/// The lane's place: its warp's first row among those the block owns, and its rows g, g + 8 and columns 2t, 2t + 1 in a tile.
struct Lane {
    int warp_row, g, t;
    __device__ Lane() : warp_row(threadIdx.x / WARP * 16), g(threadIdx.x % WARP / 4), t(threadIdx.x % 4) {}
    __device__ int row(int half) const { return warp_row + g + 8 * half; }
    /// The column of element i of tile n.
    __device__ int column(int n, int i) const { return 8 * n + 2 * t + i % 2; }
};

/// Combines over the four lanes that hold a row.
template <typename Op> __device__ inline float row_reduce(float x) {
    x = Op::of(x, __shfl_xor_sync(FULL_WARP, x, 1));
    return Op::of(x, __shfl_xor_sync(FULL_WARP, x, 2));
}

template <int N> __device__ inline void clear(Tiles<N>& tiles) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) tiles[n][i] = 0.0f;
}

/// Copies rows of a head, `stride` elements apart, to shared memory as (ROWS, WIDTH), in the background where the rows allow
/// it. Beyond `count` rows and DIM columns there are zeros: a product with what happens to lie there could be NaN.
template <int ROWS> __device__ inline void load_rows(T* to, const T* from, int stride, int count) {
    constexpr int CHUNK = ALIGNED ? WIDE<T> : 1, CHUNKS = WIDTH / CHUNK;
    for (int i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
        int row = i / CHUNKS, column = i % CHUNKS * CHUNK;
        bool valid = row < count && column < DIM;
        const T* source = from + i64(row) * stride + column;
        T* target = to + row * ROW + column;
        if (ALIGNED) ptx::copy_async_16(target, source, valid);
        else *target = valid ? *source : narrow<T>(0.0f);
    }
}

/// Waits until the block's copies have landed and every warp is done with what comes next to be overwritten.
__device__ inline void wait_for_rows() {
    ptx::copy_async_wait<0>();
    __syncthreads();
}

/// Writes the warp's rows, times a factor for each of the lane's two, to a head whose rows are `stride` elements apart. `to`
/// is the block's first row, of which `count` exist.
__device__ inline void store_rows(const Tiles<WIDTH / 8>& tiles, const float (&factor)[2], T* to, int stride, int count) {
    Lane lane;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (lane.row(half) >= count) continue;
        T* row = to + i64(lane.row(half)) * stride;
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            int column = lane.column(n, 0);
            T first = narrow<T>(tiles[n][2 * half] * factor[half]), second = narrow<T>(tiles[n][2 * half + 1] * factor[half]);
            if (ALIGNED && column < DIM) store(row + column, Vec<T, 2>{{first, second}});
            if (!ALIGNED && column < DIM) row[column] = first;
            if (!ALIGNED && column + 1 < DIM) row[column + 1] = second;
        }
    }
}

// ---- products

/// c = a·bᵀ: 16 rows of `a` by 8·N rows of `b`, both WIDTH wide in shared memory.
template <int N> __device__ inline void multiply_rows(Tiles<N>& c, const bf16* a, const bf16* b) {
    int lane = threadIdx.x % WARP;
    clear<N>(c);
    a += lane % 16 * ROW + lane / 16 * 8;
    b += (lane / 16 * 8 + lane % 8) * ROW + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < WIDTH; k += 16) {
        u32 rows[4], columns[4];
        ptx::load_matrix_4(rows, a + k);
#pragma unroll
        for (int n = 0; n < N; n += 2) {
            ptx::load_matrix_4(columns, b + n * 8 * ROW + k);
            ptx::mma_bf16(c[n], rows, {columns[0], columns[1]});
            ptx::mma_bf16(c[n + 1], rows, {columns[2], columns[3]});
        }
    }
}

/// c += p·b: 16 rows of `p`, rounded to bf16, by 8·N rows of `b` in shared memory. Two neighbouring tiles of p are, as they
/// lie, the left operand of one instruction.
template <int N> __device__ inline void multiply(Tiles<WIDTH / 8>& c, const Tiles<N>& p, const bf16* b) {
    int lane = threadIdx.x % WARP;
    b += lane % 16 * ROW + lane / 16 * 8;
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        u32 rows[4] = {ptx::pack_bf16(p[k][0], p[k][1]), ptx::pack_bf16(p[k][2], p[k][3]),
                       ptx::pack_bf16(p[k + 1][0], p[k + 1][1]), ptx::pack_bf16(p[k + 1][2], p[k + 1][3])};
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n += 2) {
            u32 columns[4];
            ptx::load_matrix_4_transposed(columns, b + k * 8 * ROW + n * 8);
            ptx::mma_bf16(c[n], rows, {columns[0], columns[1]});
            ptx::mma_bf16(c[n + 1], rows, {columns[2], columns[3]});
        }
    }
}

template <int N> __device__ inline void multiply_rows(Tiles<N>& c, const float* a, const float* b) {
    Lane lane;
    clear<N>(c);
    a += lane.g * ROW;
    b += 2 * lane.t * ROW;
#pragma unroll 1
    for (int k = 0; k < WIDTH; k += 4) {
        Vec<float, 4> rows[2] = {load<4>(a + k), load<4>(a + 8 * ROW + k)};
#pragma unroll
        for (int n = 0; n < N; n++) {
            Vec<float, 4> columns[2] = {load<4>(b + n * 8 * ROW + k), load<4>(b + (n * 8 + 1) * ROW + k)};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++) c[n][i] = fmaf(rows[i / 2].at[j], columns[i % 2].at[j], c[n][i]);
        }
    }
}

/// The elements of p that a lane needs lie with the other lanes of its row.
template <int N> __device__ inline void multiply(Tiles<WIDTH / 8>& c, const Tiles<N>& p, const float* b) {
    Lane lane;
    b += 2 * lane.t;
#pragma unroll
    for (int k = 0; k < N; k++) {
#pragma unroll 1
        for (int t = 0; t < 4; t++) {
            int owner = 4 * lane.g + t;
#pragma unroll
            for (int i = 0; i < 2; i++) {
                float top = __shfl_sync(FULL_WARP, p[k][i], owner), bottom = __shfl_sync(FULL_WARP, p[k][i + 2], owner);
                const float* row = b + (8 * k + 2 * t + i) * ROW;
#pragma unroll
                for (int n = 0; n < WIDTH / 8; n++) {
                    Vec<float, 2> column = load<2>(row + 8 * n);
                    c[n][0] = fmaf(top, column.at[0], c[n][0]);
                    c[n][1] = fmaf(top, column.at[1], c[n][1]);
                    c[n][2] = fmaf(bottom, column.at[0], c[n][2]);
                    c[n][3] = fmaf(bottom, column.at[1], c[n][3]);
                }
            }
        }
    }
}

// ---- scores

/// What a lane knows of its two rows where rows are queries.
struct Queries {
    int start[2], visible[2], segment[2];
    u64 counter[2];  // of key 0, for dropout
    int least;       // keys that every query of the block sees

    /// Of the block whose first query is `first`; `head` counts all heads of all sequences.
    __device__ Queries(const Mask& mask, int first, i64 head, int q_len, int k_len)
        : least(min(mask.visible(first), mask.visible(first + OWNED - 1))) {
        Lane lane;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = first + lane.row(half);
            start[half] = mask.start(query);
            visible[half] = mask.visible(query);
            segment[half] = mask.segment(query);
            counter[half] = u64(head * q_len + query) * u64(k_len);
        }
    }
};

/// Scores of the warp's queries against the keys from `first_key` on, as exponents of 2: q·kᵀ · scale · log₂e, −∞ where
/// hidden.
template <int N>
__device__ inline void score(Tiles<N>& s, const T* queries, const T* keys, const Queries& rows, const Mask& mask, int first_key,
                             float scale_log2) {
    Lane lane;
    multiply_rows<N>(s, queries + lane.warp_row * ROW, keys);
    bool whole = !SEGMENTS && !WINDOW && first_key + 8 * N <= rows.least;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int key = first_key + lane.column(n, i), half = i / 2;
            bool seen = whole || mask.sees(rows.start[half], rows.visible[half], rows.segment[half], key);
            s[n][i] = seen ? s[n][i] * scale_log2 : -infinity();
        }
}

/// Multiplies the warp's rows of weights by their dropout mask.
template <int N> __device__ inline void drop(Tiles<N>& p, const Queries& rows, const Dropout& dropout, int first_key) {
    Lane lane;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[n][i] *= dropout.factor(rows.counter[i / 2] + u64(first_key + lane.column(n, i)));
}

/// A row's log-sum-exp as an exponent of 2: P = 2^(s − this). Where a row saw nothing it was −∞, and P is to be 0.
__device__ inline float weight_exponent(float lse) { return lse == -infinity() ? infinity() : lse * LOG2_E; }
