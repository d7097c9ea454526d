// What the losses over score matrices share: log-sum-exp in one pass.
#pragma once
#include "prelude.cuh"

/// eˣ, to about 2 units in the last place plus the rounding of x·log₂e.
__device__ inline float exp_fast(float x) { return ptx::exp2_fast(x * 1.44269504f); }

/// ln Σ eˢ = m + ln Σ e^(s − m) of scores s in one pass: whenever the largest score m grows, the sum is rescaled
/// (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018).
/// A score that is NaN makes the sum NaN and leaves the largest score; infinite ones make it NaN too.
struct LogSumExp {
    float max, sum;

    __device__ static LogSumExp of_nothing() { return {-infinity(), 0.0f}; }

    template <int N> __device__ void add(const float (&s)[N]) {
        float larger = max;
        for (int i = 0; i < N; i++) larger = fmaxf(larger, s[i]);
        sum *= exp_fast(max - larger);
        for (int i = 0; i < N; i++) sum += exp_fast(s[i] - larger);
        max = larger;
    }

    __device__ void merge(const LogSumExp& other) {
        float larger = fmaxf(max, other.max);
        sum = sum * exp_fast(max - larger) + other.sum * exp_fast(other.max - larger);
        max = larger;
    }

    __device__ float value() const { return max + logf(sum); }

    /// ln Σ eˢ − score, without the rounding of a large log-sum-exp.
    __device__ float excess(float score) const { return logf(sum) + (max - score); }
};

/// What all threads of the block have added together, for every thread.
__device__ inline LogSumExp block_merge(LogSumExp part) {
    float max = block_reduce<Max>(part.max, -infinity());
    return {max, block_reduce<Sum>(part.sum * exp_fast(part.max - max), 0.0f)};
}

/// Σ values over one block, in double: every thread gets the sum.
__device__ inline double block_total(const float* values, i64 len) {
    double total = 0.0;
    for (i64 i = threadIdx.x; i < len; i += blockDim.x) total += values[i];
    return block_reduce<Sum>(total, 0.0);
}
