// Counter-based random numbers, bit for bit those of kernels/src/cpu/random.rs: each is a function of a seed and an
// index, so any thread can draw any of them.
#pragma once
#include "prelude.cuh"

/// One step of SplitMix64 (Steele, Lea and Flood 2014): spreads a seed over two 32-bit keys.
__device__ inline u64 spread(u64 seed) {
    u64 z = seed + 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/// MurmurHash3's 32-bit finaliser: a bijection in which each bit of x turns half of the result's.
__device__ inline u32 finalise(u32 x) {
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    return x ^ (x >> 16);
}

/// 32 random bits for `index` of the stream with this `key`, which is spread(seed).
__device__ inline u32 random_bits(u64 key, u64 index) {
    u32 x = finalise(u32(index) ^ u32(key));
    return finalise(x + u32(key >> 32) + u32(index >> 32) * 0x9e3779b9u);
}

/// A uniform number in [0, 1) with 24 of them.
__device__ inline float uniform(u64 key, u64 index) {
    return float(int(random_bits(key, index) >> 8)) * (1.0f / (1 << 24));
}
