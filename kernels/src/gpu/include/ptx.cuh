// Every PTX instruction the kernels use, once: inline assembly for the GPU, a call into the emulator for the CPU.
// Target: sm_80 and later; ptx_sm90.cuh has what begins with sm_90.
// Fragment layouts are those of the PTX manual, "Matrix fragments for mma.m16n8k16".
#pragma once

namespace ptx {

#ifdef LENSLET_EMULATED
#define PTX(assembly, emulated) emulated
/// The last parameter of what may wait or fail: the caller's place, for the emulator's reports.
#define PTX_CALLER , EMU_PLACE
#define PTX_PLACE , place
#else
#define PTX(assembly, emulated) assembly
#define PTX_CALLER
#define PTX_PLACE
#endif

/// Two floats rounded to bf16, `low` in the lower half.
__device__ inline u32 pack_bf16(float low, float high) {
    u32 packed;
    PTX(asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low)), packed = emu::pack_bf16(low, high));
    return packed;
}

/// Two floats rounded to f16, `low` in the lower half.
__device__ inline u32 pack_f16(float low, float high) {
    u32 packed;
    PTX(asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low)), packed = emu::pack_f16(low, high));
    return packed;
}

__device__ inline u16 float_to_f16(float x) { return u16(pack_f16(x, 0.0f)); }

__device__ inline float f16_to_float(u16 bits) {
    float x;
    PTX(asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits)), x = emu::f16_to_float(bits));
    return x;
}

/// A float rounded to the 10 bits of mantissa that tf32 products read.
__device__ inline u32 to_tf32(float x) {
    u32 bits;
    PTX(asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x)), bits = emu::to_tf32(x));
    return bits;
}

/// 2ˣ, to about 2 units in the last place.
__device__ inline float exp2_fast(float x) {
    float y;
    PTX(asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x)), y = exp2f(x));
    return y;
}

/// Waits for `threads` threads of the block, whole warps, at one of the barriers 1 to 15; __syncthreads is barrier 0.
__device__ inline void named_barrier(int id, int threads PTX_CALLER) {
    PTX(asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory"), emu::named_barrier(id, threads PTX_PLACE));
}

/// Copies 16 bytes from global to shared memory in the background; both addresses are multiples of 16. Where `valid` is
/// false zeros are written, and `from` is not read.
__device__ inline void copy_async_16(void* to, const void* from, bool valid PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(to)); int bytes = valid ? 16 : 0;
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(bytes) : "memory"),
        emu::copy_async(to, from, 16, valid ? 16 : 0 PTX_PLACE));
}

/// Closes the group of copies the thread has started.
__device__ inline void copy_async_commit() { PTX(asm volatile("cp.async.commit_group;" ::: "memory"), emu::copy_async_commit()); }

/// Waits until at most the N latest groups of the thread's copies are under way.
template <int N> __device__ inline void copy_async_wait() {
    PTX(asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"), emu::copy_async_wait(N));
}

/// Four 8×8 matrices of 16-bit elements from shared memory. Lane i gives the address of row i%8 of matrix i/8, 16 bytes
/// long; register j of lane i receives elements 2·(i%4) and +1 of row i/4 of matrix j.
__device__ inline void load_matrix_4(u32 (&r)[4], const void* row PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(row));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory"),
        emu::load_matrix(r, 4, row, false PTX_PLACE));
}

/// As load_matrix_4, each matrix transposed: the lane receives column i/4, elements 2·(i%4) and +1.
__device__ inline void load_matrix_4_transposed(u32 (&r)[4], const void* row PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(row));
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(address) : "memory"),
        emu::load_matrix(r, 4, row, true PTX_PLACE));
}

/// d += a·b over the warp, (16, 16)·(16, 8) of bf16 into float. With g = lane/4 and t = lane%4, each register holding
/// two neighbours along k: a = {(g, 2t), (g+8, 2t), (g, 2t+8), (g+8, 2t+8)}, b = {(2t, g), (2t+8, g)},
/// d = {(g, 2t), (g, 2t+1), (g+8, 2t), (g+8, 2t+1)}.
__device__ inline void mma_bf16(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2] PTX_CALLER) {
    PTX(asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])),
        emu::mma_bf16(d, a, b PTX_PLACE));
}

/// d += a·b over the warp, (16, 8)·(8, 8) of tf32 into float; a = {(g, t), (g+8, t), (g, t+4), (g+8, t+4)},
/// b = {(t, g), (t+4, g)}, d as in mma_bf16.
__device__ inline void mma_tf32(float (&d)[4], const u32 (&a)[4], const u32 (&b)[2] PTX_CALLER) {
    PTX(asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                     "{%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1])),
        emu::mma_tf32(d, a, b PTX_PLACE));
}

}  // namespace ptx

#include "ptx_sm90.cuh"
