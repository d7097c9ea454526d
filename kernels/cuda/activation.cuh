// The activations of kernels/src/activation.rs, one value at a time.
#pragma once

#include "prelude.cuh"

enum Activation { NONE, GELU, GELU_TANH, QUICK_GELU, SILU };

/// σ(x) = 1/(1 + e⁻ˣ) = 1/(1 + 2^(−x·log₂e)).
__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + ptx::exp2_fast(-1.4426950408889634f * x)); }

/// act(x).
template <Activation ACT> __device__ inline float activate(float x) {
    if constexpr (ACT == GELU) return 0.5f * x * (1.0f + erff(0.7071067811865476f * x));
    // (1 + tanh u)/2 = σ(2u) with u = √(2/π)·(x + 0.044715·x³).
    if constexpr (ACT == GELU_TANH) return x * sigmoid(1.5957691216057308f * x * (1.0f + 0.044715f * x * x));
    if constexpr (ACT == QUICK_GELU) return x * sigmoid(1.702f * x);
    if constexpr (ACT == SILU) return x * sigmoid(x);
    return x;
}
