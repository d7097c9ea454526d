// One mistake a kernel, told at the line with BUG: threads that wait for each other in vain, and what else the emulator
// sees without the checker. Arguments as in correct.cu.
#include "prelude.cuh"

extern "C" __global__ void divergent_barriers(const float* x, float* out, float* fresh) {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();  // BUG: divergent __syncthreads
    }
}
EXPORT_KERNEL(divergent_barriers)

extern "C" __global__ void barrier_for_some(const float* x, float* out, float* fresh) {
    if (threadIdx.x < 100) __syncthreads();  // BUG: deadlock
}
EXPORT_KERNEL(barrier_for_some)

extern "C" __global__ void barrier_after_return(const float* x, float* out, float* fresh) {
    if (global_thread() >= 200) return;
    out[global_thread()] = x[global_thread()];
    __syncthreads();  // BUG: deadlock
}
EXPORT_KERNEL(barrier_after_return)

extern "C" __global__ void lanes_part(const float* x, float* out, float* fresh) {
    float v = x[threadIdx.x];
    if (threadIdx.x % 2)
        v = __shfl_xor_sync(FULL_WARP, v, 2);
    else
        v = __shfl_down_sync(FULL_WARP, v, 2);  // BUG: lanes of a warp part
    out[global_thread()] = v;
}
EXPORT_KERNEL(lanes_part)

extern "C" __global__ void lane_missing(const float* x, float* out, float* fresh) {
    if (threadIdx.x == 17) return;
    __syncwarp();  // BUG: deadlock
    out[global_thread()] = x[threadIdx.x];
}
EXPORT_KERNEL(lane_missing)

extern "C" __global__ void shuffle_from_outside(const float* x, float* out, float* fresh) {
    if (threadIdx.x >= 16) return;
    out[global_thread()] = __shfl_xor_sync(0xffff, x[threadIdx.x], 16);  // BUG: not in the mask
}
EXPORT_KERNEL(shuffle_from_outside)

extern "C" __global__ void foreign_mask(const float* x, float* out, float* fresh) {
    out[global_thread()] = __shfl_xor_sync(0xffff, x[threadIdx.x], 1);  // BUG: not in its own mask
}
EXPORT_KERNEL(foreign_mask)

extern "C" __global__ void barrier_of_two_sizes(const float* x, float* out, float* fresh) {
    ptx::named_barrier(1, threadIdx.x < 64 ? 64 : 96);  // BUG: expects|deadlock
}
EXPORT_KERNEL(barrier_of_two_sizes)

extern "C" __global__ void barrier_of_half_a_warp(const float* x, float* out, float* fresh) {
    if (threadIdx.x < 16) ptx::named_barrier(1, 16);  // BUG: whole warps
}
EXPORT_KERNEL(barrier_of_half_a_warp)

extern "C" __global__ void copy_unfinished(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    ptx::copy_async_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, true);  // BUG: ends with a cp.async
    ptx::copy_async_commit();
}
EXPORT_KERNEL(copy_unfinished)

extern "C" __global__ void copy_to_global_memory(const float* x, float* out, float* fresh) {
    ptx::copy_async_16(out + 4 * threadIdx.x, x + 4 * threadIdx.x, true);  // BUG: not shared memory
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(copy_to_global_memory)

extern "C" __global__ void divides_by_zero(const float* x, float* out, float* fresh) {
    out[global_thread()] = float(100 / int(x[0]));  // BUG: division by zero
}
EXPORT_KERNEL(divides_by_zero)

/// Past the end of the buffer that x lies in, to which only the page after it belongs.
extern "C" __global__ void past_the_buffer(const float* x, float* out, float* fresh) {
    out[global_thread()] = x[4096 + 64 + threadIdx.x];  // BUG: out of bounds
}
EXPORT_KERNEL(past_the_buffer)

/// More than a stack holds, touched from its far end. On one line: the fault may be where the function starts.
// clang-format off
extern "C" __global__ void too_many_locals(const float* x, float* out, float* fresh) { volatile float many[15300]; for (int i = 0; i < 15300; i++) many[i] = x[0]; }  // BUG: stack
// clang-format on
EXPORT_KERNEL(too_many_locals)
