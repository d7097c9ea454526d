// What every kernel starts from: types, conversions, vector loads, reductions. Needs no header of the CUDA toolkit.
//
// The same source is compiled by NVRTC for a GPU and by the host's C++ compiler for the emulator, which defines
// LENSLET_EMULATED. What differs is here and in ptx.cuh; a kernel itself never asks which it is. Rules for kernels:
// - shared memory is declared with SMEM_STATIC or SMEM_DYNAMIC, where every thread passes;
// - a kernel is `extern "C" __global__` and followed by EXPORT_KERNEL(its name);
// - a type chosen by the launch comes as -DTYPE_T=…, and the kernel's file says `typedef TYPE_T T;`: a macro T would break
//   every template;
// - sizes and indices that may pass 2³¹ are i64.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

#ifdef LENSLET_EMULATED
#include "emulator.h"
#else
#define EXPORT_KERNEL(name)
/// `SMEM_STATIC(float, tile, [32][33]);` declares shared memory of a size known when compiling.
#define SMEM_STATIC(T, name, dims) __shared__ T name dims
/// `SMEM_DYNAMIC(float, tile);` points to the shared memory whose size the launch states, aligned to 1024 bytes.
#define SMEM_DYNAMIC(T, name)                                          \
    extern __shared__ __align__(1024) unsigned char dynamic_shared[]; \
    T* name = reinterpret_cast<T*>(dynamic_shared)
#endif

#include "ptx.cuh"

constexpr int WARP = 32;
constexpr u32 FULL_WARP = 0xffffffffu;

/// A bfloat16 number: the upper half of a float.
struct bf16 {
    u16 bits;
};

/// An IEEE half.
struct f16 {
    u16 bits;
};

__device__ inline float infinity() { return __int_as_float(0x7f800000); }

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
__device__ inline float widen(double x) { return float(x); }
__device__ inline float widen(f16 x) { return ptx::f16_to_float(x.bits); }

/// Rounds to nearest, ties to even.
template <typename T> __device__ inline T narrow(float x);
template <> __device__ inline float narrow<float>(float x) { return x; }
template <> __device__ inline double narrow<double>(float x) { return x; }
template <> __device__ inline bf16 narrow<bf16>(float x) { return {u16(ptx::pack_bf16(x, 0.0f))}; }
template <> __device__ inline f16 narrow<f16>(float x) { return {ptx::float_to_f16(x)}; }

/// N elements that are loaded and stored together; their address is a multiple of their size.
template <typename T, int N> struct alignas(sizeof(T) * N) Vec {
    T at[N];
};

/// Elements of T in 16 bytes, the widest load.
template <typename T> constexpr int WIDE = 16 / sizeof(T);

template <int N, typename T> __device__ inline Vec<T, N> load(const T* p) {
    return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <int N, typename T> __device__ inline void store(T* p, const Vec<T, N>& v) {
    *reinterpret_cast<Vec<T, N>*>(p) = v;
}

/// The thread's place among all of a one-dimensional grid, and the number of all.
__device__ inline i64 global_thread() { return i64(blockIdx.x) * blockDim.x + threadIdx.x; }
__device__ inline i64 global_threads() { return i64(gridDim.x) * blockDim.x; }

struct Sum {
    template <typename A> __device__ static A of(A a, A b) { return a + b; }
};
struct Max {
    __device__ static float of(float a, float b) { return fmaxf(a, b); }
};

/// Combines over the 32 lanes of a warp; every lane gets the result. The order is fixed: results repeat to the bit.
template <typename Op, typename A> __device__ inline A warp_reduce(A x) {
    for (int step = WARP / 2; step > 0; step /= 2) x = Op::of(x, __shfl_xor_sync(FULL_WARP, x, step));
    return x;
}

/// Combines over a block of whole warps; every thread gets the result. `identity` changes nothing in Op.
template <typename Op, typename A> __device__ inline A block_reduce(A x, A identity) {
    SMEM_STATIC(A, partial, [WARP]);
    int warps = blockDim.x / WARP, lane = threadIdx.x % WARP;
    x = warp_reduce<Op>(x);
    if (warps == 1) return x;
    if (lane == 0) partial[threadIdx.x / WARP] = x;
    __syncthreads();
    x = warp_reduce<Op>(lane < warps ? partial[lane] : identity);
    __syncthreads();
    return x;
}
