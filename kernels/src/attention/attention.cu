// Attention: the forward pass, and the softmax weights for pictures. Macros: see attention_tile.cuh.
//
// The forward pass is FlashAttention-2 (Dao 2023): a block keeps 64 queries and streams keys and values past them. The
// softmax runs along: each row keeps its largest score m and l = Σ 2^(s−m) so far; where a new tile raises m, what was summed
// is multiplied by 2^(old m − new m). While scores are computed the tile's values are on their way, and while values are summed
// the next tile's keys.
//
// Grid: (blocks of queries, query heads, batch).
#include "attention_tile.cuh"

constexpr int N = STREAMED / 8;

/// Turns a tile's scores into weights 2^(s−m), and brings m, l and `out` up to date. l stays split over the lanes of a row.
__device__ inline void softmax_step(Tiles<N>& s, Tiles<WIDTH / 8>& out, float (&m)[2], float (&l)[2]) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float largest = m[half];
#pragma unroll
        for (int n = 0; n < N; n++) largest = fmaxf(largest, fmaxf(s[n][2 * half], s[n][2 * half + 1]));
        largest = row_reduce<Max>(largest);
        // A row that has seen nothing yet: −∞ − 0 gives weights of 0, −∞ − (−∞) would give NaN.
        float base = largest == -infinity() ? 0.0f : largest;
        float correction = ptx::exp2_fast(m[half] - base);
        m[half] = largest;
        l[half] *= correction;
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; i++) {
                s[n][i] = ptx::exp2_fast(s[n][i] - base);
                l[half] += s[n][i];
            }
#pragma unroll
        for (int n = 0; n < WIDTH / 8; n++) {
            out[n][2 * half] *= correction;
            out[n][2 * half + 1] *= correction;
        }
    }
}

/// out = softmax(scale · q·kᵀ + mask)·v, (batch, q_len, q_heads, DIM); lse (batch, q_heads, q_len).
extern "C" __global__ void __launch_bounds__(THREADS, FEWEST_BLOCKS)
attention_forward(const T* q, const T* k, const T* v, T* out, float* lse, ATTENTION_ARGUMENTS) {
    SMEM_DYNAMIC(T, q_tile);
    T* k_tile = q_tile + OWNED * ROW;
    T* v_tile = k_tile + STREAMED * ROW;
    // The last queries see the most keys under a causal mask: they start first.
    int first = int(gridDim.x - 1 - blockIdx.x) * OWNED, head = blockIdx.y, batch = blockIdx.z;
    Mask mask(batch, q_len, k_len, prefix, q_lens, k_lens, segments);
    i64 all_head = i64(batch) * q_heads + head;
    Queries rows(mask, first, all_head, q_len, k_len);
    Dropout drops(dropout, seed);
    int stride = q_heads * DIM, kv_row = kv_heads * DIM;
    i64 at = (i64(batch) * q_len + first) * stride + head * DIM;
    i64 kv_at = i64(batch) * kv_stride * kv_row + head / (q_heads / kv_heads) * DIM;
    int begin = mask.start_of_block(first), seen = mask.visible_to_block(first);
    Tiles<WIDTH / 8> sums;
    clear<WIDTH / 8>(sums);
    float m[2] = {-infinity(), -infinity()}, l[2] = {0.0f, 0.0f};

    if (begin < seen) {
        load_rows<OWNED>(q_tile, q + at, stride, q_len - first);
        load_rows<STREAMED>(k_tile, k + kv_at + i64(begin) * kv_row, kv_row, mask.keys - begin);
        ptx::copy_async_commit();
    }
    for (int key = begin; key < seen; key += STREAMED) {
        wait_for_rows();
        load_rows<STREAMED>(v_tile, v + kv_at + i64(key) * kv_row, kv_row, mask.keys - key);
        ptx::copy_async_commit();
        Tiles<N> s;
        score<N>(s, q_tile, k_tile, rows, mask, key, scale * LOG2_E);
        softmax_step(s, sums, m, l);
        if (DROPOUT) drop<N>(s, rows, drops, key);
        wait_for_rows();
        int next = key + STREAMED;
        if (next < seen) load_rows<STREAMED>(k_tile, k + kv_at + i64(next) * kv_row, kv_row, mask.keys - next);
        ptx::copy_async_commit();
        multiply<N>(sums, s, v_tile);
    }

    Lane lane;
    float inverse[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        l[half] = row_reduce<Sum>(l[half]);
        bool blind = l[half] == 0.0f;
        inverse[half] = blind ? 0.0f : 1.0f / l[half];
        int query = first + lane.row(half);
        if (lane.t == 0 && query < q_len)
            lse[all_head * q_len + query] = blind ? -infinity() : (m[half] + log2f(l[half])) * LN_2;
    }
    store_rows(sums, inverse, out + at, stride, q_len - first);
}
EXPORT_KERNEL(attention_forward)

/// weights = exp(scale · q·kᵀ + mask − lse), (batch, q_heads, q_len, k_len).
extern "C" __global__ void __launch_bounds__(THREADS, FEWEST_BLOCKS)
attention_weights(const T* q, const T* k, const float* lse, float* weights, ATTENTION_ARGUMENTS) {
    SMEM_DYNAMIC(T, q_tile);
    T* k_tile = q_tile + OWNED * ROW;
    int first = blockIdx.x * OWNED, head = blockIdx.y, batch = blockIdx.z;
    Mask mask(batch, q_len, k_len, prefix, q_lens, k_lens, segments);
    i64 all_head = i64(batch) * q_heads + head;
    Queries rows(mask, first, all_head, q_len, k_len);
    int stride = q_heads * DIM, kv_row = kv_heads * DIM;
    load_rows<OWNED>(q_tile, q + (i64(batch) * q_len + first) * stride + head * DIM, stride, q_len - first);
    const T* keys = k + i64(batch) * kv_stride * kv_row + head / (q_heads / kv_heads) * DIM;
    Lane lane;
    for (int key = 0; key < k_len; key += STREAMED) {
        load_rows<STREAMED>(k_tile, keys + i64(key) * kv_row, kv_row, mask.keys - key);
        ptx::copy_async_commit();
        wait_for_rows();
        Tiles<N> s;
        score<N>(s, q_tile, k_tile, rows, mask, key, scale * LOG2_E);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int query = first + lane.row(half);
            if (query >= q_len) continue;
            i64 row = all_head * q_len + query;
            float exponent = weight_exponent(lse[row]);
#pragma unroll
            for (int n = 0; n < N; n++)
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    int column = key + lane.column(n, i);
                    if (column < k_len) weights[row * k_len + column] = ptx::exp2_fast(s[n][2 * half + i] - exponent);
                }
        }
        __syncthreads();
    }
}
EXPORT_KERNEL(attention_weights)
