// Pairs for image–text matching, wrong ones drawn by similarity; see kernels/src/matching.rs.
#include "prelude.cuh"

typedef TYPE_T T;

/// best[i, j] = hardness · e^log_scale · max over queries of scores[i, q, j].
extern "C" __global__ void best_scores(const T* scores, float* best, const float* log_scale, float hardness, i64 n,
                                       i64 queries) {
    float factor = expf(*log_scale) * hardness;
    for (i64 place = global_thread(); place < n * n; place += global_threads()) {
        const T* first = scores + place / n * queries * n + place % n;
        float most = -infinity();
        for (i64 q = 0; q < queries; q++) most = fmaxf(most, widen(first[q * n]));
        best[place] = factor * most;
    }
}
EXPORT_KERNEL(best_scores)

/// The sum of x over this lane and those before it.
__device__ inline float sum_up_to_lane(float x) {
    int lane = threadIdx.x % WARP;
    for (int step = 1; step < WARP; step *= 2) {
        float before = __shfl_up_sync(FULL_WARP, x, step);
        if (lane >= step) x += before;
    }
    return x;
}

/// A warp draws one wrong partner: warp r < n a text for image r, the others an image for text r − n. Pairs are written in
/// three lists of n: true ones, those of images, those of texts.
extern "C" __global__ void draw_pairs(const float* best, const u8* truth, const double* uniform, int* images, int* texts,
                                      int* labels, i64 n) {
    int lane = threadIdx.x % WARP;
    i64 row = global_thread() / WARP, own = row % n;
    if (row >= 2 * n) return;
    bool of_image = row < n;
    auto place = [&](i64 other) { return of_image ? own * n + other : other * n + own; };
    auto wrong = [&](i64 other) { return other < n && other != own && !truth[place(other)]; };

    float largest = -infinity();
    for (i64 other = lane; other < n; other += WARP)
        if (wrong(other)) largest = fmaxf(largest, best[place(other)]);
    largest = warp_reduce<Max>(largest);
    auto weight = [&](i64 other) { return wrong(other) ? expf(best[place(other)] - largest) : 0.0f; };
    float total = 0;
    for (i64 other = lane; other < n; other += WARP) total += weight(other);
    float left = float(uniform[row]) * warp_reduce<Sum>(total);

    // The first candidate up to which the weights add up to what was drawn, or the last one.
    i64 drawn = own;
    for (i64 first = 0; first < n; first += WARP) {
        float sum = sum_up_to_lane(weight(first + lane));
        bool candidate = wrong(first + lane);
        u32 candidates = __ballot_sync(FULL_WARP, candidate), reached = __ballot_sync(FULL_WARP, candidate && left <= sum);
        if (candidates) drawn = first + 31 - __clz(int(candidates));
        if (reached) {
            drawn = first + __ffs(int(reached)) - 1;
            break;
        }
        left -= __shfl_sync(FULL_WARP, sum, WARP - 1);
    }
    if (lane != 0) return;
    if (of_image) {
        images[own] = texts[own] = int(own);
        labels[own] = truth[own * n + own];
    }
    i64 list = of_image ? n : 2 * n;
    images[list + own] = int(of_image ? own : drawn);
    texts[list + own] = int(of_image ? drawn : own);
    labels[list + own] = truth[place(drawn)];
}
EXPORT_KERNEL(draw_pairs)
