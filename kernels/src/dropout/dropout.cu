// Dropout; see kernels/src/dropout.rs.
#include "random.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;

/// y[i] = x[i] · scale where the i-th random number reaches p, else x[i] · 0; scale = 1/(1 − p).
extern "C" __global__ void dropout(const T* x, T* y, i64 len, float p, float scale, u64 seed) {
    u64 key = spread(seed);
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        Vec<T, W> a = load<W>(x + i);
        for (int j = 0; j < W; j++)
            a.at[j] = narrow<T>(widen(a.at[j]) * (uniform(key, i + j) >= p ? scale : 0.0f));
        store(y + i, a);
    }
}
EXPORT_KERNEL(dropout)
