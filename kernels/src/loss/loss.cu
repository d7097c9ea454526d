// Linear layer and cross-entropy in one, by blocks of rows, see kernels/src/loss.rs.
//
// The logits z = x·wᵀ (rows, vocab) of some rows come from a matrix product. `cross_entropy` computes each row's
// loss and its derivative dz, from which two more products make dx = dz·w and dw = dzᵀ·x. With target t and `count` rows
// that are not ignored, loss = lse z − z_t and dz = (softmax z − δ_t) / count.
//
// A target that is no class cannot be refused here, where nobody waits for the answer: its row's loss and dz are NaN,
// and so the mean loss and the gradients are.
#include "prelude.cuh"
#include "score.cuh"

typedef TYPE_T T;
constexpr int W = WIDTH;  // elements of a row taken at a time
typedef Vec<float, W> Floats;

__device__ inline float not_a_number() { return __int_as_float(0x7fffffff); }

struct Min {
    __device__ static int of(int a, int b) { return b < a ? b : a; }
};

/// count = the number of rows that are not ignored. One block.
extern "C" __global__ void count_rows(const int* targets, int* count, i64 rows, int ignore) {
    int counted = 0;
    for (i64 row = threadIdx.x; row < rows; row += blockDim.x) counted += targets[row] != ignore;
    counted = block_reduce<Sum>(counted, 0);
    if (threadIdx.x == 0) *count = counted;
}
EXPORT_KERNEL(count_rows)

/// A row of logits in short.
struct Statistics {
    LogSumExp lse;
    int argmax;  // the first place of the largest
};

__device__ inline Statistics statistics(const float* z, int vocab) {
    LogSumExp lse = LogSumExp::of_nothing();
    float best = -infinity();
    int place = threadIdx.x * W;
    for (int j = threadIdx.x * W; j < vocab; j += blockDim.x * W) {
        Floats v = load<W>(z + j);
        for (int k = 0; k < W; k++) {
            if (v.at[k] > best) {
                best = v.at[k];
                place = j + k;
            }
        }
        lse.add(v.at);
    }
    lse = block_merge(lse);
    constexpr int NOWHERE = 0x7fffffff;
    return {lse, block_reduce<Min>(best == lse.max ? place : NOWHERE, NOWHERE)};
}

/// dz of one row; `factor` is 1 / (count·Σ e^(z − max)), `own` is 1/count. May be written over z.
__device__ inline void derive(const float* z, T* dz, int vocab, float max, float factor, int target, float own) {
    for (int j = threadIdx.x * W; j < vocab; j += blockDim.x * W) {
        Floats v = load<W>(z + j);
        Vec<T, W> d;
        for (int k = 0; k < W; k++) {
            float p = factor * exp_fast(v.at[k] - max);
            d.at[k] = narrow<T>(j + k == target ? p - own : p);
        }
        store(dz + j, d);
    }
}

__device__ inline void fill_zeros(T* row, int len) {
    for (int j = threadIdx.x * W; j < len; j += blockDim.x * W) {
        Vec<T, W> zeros;
        for (int k = 0; k < W; k++) zeros.at[k] = narrow<T>(0.0f);
        store(row + j, zeros);
    }
}

/// Block b turns row b of `logits` (rows, vocab) into a loss, a prediction and, unless `dlogits` is absent, its
/// derivative. `dlogits` may be `logits`: a thread reads no element but those that it writes. So the thread whose element the
/// target is writes the loss.
extern "C" __global__ void cross_entropy(const float* logits, T* dlogits, const int* targets, const int* count,
                                         float* losses, int* predictions, int vocab, int ignore) {
    i64 row = blockIdx.x;
    int target = targets[row];
    if (target == ignore) {
        if (dlogits) fill_zeros(dlogits + row * vocab, vocab);
        if (threadIdx.x == 0) {
            losses[row] = 0.0f;
            predictions[row] = -1;
        }
        return;
    }
    bool is_class = target >= 0 && target < vocab;
    const float* z = logits + row * vocab;
    Statistics s = statistics(z, vocab);
    if (threadIdx.x == (is_class ? target / W % blockDim.x : 0)) {
        losses[row] = s.lse.excess(is_class ? z[target] : not_a_number());
        predictions[row] = s.argmax;
    }
    if (!dlogits) return;
    float weight = is_class ? 1.0f / *count : not_a_number();
    derive(z, dlogits + row * vocab, vocab, s.lse.max, weight / s.lse.sum, target, weight);
}
EXPORT_KERNEL(cross_entropy)

/// kept = x (rows, dim), with zeros in ignored rows, which may hold anything: in dw = dzᵀ·x even 0·NaN would show.
extern "C" __global__ void keep_counted(const T* x, const int* targets, T* kept, i64 len, int dim, int ignore) {
    for (i64 i = global_thread() * W; i < len; i += global_threads() * W) {
        Vec<T, W> v = load<W>(x + i);
        if (targets[i / dim] == ignore) {
            for (int k = 0; k < W; k++) v.at[k] = narrow<T>(0.0f);
        }
        store(kept + i, v);
    }
}
EXPORT_KERNEL(keep_counted)

/// loss = Σ losses / count, 0 when no row counts. One block.
extern "C" __global__ void mean_loss(const float* losses, const int* count, float* loss, i64 rows) {
    double total = block_total(losses, rows);
    if (threadIdx.x == 0) *loss = float(total / max(*count, 1));
}
EXPORT_KERNEL(mean_loss)
