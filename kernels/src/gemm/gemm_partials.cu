// The second half of a product whose k is split: adds the splits' sums, in order, and finishes them.
#include "gemm.cuh"

constexpr int W = STORE_WIDTH;

/// partials (splits, batch·m·n), `len` = batch·m·n.
extern "C" __global__ void gemm_partials(const float* partials, C* c, const T* bias, T* pre, const T* residual,
                                         float alpha, int accumulate, int n, i64 len, int splits) {
    Epilogue to = {c, bias, pre, residual, alpha, accumulate};
    for (i64 place = global_thread() * W; place < len; place += global_threads() * W) {
        Vec<float, W> sum = load<W>(partials + place);
        for (int split = 1; split < splits; split++) {
            Vec<float, W> more = load<W>(partials + split * len + place);
#pragma unroll
            for (int i = 0; i < W; i++) sum.at[i] += more.at[i];
        }
        finish(sum, to, place, int(place % n));
    }
}
EXPORT_KERNEL(gemm_partials)
