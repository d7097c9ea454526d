// The backward pass of attention (Dao 2023). Macros: see attention_tile.cuh.
//
// With D = rowsum(dout ⊙ out) and P recomputed from q, k and the log-sum-exp:
//     dv = Pᵀ·dout,   dS = P ⊙ (dout·vᵀ − D),   dq = scale · dS·k,   dk = scale · dSᵀ·q.
// Two passes: one block per block of keys sums dk and dv over the queries, and one block per block of queries sums dq over the
// keys. P is computed twice, seven products in place of five. In return no block adds to what another one sums: no atomics, no
// buffer of partial sums, and the order of every sum is fixed.
//
// Under dropout with factors Z, dv = (P ⊙ Z)ᵀ·dout and dS = P ⊙ (Z ⊙ (dout·vᵀ) − D).
#include "attention_tile.cuh"

constexpr int N = STREAMED / 8;

/// delta = rowsum(dout ⊙ out), (batch, q_heads, q_len); a warp per row of (batch, q_len, q_heads, DIM).
extern "C" __global__ void attention_delta(const T* out, const T* dout, float* delta, i64 rows, int q_len, int q_heads) {
    int lane = threadIdx.x % WARP;
    for (i64 row = global_thread() / WARP; row < rows; row += global_threads() / WARP) {
        float sum = 0.0f;
        for (int i = lane; i < DIM; i += WARP) sum += widen(out[row * DIM + i]) * widen(dout[row * DIM + i]);
        sum = warp_reduce<Sum>(sum);
        i64 head = row % q_heads, token = row / q_heads;
        if (lane == 0) delta[(token / q_len * q_heads + head) * q_len + token % q_len] = sum;
    }
}
EXPORT_KERNEL(attention_delta)

/// What the columns of a tile are where rows are keys: STREAMED queries.
struct QueryColumns {
    float exponent[STREAMED], delta[STREAMED];
    int start[WINDOW ? STREAMED : 1], visible[STREAMED], segment[STREAMED];

    /// Of the queries from `first` on, whose first row in (batch, q_heads, q_len) is `row`. One thread writes one query.
    __device__ void load(const Mask& mask, int first, i64 row, int q_len, const float* lse, const float* delta_of_rows) {
        int i = threadIdx.x, query = first + i;
        if (i >= STREAMED) return;
        bool exists = query < q_len;
        exponent[i] = exists ? weight_exponent(lse[row + i]) : infinity();
        delta[i] = exists ? delta_of_rows[row + i] : 0.0f;
        if (WINDOW) start[i] = mask.start(query);
        visible[i] = mask.visible(query);
        segment[i] = mask.segment(query);
    }
};

/// Turns the transposed tile of q·kᵀ into P and that of dout·vᵀ into dS; P is left as dv needs it, with dropout. Rows are the
/// keys from `key` on, columns queries; `counter` is the dropout index of the first query and key 0.
__device__ inline void weights_and_gradients(Tiles<N>& p, Tiles<N>& ds, const QueryColumns& columns, const Mask& mask, int key,
                                             float scale_log2, const Dropout& drops, u64 counter, int k_len) {
    Lane lane;
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int column = lane.column(n, i), row = key + lane.row(i / 2);
            int start = WINDOW ? columns.start[column] : 0;
            bool seen = mask.sees(start, columns.visible[column], columns.segment[column], row);
            float weight = seen ? ptx::exp2_fast(p[n][i] * scale_log2 - columns.exponent[column]) : 0.0f;
            float factor = DROPOUT ? drops.factor(counter + u64(column) * u64(k_len) + u64(row)) : 1.0f;
            ds[n][i] = weight * (ds[n][i] * factor - columns.delta[column]);
            p[n][i] = weight * factor;
        }
}

/// dk and dv, (batch, k_len, kv_heads, DIM). Grid: (blocks of keys, key heads, batch). The query heads that share the keys
/// come one after another.
extern "C" __global__ void __launch_bounds__(THREADS, FEWEST_BLOCKS)
attention_backward_keys(const T* q, const T* k, const T* v, const T* dout, const float* lse, const float* delta, T* dk, T* dv,
                        ATTENTION_ARGUMENTS) {
    SMEM_DYNAMIC(T, k_tile);
    T* v_tile = k_tile + OWNED * ROW;
    T* q_tile = v_tile + OWNED * ROW;
    T* dout_tile = q_tile + STREAMED * ROW;
    SMEM_STATIC(QueryColumns, columns, [1]);
    int key = blockIdx.x * OWNED, kv_head = blockIdx.y, batch = blockIdx.z, group = q_heads / kv_heads;
    Mask mask(batch, q_len, k_len, prefix, q_lens, k_lens, segments);
    Dropout drops(dropout, seed);
    int q_row = q_heads * DIM, stride = kv_heads * DIM;
    i64 at = (i64(batch) * kv_stride + key) * stride + kv_head * DIM;
    Lane lane;
    Tiles<WIDTH / 8> dk_sums, dv_sums;
    clear<WIDTH / 8>(dk_sums);
    clear<WIDTH / 8>(dv_sums);

    int start = key < mask.keys ? mask.first_query(key) / STREAMED * STREAMED : mask.queries;
    int end = mask.last_query(key + OWNED);
    // These arrive with the first queries; where no query sees the keys, nothing is copied.
    if (start < end) {
        load_rows<OWNED>(k_tile, k + at, stride, mask.keys - key);
        load_rows<OWNED>(v_tile, v + at, stride, mask.keys - key);
    }
    for (int head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int first = start; first < end; first += STREAMED) {
            i64 row = (i64(batch) * q_heads + head) * q_len + first;
            i64 q_at = (i64(batch) * q_len + first) * q_row + head * DIM;
            load_rows<STREAMED>(q_tile, q + q_at, q_row, q_len - first);
            load_rows<STREAMED>(dout_tile, dout + q_at, q_row, q_len - first);
            ptx::copy_async_commit();
            columns[0].load(mask, first, row, q_len, lse, delta);
            wait_for_rows();
            Tiles<N> p, ds;
            multiply_rows<N>(p, k_tile + lane.warp_row * ROW, q_tile);
            multiply_rows<N>(ds, v_tile + lane.warp_row * ROW, dout_tile);
            u64 counter = u64(row) * u64(k_len);
            weights_and_gradients(p, ds, columns[0], mask, key, scale * LOG2_E, drops, counter, k_len);
            multiply<N>(dv_sums, p, dout_tile);
            multiply<N>(dk_sums, ds, q_tile);
            __syncthreads();
        }
    float one[2] = {1.0f, 1.0f}, scales[2] = {scale, scale};
    store_rows(dk_sums, scales, dk + at, stride, k_len - key);
    store_rows(dv_sums, one, dv + at, stride, k_len - key);
}
EXPORT_KERNEL(attention_backward_keys)

/// dq, (batch, q_len, q_heads, DIM). Grid: (blocks of queries, query heads, batch).
extern "C" __global__ void __launch_bounds__(THREADS, FEWEST_BLOCKS)
attention_backward_queries(const T* q, const T* k, const T* v, const T* dout, const float* lse, const float* delta, T* dq,
                           ATTENTION_ARGUMENTS) {
    SMEM_DYNAMIC(T, q_tile);
    T* dout_tile = q_tile + OWNED * ROW;
    T* k_tile = dout_tile + OWNED * ROW;
    T* v_tile = k_tile + STREAMED * ROW;
    int first = int(gridDim.x - 1 - blockIdx.x) * OWNED, head = blockIdx.y, batch = blockIdx.z;
    Mask mask(batch, q_len, k_len, prefix, q_lens, k_lens, segments);
    i64 all_head = i64(batch) * q_heads + head;
    Queries rows(mask, first, all_head, q_len, k_len);
    Dropout drops(dropout, seed);
    int stride = q_heads * DIM, kv_row = kv_heads * DIM;
    i64 at = (i64(batch) * q_len + first) * stride + head * DIM;
    i64 kv_at = i64(batch) * kv_stride * kv_row + head / (q_heads / kv_heads) * DIM;
    int begin = mask.start_of_block(first), seen = mask.visible_to_block(first);
    Lane lane;
    float exponent[2], row_delta[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int query = first + lane.row(half);
        exponent[half] = query < q_len ? weight_exponent(lse[all_head * q_len + query]) : infinity();
        row_delta[half] = query < q_len ? delta[all_head * q_len + query] : 0.0f;
    }
    Tiles<WIDTH / 8> sums;
    clear<WIDTH / 8>(sums);

    if (begin < seen) {
        load_rows<OWNED>(q_tile, q + at, stride, q_len - first);
        load_rows<OWNED>(dout_tile, dout + at, stride, q_len - first);
    }
    for (int key = begin; key < seen; key += STREAMED) {
        load_rows<STREAMED>(k_tile, k + kv_at + i64(key) * kv_row, kv_row, mask.keys - key);
        load_rows<STREAMED>(v_tile, v + kv_at + i64(key) * kv_row, kv_row, mask.keys - key);
        ptx::copy_async_commit();
        wait_for_rows();
        Tiles<N> p, ds;
        score<N>(p, q_tile, k_tile, rows, mask, key, scale * LOG2_E);
        multiply_rows<N>(ds, dout_tile + lane.warp_row * ROW, v_tile);
        if (DROPOUT) drop<N>(ds, rows, drops, key);
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                ds[n][i] = ptx::exp2_fast(p[n][i] - exponent[i / 2]) * (ds[n][i] - row_delta[i / 2]);
        multiply<N>(sums, ds, k_tile);
        __syncthreads();
    }
    float scales[2] = {scale, scale};
    store_rows(sums, scales, dq + at, stride, q_len - first);
}
EXPORT_KERNEL(attention_backward_queries)
