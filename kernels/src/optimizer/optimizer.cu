// The optimiser's step and the norm that gradients are clipped by; see kernels/src/optimizer.rs.
#include "random.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;
constexpr int THREADS = 256;
/// Vectors of parameters that a block of adamw steps.
constexpr int VECTORS = 4 * THREADS;

/// Parameters [start, end) of the arena, which the blocks from `first_block` on step: w = keep·w − rate·m / (root·√v + eps).
struct Segment {
    i64 first_block, start, end;
    float keep, rate;
};

/// What all segments share.
struct Step {
    float root, eps, beta1, new1, beta2, new2, factor;
    int stochastic;
    u64 key;
};

/// Rounds to nearest or, by chances that keep the mean, up or down: 16 random bits are added to those that are dropped.
__device__ inline bf16 round_weight(float w, const Step& step, i64 place) {
    if (!step.stochastic || w - w != 0) return narrow<bf16>(w);
    return {u16((__float_as_uint(w) + (random_bits(step.key, place) >> 16)) >> 16)};
}

/// m = β₁m + (1 − β₁)g, v = β₂v + (1 − β₂)g² and w for N neighbours from `place` on, g = factor · grads.
template <int N>
__device__ inline void step_neighbours(float* weights, const float* grads, float* m, float* v, bf16* low, i64 place,
                                       const Segment& segment, const Step& step) {
    Vec<float, N> w = load<N>(weights + place), g = load<N>(grads + place);
    Vec<float, N> m1 = load<N>(m + place), m2 = load<N>(v + place);
    Vec<bf16, N> rounded;
#pragma unroll
    for (int j = 0; j < N; j++) {
        float gradient = g.at[j] * step.factor;
        m1.at[j] = m1.at[j] * step.beta1 + gradient * step.new1;
        m2.at[j] = m2.at[j] * step.beta2 + gradient * gradient * step.new2;
        w.at[j] = w.at[j] * segment.keep - m1.at[j] * segment.rate / (sqrtf(m2.at[j]) * step.root + step.eps);
        rounded.at[j] = round_weight(w.at[j], step, place + j);
    }
    store(weights + place, w);
    store(m + place, m1);
    store(v + place, m2);
    if (low) store(low + place, rounded);
}

/// One step of AdamW on all segments, in order of their blocks, each of which takes VECTORS vectors of W. `low` receives the
/// rounded weights unless it is null. Nothing is changed where grad_scale is NaN: some gradient was not finite.
extern "C" __global__ void __launch_bounds__(THREADS)
    adamw(float* weights, const float* grads, float* m, float* v, bf16* low, const Segment* segments, int count, float root,
          float eps, float beta1, float new1, float beta2, float new2, int stochastic, i64 seed, const float* grad_scale) {
    Step step = {root, eps, beta1, new1, beta2, new2, grad_scale ? *grad_scale : 1.0f, stochastic, spread(u64(seed))};
    if (step.factor != step.factor) return;
    int found = 0;
    for (int beyond = count; beyond - found > 1;) {
        int middle = (found + beyond) / 2;
        if (segments[middle].first_block <= blockIdx.x) found = middle;
        else beyond = middle;
    }
    Segment segment = segments[found];
    // Vectors lie at multiples of W in the arena; the first and the last may belong to a segment in part.
    i64 first = segment.start / W + (blockIdx.x - segment.first_block) * VECTORS;
    for (int i = threadIdx.x; i < VECTORS; i += THREADS) {
        i64 place = (first + i) * W;
        if (place >= segment.start && place + W <= segment.end) {
            step_neighbours<W>(weights, grads, m, v, low, place, segment, step);
        } else {
            i64 begin = place < segment.start ? segment.start : place, end = place + W < segment.end ? place + W : segment.end;
            for (; begin < end; begin++) step_neighbours<1>(weights, grads, m, v, low, begin, segment, step);
        }
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
