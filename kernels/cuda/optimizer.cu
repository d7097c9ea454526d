// The optimiser's step and the norm that gradients are clipped by; see kernels/src/optimizer.rs.
#include "prelude.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
constexpr int THREADS = 256;

/// One step of AdamW with the corrections of the launch folded in, g = grad_scale · grads:
/// m = β₁m + (1 − β₁)g, v = β₂v + (1 − β₂)g², w = keep·w − rate·m / (root·√v + eps). `low` receives the rounded weights
/// unless it is null. Nothing is changed where the scale is NaN: some gradient was not finite.
extern "C" __global__ void adamw(float* weights, const float* grads, float* m, float* v, bf16* low, i64 len, float keep,
                                 float rate, float root, float eps, float beta1, float new1, float beta2, float new2,
                                 const float* grad_scale) {
    float factor = grad_scale ? *grad_scale : 1.0f;
    if (factor != factor) return;
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        Vec<float, W> w = load<W>(weights + i), g = load<W>(grads + i), m1 = load<W>(m + i), m2 = load<W>(v + i);
        Vec<bf16, W> rounded;
        for (int j = 0; j < W; j++) {
            float gradient = g.at[j] * factor;
            m1.at[j] = m1.at[j] * beta1 + gradient * new1;
            m2.at[j] = m2.at[j] * beta2 + gradient * gradient * new2;
            w.at[j] = w.at[j] * keep - m1.at[j] * rate / (sqrtf(m2.at[j]) * root + eps);
            rounded.at[j] = narrow<bf16>(w.at[j]);
        }
        store(weights + i, w);
        store(m + i, m1);
        store(v + i, m2);
        if (low) store(low + i, rounded);
    }
}
EXPORT_KERNEL(adamw)

/// parts[b] = Σ x² over what block b strides over, in double.
extern "C" __global__ void __launch_bounds__(THREADS) sum_squares(const T* x, double* parts, i64 len) {
    double sum = 0;
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        Vec<T, W> a = load<W>(x + i);
        for (int j = 0; j < W; j++) {
            double value = widen(a.at[j]);
            sum += value * value;
        }
    }
    sum = block_reduce<Sum>(sum, 0.0);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}
EXPORT_KERNEL(sum_squares)

/// out[0] = Σ parts, by one block.
extern "C" __global__ void __launch_bounds__(THREADS) sum_parts(const double* parts, double* out, i64 count) {
    double sum = 0;
    for (i64 i = threadIdx.x; i < count; i += THREADS) sum += parts[i];
    sum = block_reduce<Sum>(sum, 0.0);
    if (threadIdx.x == 0) out[0] = sum;
}
EXPORT_KERNEL(sum_parts)

/// out[0] = min(most, scale / (√squares[0] + tiny)), NaN where the squares are not finite.
extern "C" __global__ void norm_scale(const double* squares, float* out, double scale, double tiny, double most) {
    double norm = sqrt(squares[0]), factor = scale / (norm + tiny);
    if (!(factor < most)) factor = most;
    out[0] = norm - norm == 0 ? (float)factor : __int_as_float(0x7fffffff);
}
EXPORT_KERNEL(norm_scale)
