// Rows of a table by number, and the derivative to the table; see kernels/src/embedding.rs. table is (vocab, dim), ids
// (n). Ids outside the table are skipped: the host cannot see them.
//
// The derivative adds up dout[i] over the places i of every table row, in order and without atomics, in three steps:
// 1. count_ranges: the table is cut into ranges of RANGE rows; one block per range counts the ids in it.
// 2. list_ranges: the same blocks write the places of these ids, in order, one range's list after the other.
// 3. sum_rows: one block per table row goes through its range's list and adds what belongs to its row.
// Each id is read vocab/RANGE times in the first steps and RANGE times in the third, instead of vocab times.
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
constexpr int THREADS = 256;
constexpr int WARPS = THREADS / WARP;
constexpr int RANGE = 256;

/// out[i] = table[ids[i]], zeros for an id outside the table.
extern "C" __global__ void gather(const T* table, const int* ids, T* out, i64 len, i64 vocab, i64 dim) {
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        i64 id = ids[i / dim];
        Vec<T, W> row = {};
        if (id >= 0 && id < vocab) row = load<W>(table + id * dim + i % dim);
        store(out + i, row);
    }
}
EXPORT_KERNEL(gather)

/// Whether place i, if there is one, holds an id of range `range`.
__device__ inline bool in_range(const int* ids, i64 i, i64 n, i64 range, i64 vocab) {
    if (i >= n) return false;
    int id = ids[i];
    return id >= 0 && id < vocab && id / RANGE == range;
}

/// counts[r] = number of ids in range r, which is the block's.
extern "C" __global__ void __launch_bounds__(THREADS) count_ranges(const int* ids, int* counts, i64 n, i64 vocab) {
    int count = 0;
    for (i64 i = threadIdx.x; i < n; i += THREADS) count += in_range(ids, i, n, blockIdx.x, vocab);
    count = block_reduce<Sum>(count, 0);
    if (threadIdx.x == 0) counts[blockIdx.x] = count;
}
EXPORT_KERNEL(count_ranges)

/// places[starts[r] ..][.. counts[r]] = the places of the ids in range r, in order.
extern "C" __global__ void __launch_bounds__(THREADS)
list_ranges(const int* ids, const int* counts, int* starts, int* places, i64 n, i64 vocab) {
    SMEM_STATIC(int, found, [WARPS]);
    int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int end = 0;
    for (u32 range = threadIdx.x; range < blockIdx.x; range += THREADS) end += counts[range];
    end = block_reduce<Sum>(end, 0);
    if (threadIdx.x == 0) starts[blockIdx.x] = end;

    for (i64 tile = 0; tile < n; tile += THREADS) {
        i64 i = tile + threadIdx.x;
        bool mine = in_range(ids, i, n, blockIdx.x, vocab);
        u32 lanes = __ballot_sync(FULL_WARP, mine);
        if (lane == 0) found[warp] = __popc(lanes);
        __syncthreads();
        int before = end + __popc(lanes & ((1u << lane) - 1));
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) before += found[w];
            end += found[w];
        }
        if (mine) places[before] = int(i);
        __syncthreads();
    }
}
EXPORT_KERNEL(list_ranges)

/// Adds dout[place] to a lane's columns for the places of `list` that hold `row`, in order. AT_ONCE loads are under way at
/// a time.
__device__ inline void sum_places(const int* ids, const T* dout, const int* list, int count, int row, i64 dim, i64 column,
                                  float (&sum)[W]) {
    constexpr int AT_ONCE = 4;
    int lane = threadIdx.x % WARP;
    for (int first = 0; first < count; first += WARP) {
        int place = first + lane < count ? list[first + lane] : -1;
        u32 lanes = __ballot_sync(FULL_WARP, place >= 0 && ids[max(place, 0)] == row);
        while (lanes) {
            Vec<T, W> d[AT_ONCE] = {};
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++) {
                i64 from = __shfl_sync(FULL_WARP, place, __ffs(lanes) - 1);
                if (lanes && column < dim) d[j] = load<W>(dout + from * dim + column);
                lanes &= lanes - 1;
            }
#pragma unroll
            for (int j = 0; j < AT_ONCE; j++)
                for (int k = 0; k < W; k++) sum[k] += widen(d[j].at[k]);
        }
    }
}

/// dtable[row] = [dtable[row] +] Σ dout[i] over the places i with ids[i] = row, which is the block's.
///
/// The range's list is cut into WARPS parts, one for each warp, and the warps' sums are added in their order: a row that
/// occurs often does not wait for one warp. A lane takes W columns of WARP·W at a time. Most rows of a large vocabulary
/// do not occur at all and are soon done.
extern "C" __global__ void __launch_bounds__(THREADS)
sum_rows(const int* ids, const T* dout, const int* counts, const int* starts, const int* places, float* dtable, i64 dim,
         int accumulate) {
    SMEM_STATIC(float, sums, [WARPS][WARP * W]);
    int row = blockIdx.x, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    int count = counts[row / RANGE], part = (count + WARPS - 1) / WARPS;
    int first = min(warp * part, count), mine = min(part, count - first);
    const int* list = places + starts[row / RANGE];

    int occurrences = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) occurrences += ids[list[i]] == row;
    if (block_reduce<Sum>(occurrences, 0) == 0) {
        for (i64 column = threadIdx.x; column < dim && !accumulate; column += THREADS) dtable[row * dim + column] = 0;
        return;
    }
    for (i64 columns = 0; columns < dim; columns += WARP * W) {
        float sum[W] = {};
        sum_places(ids, dout, list + first, mine, row, dim, columns + lane * W, sum);
        for (int k = 0; k < W; k++) sums[warp][lane * W + k] = sum[k];
        __syncthreads();
        for (int c = threadIdx.x; c < WARP * W && columns + c < dim; c += THREADS) {
            float total = accumulate ? dtable[row * dim + columns + c] : 0;
            for (int w = 0; w < WARPS; w++) total += sums[w][c];
            dtable[row * dim + columns + c] = total;
        }
        __syncthreads();
    }
}
EXPORT_KERNEL(sum_rows)
