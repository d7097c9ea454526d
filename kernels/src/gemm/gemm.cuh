// What the kernels for matrix products share: which tile of c a block computes, and what happens to finished sums.
#pragma once

#include "activation.cuh"
#include "prelude.cuh"

typedef TYPE_T T;
typedef TYPE_C C;

/// Where finished sums go, see `Epilogue` in kernels/src/gemm.rs; absent parts are null.
struct Epilogue {
    C* c;
    const T* bias;
    T* pre;
    const T* residual;
    float alpha;
    int accumulate;
};

/// c = [c +] residual + act(alpha·sum + bias) for N neighbours of a row: element `place` of c, column `col`.
template <int N> __device__ inline void finish(Vec<float, N> sum, const Epilogue& to, i64 place, int col) {
    float y[N];
#pragma unroll
    for (int i = 0; i < N; i++) y[i] = to.alpha * sum.at[i];
    if (to.bias) {
        Vec<T, N> bias = load<N>(to.bias + col);
#pragma unroll
        for (int i = 0; i < N; i++) y[i] += widen(bias.at[i]);
    }
    if (to.pre) {
        Vec<T, N> pre;
#pragma unroll
        for (int i = 0; i < N; i++) pre.at[i] = narrow<T>(y[i]);
        store(to.pre + place, pre);
    }
#pragma unroll
    for (int i = 0; i < N; i++) y[i] = activate<ACTIVATION>(y[i]);
    if (to.residual) {
        Vec<T, N> residual = load<N>(to.residual + place);
#pragma unroll
        for (int i = 0; i < N; i++) y[i] += widen(residual.at[i]);
    }
    if (to.accumulate) {
        Vec<C, N> old = load<N>(to.c + place);
#pragma unroll
        for (int i = 0; i < N; i++) y[i] += widen(old.at[i]);
    }
    Vec<C, N> c;
#pragma unroll
    for (int i = 0; i < N; i++) c.at[i] = narrow<C>(y[i]);
    store(to.c + place, c);
}

/// The part of the products that a block computes: rows and columns from (row, col) on, summed over [k_begin, k_end).
/// Where k is split, the sums of every split are a matrix of their own in `partials`.
struct Work {
    int row, col, k_begin, k_end;
    i64 product;  // in the batch
    i64 matrix;   // of c, or of the partials: product + batch·split
};

/// Tiles are counted through groups of 8 rows of tiles, column by column: blocks that run at the same time then share
/// their columns of b and few rows of a, which stay in the second-level cache.
__device__ inline Work work_of_block(int tile_m, int tile_n, int m, int n, int k, int k_per_split, int batch) {
    constexpr int GROUP = 8;
    int tiles_m = (m + tile_m - 1) / tile_m, tiles_n = (n + tile_n - 1) / tile_n;
    i64 matrix = blockIdx.x / (i64(tiles_m) * tiles_n);
    int tile = int(blockIdx.x % (i64(tiles_m) * tiles_n));
    int first_row = tile / (GROUP * tiles_n) * GROUP, place = tile % (GROUP * tiles_n);
    int rows = min(GROUP, tiles_m - first_row);
    int k_begin = int(matrix / batch) * k_per_split;
    Work work;
    work.row = (first_row + place % rows) * tile_m;
    work.col = place / rows * tile_n;
    work.k_begin = k_begin;
    work.k_end = k - k_begin < k_per_split ? k : k_begin + k_per_split;
    work.product = matrix % batch;
    work.matrix = matrix;
    return work;
}

/// Hands N sums of a row on, to the partials where there are any.
template <int N>
__device__ inline void put(Vec<float, N> sum, float* partials, const Epilogue& to, const Work& work, int row, int col,
                           int m, int n) {
    if (row >= m || col >= n) return;
    i64 place = (work.matrix * m + row) * n + col;
    if (partials) store(partials + place, sum);
    else finish(sum, to, place, col);
}
