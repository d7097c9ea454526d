// Pointwise activations and the SiLU gate; see kernels/src/activation.rs. All arguments are T and have `len` elements.
#include "activation.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
constexpr Activation ACT = ACTIVATION;
typedef Vec<T, W> VecT;

#define FOR_VECTORS(i, len) for (i64 i = global_thread() * W; i < (len); i += global_threads() * W)

/// y = act(x).
extern "C" __global__ void forward(const T* x, T* y, i64 len) {
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i), b;
        for (int j = 0; j < W; j++) b.at[j] = narrow<T>(activate<ACT>(widen(a.at[j])));
        store(y + i, b);
    }
}
EXPORT_KERNEL(forward)

/// dx = dy · act'(x).
extern "C" __global__ void backward(const T* x, const T* dy, T* dx, i64 len) {
    FOR_VECTORS(i, len) {
        VecT a = load<W>(x + i), d = load<W>(dy + i), b;
        for (int j = 0; j < W; j++) b.at[j] = narrow<T>(widen(d.at[j]) * activate_derivative<ACT>(widen(a.at[j])));
        store(dx + i, b);
    }
}
EXPORT_KERNEL(backward)

/// y = act(gate) · up.
extern "C" __global__ void gated_forward(const T* gate, const T* up, T* y, i64 len) {
    FOR_VECTORS(i, len) {
        VecT g = load<W>(gate + i), u = load<W>(up + i), b;
        for (int j = 0; j < W; j++) b.at[j] = narrow<T>(activate<ACT>(widen(g.at[j])) * widen(u.at[j]));
        store(y + i, b);
    }
}
EXPORT_KERNEL(gated_forward)

/// dgate = dy · up · act'(gate), dup = dy · act(gate).
extern "C" __global__ void gated_backward(const T* gate, const T* up, const T* dy, T* dgate, T* dup, i64 len) {
    FOR_VECTORS(i, len) {
        VecT g = load<W>(gate + i), u = load<W>(up + i), d = load<W>(dy + i), dg, du;
        for (int j = 0; j < W; j++) {
            float x = widen(g.at[j]), dx = widen(d.at[j]);
            dg.at[j] = narrow<T>(dx * widen(u.at[j]) * activate_derivative<ACT>(x));
            du.at[j] = narrow<T>(dx * activate<ACT>(x));
        }
        store(dgate + i, dg);
        store(dup + i, du);
    }
}
EXPORT_KERNEL(gated_backward)
