// One mistake a kernel, told at the line with BUG: out of bounds, misaligned, or never written. Arguments as in correct.cu;
// each lies inside a longer buffer, so that what is next to it belongs to the process.
#include "prelude.cuh"

extern "C" __global__ void reads_past_the_end(const float* x, float* out, float* fresh) {
    out[global_thread()] = x[4096 - 255 + global_thread()];  // BUG: out of bounds
}
EXPORT_KERNEL(reads_past_the_end)

extern "C" __global__ void reads_before_the_start(const float* x, float* out, float* fresh) {
    out[global_thread()] = x[global_thread() - 1];  // BUG: out of bounds
}
EXPORT_KERNEL(reads_before_the_start)

extern "C" __global__ void writes_past_the_end(const float* x, float* out, float* fresh) {
    out[4096 - 128 + global_thread()] = x[0];  // BUG: out of bounds
}
EXPORT_KERNEL(writes_past_the_end)

extern "C" __global__ void vector_past_the_end(const float* x, float* out, float* fresh) {
    Vec<float, 4> v = load<4>(x + 4096 - 4 * 255 + 4 * global_thread());  // BUG: out of bounds
    store(out + 4 * global_thread(), v);
}
EXPORT_KERNEL(vector_past_the_end)

extern "C" __global__ void copies_past_the_end(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    ptx::copy_async_16(tile + 4 * threadIdx.x, x + 4096 - 4 * 127 + 4 * threadIdx.x, true);  // BUG: out of bounds
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(copies_past_the_end)

extern "C" __global__ void writes_its_input(const float* x, float* out, float* fresh) {
    const_cast<float*>(x)[global_thread()] = 1.0f;  // BUG: write to a read-only argument
}
EXPORT_KERNEL(writes_its_input)

extern "C" __global__ void null_pointer(const float* x, float* out, float* fresh) {
    float* nothing = reinterpret_cast<float*>(i64(x[0]));
    out[global_thread()] = nothing[threadIdx.x];  // BUG: out of bounds
}
EXPORT_KERNEL(null_pointer)

extern "C" __global__ void misaligned_vector(const float* x, float* out, float* fresh) {
    Vec<float, 4> v = load<4>(x + 1 + 4 * global_thread());  // BUG: misaligned
    store(out + 4 * global_thread(), v);
}
EXPORT_KERNEL(misaligned_vector)

extern "C" __global__ void misaligned_store(const float* x, float* out, float* fresh) {
    Vec<float, 2> v = {{1.0f, 2.0f}};
    store(out + 1 + 2 * global_thread(), v);  // BUG: misaligned
}
EXPORT_KERNEL(misaligned_store)

extern "C" __global__ void misaligned_float(const float* x, float* out, float* fresh) {
    const char* bytes = reinterpret_cast<const char*>(x) + 2;
    out[global_thread()] = reinterpret_cast<const float*>(bytes)[threadIdx.x];  // BUG: misaligned
}
EXPORT_KERNEL(misaligned_float)

extern "C" __global__ void misaligned_copy(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    ptx::copy_async_16(tile + 2 + 4 * threadIdx.x, x + 4 * threadIdx.x, true);  // BUG: misaligned
    ptx::copy_async_commit();
    ptx::copy_async_wait<0>();
}
EXPORT_KERNEL(misaligned_copy)

extern "C" __global__ void misaligned_matrix_row(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u16, tile, [16][20]);
    for (int i = threadIdx.x; i < 320; i += 128) tile[i / 20][i % 20] = u16(i);
    __syncthreads();
    u32 a[4];
    int lane = threadIdx.x % WARP;
    ptx::load_matrix_4(a, &tile[lane % 16][lane / 16 * 8]);  // BUG: misaligned
    out[global_thread()] = __uint_as_float(a[0] ^ a[1] ^ a[2] ^ a[3]);
}
EXPORT_KERNEL(misaligned_matrix_row)

extern "C" __global__ void past_static_memory(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    SMEM_STATIC(float, next, [128]);
    next[threadIdx.x] = 0.0f;
    tile[threadIdx.x + 1] = x[threadIdx.x];  // BUG: out of bounds of shared memory
    __syncthreads();
    out[global_thread()] = tile[threadIdx.x] + next[threadIdx.x];
}
EXPORT_KERNEL(past_static_memory)

extern "C" __global__ void past_dynamic_memory(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    for (int i = threadIdx.x; i <= 1024; i += 128) tile[i] = x[i];  // BUG: out of bounds of shared memory
    __syncthreads();
    out[global_thread()] = tile[threadIdx.x];
}
EXPORT_KERNEL(past_dynamic_memory)

extern "C" __global__ void half_the_tile_written(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    if (threadIdx.x < 64) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[global_thread()] = tile[threadIdx.x];  // BUG: uninitialised shared memory
}
EXPORT_KERNEL(half_the_tile_written)

extern "C" __global__ void left_by_the_block_before(const float* x, float* out, float* fresh) {
    SMEM_STATIC(float, tile, [128]);
    if (blockIdx.x == 0) tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    out[global_thread()] = tile[threadIdx.x];  // BUG: uninitialised shared memory
}
EXPORT_KERNEL(left_by_the_block_before)

extern "C" __global__ void reads_its_output(const float* x, float* out, float* fresh) {
    fresh[global_thread()] += x[global_thread()];  // BUG: uninitialised global memory
}
EXPORT_KERNEL(reads_its_output)

extern "C" __global__ void atomics_on_what_nobody_wrote(const float* x, float* out, float* fresh) {
    atomicAdd(fresh, x[global_thread()]);  // BUG: uninitialised global memory
}
EXPORT_KERNEL(atomics_on_what_nobody_wrote)
