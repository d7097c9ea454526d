// The activations and their derivatives, element by element; see kernels/src/activation.rs.
#pragma once
#include "prelude.cuh"

/// Those of kernels::activation::Activation, and none for products without one.
enum Activation { GELU, GELU_TANH, QUICK_GELU, SILU, NONE };

constexpr float SQRT_HALF = 0.70710678f;         // √(1/2)
constexpr float NORMAL_DENSITY = 0.39894228f;    // √(1/(2π))
constexpr float GELU_TANH_SLOPE = 1.5957691f;    // √(8/π)
constexpr float GELU_TANH_CUBIC = 0.044715f;
constexpr float QUICK_GELU_SLOPE = 1.702f;

__device__ inline float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

/// Φ(x), the normal distribution function.
__device__ inline float normal_cdf(float x) { return 0.5f + 0.5f * erff(x * SQRT_HALF); }

/// (1 + tanh(u))/2 = σ(2u) with u = √(2/π)·(x + 0.044715·x³).
__device__ inline float gelu_tanh_gate(float x) {
    return sigmoid(GELU_TANH_SLOPE * x * (1.0f + GELU_TANH_CUBIC * x * x));
}

/// Every activation is x times a gate between 0 and 1.
template <Activation A> __device__ inline float activate(float x) {
    if (A == NONE) return x;
    if (A == GELU) return x * normal_cdf(x);
    if (A == GELU_TANH) return x * gelu_tanh_gate(x);
    if (A == QUICK_GELU) return x * sigmoid(QUICK_GELU_SLOPE * x);
    return x * sigmoid(x);
}

/// With σ' = σ·(1 − σ): the derivative of x·σ(s(x)) is σ + x·s'(x)·σ·(1 − σ).
template <Activation A> __device__ inline float activate_derivative(float x) {
    if (A == GELU) return normal_cdf(x) + x * NORMAL_DENSITY * expf(-0.5f * x * x);
    float gate, slope;
    if (A == GELU_TANH) {
        gate = gelu_tanh_gate(x);
        slope = GELU_TANH_SLOPE * (1.0f + 3.0f * GELU_TANH_CUBIC * x * x);
    } else {
        slope = A == QUICK_GELU ? QUICK_GELU_SLOPE : 1.0f;
        gate = sigmoid(slope * x);
    }
    return gate + x * slope * gate * (1.0f - gate);
}
