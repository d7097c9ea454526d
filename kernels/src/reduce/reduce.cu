// Sums along one axis and their derivative; see kernels/src/reduce.rs. x is (outer, axis, inner) of T.
//
// A block sums several outputs at once, each by a team of threads that take the axis in turns; then the teams add up
// in a tree. A long axis is cut into parts, which the launch sums in a second call. The cut depends on the shape alone
// and every sum has its order: results repeat to the bit.
#include "prelude.cuh"

typedef TYPE_T T;
typedef TYPE_U U;
constexpr int W = WIDTH;
constexpr int THREADS = 256;

/// out[o, part, i] = factor · Σ x[o, a, i] over the part's rows a.
///
/// An output is W neighbours along `inner`. If `flat`, inner is 1 and the W neighbours lie along the axis: `axis` then
/// counts whole vectors, `inner` is W, and an output is the sum of a vector.
extern "C" __global__ void __launch_bounds__(THREADS, 4)
sum_axis(const T* x, U* out, i64 outer, i64 axis, i64 inner, i64 part_rows, i64 parts, int team, int flat, float factor) {
    SMEM_STATIC(float, sums, [W][THREADS]);
    int outputs = THREADS / team, member = threadIdx.x / outputs;
    // Neighbouring threads have neighbouring outputs; the outputs of all parts are counted through.
    i64 vectors = inner / W, output = i64(blockIdx.x) * outputs + threadIdx.x % outputs;
    i64 i = output % vectors * W, part = output / vectors % parts, o = output / vectors / parts;
    bool mine = o < outer;

    float sum[W] = {};
    if (mine) {
        i64 end = min((part + 1) * part_rows, axis);
#pragma unroll 4
        for (i64 a = part * part_rows + member; a < end; a += team) {
            Vec<T, W> v = load<W>(x + (o * axis + a) * inner + i);
            for (int j = 0; j < W; j++) sum[j] += widen(v.at[j]);
        }
    }
    for (int j = 0; j < W; j++) sums[j][threadIdx.x] = sum[j];
    for (int half = team / 2; half > 0; half /= 2) {
        __syncthreads();
        if (member < half)
            for (int j = 0; j < W; j++) sums[j][threadIdx.x] += sums[j][threadIdx.x + half * outputs];
    }
    if (!mine || member > 0) return;

    if (flat) {
        float total = 0;
        for (int j = 0; j < W; j++) total += sums[j][threadIdx.x];
        out[output] = narrow<U>(total * factor);
    } else {
        Vec<U, W> v;
        for (int j = 0; j < W; j++) v.at[j] = narrow<U>(sums[j][threadIdx.x] * factor);
        store(out + output * W, v);
    }
}
EXPORT_KERNEL(sum_axis)

/// out[o, a, i] = factor · x[o, i]. W divides inner, or inner is 1 and W divides the axis.
extern "C" __global__ void broadcast_axis(const T* x, U* out, i64 len, i64 axis, i64 inner, float factor) {
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        const T* from = x + i / (axis * inner) * inner;
        Vec<T, W> v;
        if (inner == 1)
            for (int j = 0; j < W; j++) v.at[j] = *from;
        else
            v = load<W>(from + i % inner);
        Vec<U, W> scaled;
        for (int j = 0; j < W; j++) scaled.at[j] = narrow<U>(widen(v.at[j]) * factor);
        store(out + i, scaled);
    }
}
EXPORT_KERNEL(broadcast_axis)
