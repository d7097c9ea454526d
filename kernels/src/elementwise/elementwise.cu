// Element by element: sums, products, scaling, casts. Arguments of T and U, see kernels/src/elementwise.rs.
//
// Each thread takes W elements at a time and strides over the grid. The launch chooses W so that it divides the length
// and every argument starts at a whole vector: 16 bytes for most, one element at worst.
#include "prelude.cuh"

typedef TYPE_T T;
typedef TYPE_U U;
constexpr int W = WIDTH;
typedef Vec<T, W> VecT;
typedef Vec<U, W> VecU;

#define FOR_VECTORS(i, len) for (i64 i = global_thread() * W; i < (len); i += global_threads() * W)

extern "C" __global__ void add(const T* x, const T* y, T* out, i64 len) {
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i), b = load<W>(y + i), c;
        for (int j = 0; j < W; j++) c.at[j] = narrow<T>(widen(a.at[j]) + widen(b.at[j]));
        store(out + i, c);
    }
}
EXPORT_KERNEL(add)

extern "C" __global__ void mul(const T* x, const T* y, T* out, i64 len) {
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i), b = load<W>(y + i), c;
        for (int j = 0; j < W; j++) c.at[j] = narrow<T>(widen(a.at[j]) * widen(b.at[j]));
        store(out + i, c);
    }
}
EXPORT_KERNEL(mul)

/// out = factor · scalar · x, where `scalar` may be absent; also the cast from T to U.
extern "C" __global__ void scale(const T* x, U* out, i64 len, float factor, const float* scalar) {
    if (scalar) factor *= *scalar;
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i);
        VecU b;
        for (int j = 0; j < W; j++) b.at[j] = narrow<U>(widen(a.at[j]) * factor);
        store(out + i, b);
    }
}
EXPORT_KERNEL(scale)

/// out = x, unless the scalar is NaN.
extern "C" __global__ void cast_unless_nan(const T* x, U* out, i64 len, const float* scalar) {
    if (*scalar != *scalar) return;
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i);
        VecU b;
        for (int j = 0; j < W; j++) b.at[j] = narrow<U>(widen(a.at[j]));
        store(out + i, b);
    }
}
EXPORT_KERNEL(cast_unless_nan)

/// y += factor · scalar · x, where `scalar` may be absent.
extern "C" __global__ void axpy(const T* x, U* y, i64 len, float factor, const float* scalar) {
    if (scalar) factor *= *scalar;
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i);
        VecU b = load<W>(y + i);
        for (int j = 0; j < W; j++) b.at[j] = narrow<U>(widen(b.at[j]) + widen(a.at[j]) * factor);
        store(y + i, b);
    }
}
EXPORT_KERNEL(axpy)

/// out[o, i] = x[o, i] + b[i], `inner` elements a row, a multiple of W.
extern "C" __global__ void add_broadcast(const T* x, const T* b, T* out, i64 len, i64 inner) {
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i), c = load<W>(b + i % inner);
        for (int j = 0; j < W; j++) c.at[j] = narrow<T>(widen(a.at[j]) + widen(c.at[j]));
        store(out + i, c);
    }
}
EXPORT_KERNEL(add_broadcast)

/// x brought into least..most; NaN stays.
extern "C" __global__ void clamp(T* x, i64 len, float least, float most) {
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i);
        for (int j = 0; j < W; j++) {
            float v = widen(a.at[j]);
            a.at[j] = v < least ? narrow<T>(least) : v > most ? narrow<T>(most) : a.at[j];
        }
        store(x + i, a);
    }
}
EXPORT_KERNEL(clamp)

extern "C" __global__ void fill(T* out, i64 len, float value) {
    FOR_VECTORS(i, len) {
        VecT a;
        for (int j = 0; j < W; j++) a.at[j] = narrow<T>(value);
        store(out + i, a);
    }
}
EXPORT_KERNEL(fill)
