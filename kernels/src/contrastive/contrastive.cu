// CLIP's and SigLIP's losses from blocks of rows of the score matrix, see kernels/src/contrastive.rs.
//
// Dot products of some images' queries with all texts come from a matrix product, as (images, groups, n). The
// score of image i and text j is s_ij = scale · max_q dots[i, q, j], with the scale e^log_scale. The kernels reduce
// these images' dot products to log-sum-exps or losses, or turn them into the derivative G to the dot products,
// from which two more products make dimage = G·text and dtext = Gᵀ·image. `first` is the number of the first image.
#include "prelude.cuh"
#include "score.cuh"

typedef TYPE_T T;

struct Score {
    float s;
    int query;  // that has it
};

/// The score of text j from an image's dot products (groups, n): the largest, of equal ones the first. NaN counts as
/// larger than any number, so that it shows.
__device__ inline Score score_of(const float* dots, int j, int n, int groups, float scale) {
    Score best = {dots[j], 0};
    for (int q = 1; q < groups; q++) {
        float dot = dots[i64(q) * n + j];
        if (dot > best.s || dot != dot) best = {dot, q};
    }
    best.s *= scale;
    return best;
}

/// G of text j for an image: the derivative to the best query's dot product, 0 for the other queries. It may take the
/// place of the dot products, since no other thread reads those of text j.
__device__ inline void store_gradient(T* gradient, int j, int n, int groups, int best, float value) {
    for (int q = 0; q < groups; q++) gradient[i64(q) * n + j] = narrow<T>(q == best ? value : 0.0f);
}

/// Block b: row_lse = ln Σ_j e^s_ij of image i = first + b, the score s_ii of its own text, and row_lse − s_ii.
extern "C" __global__ void clip_rows(const float* dots, const float* log_scale, float* row_lse, float* own,
                                     float* excess, int n, int groups, int first) {
    int image = first + blockIdx.x;
    const float* row = dots + i64(blockIdx.x) * groups * n;
    float scale = expf(*log_scale);
    LogSumExp lse = LogSumExp::of_nothing();
    for (int j = threadIdx.x; j < n; j += blockDim.x) lse.add({score_of(row, j, n, groups, scale).s});
    lse = block_merge(lse);
    if (threadIdx.x == 0) {
        own[image] = score_of(row, image, n, groups, scale).s;
        row_lse[image] = lse.value();
        excess[image] = lse.excess(own[image]);
    }
}
EXPORT_KERNEL(clip_rows)

constexpr int COLUMN_WARPS = 8;

/// Adds the block's images to each text's largest score and Σ_i e^(s_ij − max), or starts with them where first is 0.
/// A warp takes every 8th image for 32 texts; the first warp adds up the 8 partial results.
extern "C" __global__ void clip_columns(const float* dots, const float* log_scale, float* col_max, float* col_sum,
                                        int images, int n, int groups, int first) {
    SMEM_STATIC(LogSumExp, partial, [COLUMN_WARPS][WARP]);
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int text = blockIdx.x * WARP + lane;
    float scale = expf(*log_scale);
    LogSumExp lse = LogSumExp::of_nothing();
    if (text < n) {
        for (int i = warp; i < images; i += COLUMN_WARPS)
            lse.add({score_of(dots + i64(i) * groups * n, text, n, groups, scale).s});
    }
    partial[warp][lane] = lse;
    __syncthreads();
    if (warp > 0 || text >= n) return;
    for (int w = 1; w < COLUMN_WARPS; w++) lse.merge(partial[w][lane]);
    if (first > 0) lse.merge({col_max[text], col_sum[text]});
    col_max[text] = lse.max;
    col_sum[text] = lse.sum;
}
EXPORT_KERNEL(clip_columns)

/// loss = Σ_i (row_lse_i − s_ii + col_lse_i − s_ii) / 2n; col_lse holds the columns' largest scores before. One block.
extern "C" __global__ void clip_loss(const float* own, const float* excess, float* col_lse, const float* col_sum,
                                     float* loss, int n) {
    double total = 0.0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) {
        LogSumExp column = {col_lse[i], col_sum[i]};
        total += excess[i] + column.excess(own[i]);
        col_lse[i] = column.value();
    }
    total = block_reduce<Sum>(total, 0.0);
    if (threadIdx.x == 0) *loss = float(total / (2.0 * n));
}
EXPORT_KERNEL(clip_loss)

/// Block b: G = scale·ds with ds_ij = (e^(s_ij − row_lse_i) + e^(s_ij − col_lse_j) − 2·δ_ij) / 2n, and Σ_j ds_ij·s_ij,
/// of image i = first + b. `gradient` may be `dots`.
extern "C" __global__ void clip_gradient(const float* dots, T* gradient, const float* log_scale, const float* row_lse,
                                         const float* col_lse, float* moments, int n, int groups, int first) {
    int image = first + blockIdx.x;
    i64 offset = i64(blockIdx.x) * groups * n;
    float scale = expf(*log_scale), lse = row_lse[image], weight = 0.5f / n, moment = 0.0f;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        Score best = score_of(dots + offset, j, n, groups, scale);
        float ds = weight * (exp_fast(best.s - lse) + exp_fast(best.s - col_lse[j]));
        if (j == image) ds -= 2.0f * weight;
        moment += ds * best.s;
        store_gradient(gradient + offset, j, n, groups, best.query, scale * ds);
    }
    moment = block_reduce<Sum>(moment, 0.0f);
    if (threadIdx.x == 0) moments[image] = moment;
}
EXPORT_KERNEL(clip_gradient)

/// ln(1 + eˣ)
__device__ inline float softplus(float x) { return fmaxf(x, 0.0f) + log1pf(exp_fast(-fabsf(x))); }

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + exp_fast(-x)); }

/// Block b: −Σ_j ln σ(±(s_ij + bias)) of image i = first + b, with + for its own text.
extern "C" __global__ void siglip_rows(const float* dots, const float* log_scale, const float* bias, float* losses,
                                       int n, int groups, int first) {
    int image = first + blockIdx.x;
    const float* row = dots + i64(blockIdx.x) * groups * n;
    float scale = expf(*log_scale), b = *bias, loss = 0.0f;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        float logit = score_of(row, j, n, groups, scale).s + b;
        loss += softplus(j == image ? -logit : logit);
    }
    loss = block_reduce<Sum>(loss, 0.0f);
    if (threadIdx.x == 0) losses[image] = loss;
}
EXPORT_KERNEL(siglip_rows)

/// loss = Σ losses / n. One block.
extern "C" __global__ void siglip_loss(const float* losses, float* loss, int n) {
    double total = block_total(losses, n);
    if (threadIdx.x == 0) *loss = float(total / n);
}
EXPORT_KERNEL(siglip_loss)

/// Block b: G = scale·ds with ds_ij = σ(s_ij + bias)/n, for i = j −σ(−s_ij − bias)/n, and Σ_j ds_ij·s_ij and Σ_j ds_ij,
/// of image i = first + b. `gradient` may be `dots`.
extern "C" __global__ void siglip_gradient(const float* dots, T* gradient, const float* log_scale, const float* bias,
                                           float* moments, float* sums, int n, int groups, int first) {
    int image = first + blockIdx.x;
    i64 offset = i64(blockIdx.x) * groups * n;
    float scale = expf(*log_scale), b = *bias, weight = 1.0f / n, moment = 0.0f, sum = 0.0f;
    for (int j = threadIdx.x; j < n; j += blockDim.x) {
        Score best = score_of(dots + offset, j, n, groups, scale);
        float logit = best.s + b;
        float ds = weight * (j == image ? -sigmoid(-logit) : sigmoid(logit));
        moment += ds * best.s;
        sum += ds;
        store_gradient(gradient + offset, j, n, groups, best.query, scale * ds);
    }
    moment = block_reduce<Sum>(moment, 0.0f);
    sum = block_reduce<Sum>(sum, 0.0f);
    if (threadIdx.x == 0) {
        moments[image] = moment;
        sums[image] = sum;
    }
}
EXPORT_KERNEL(siglip_gradient)

/// dlog_scale = Σ moments; dbias = Σ sums, for a loss that has a bias. One block.
extern "C" __global__ void scalar_gradients(const float* moments, const float* sums, float* dlog_scale, float* dbias,
                                            int n) {
    double moment = block_total(moments, n), sum = dbias ? block_total(sums, n) : 0.0;
    if (threadIdx.x > 0) return;
    *dlog_scale = float(moment);
    if (dbias) *dbias = float(sum);
}
EXPORT_KERNEL(scalar_gradients)
