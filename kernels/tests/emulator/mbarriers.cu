// One mistake a kernel, told at the line with BUG: mbarriers and bulk copies used against their rules, which the emulator
// sees without the checker. Arguments as in correct.cu.
#include "prelude.cuh"

/// An mbarrier of the block, initialised and visible to all.
#define MBARRIER(name, count)                             \
    SMEM_STATIC(u64, name, [1]);                          \
    if (threadIdx.x == 0) ptx::mbarrier_init(name, count); \
    ptx::fence_mbarrier_init();                           \
    __syncthreads()

extern "C" __global__ void arrival_missing(const float* x, float* out, float* fresh) {
    MBARRIER(full, 128);
    if (threadIdx.x != 77) ptx::mbarrier_arrive(full);
    ptx::mbarrier_wait(full, 0);  // BUG: with 127 of 128 arrivals
}
EXPORT_KERNEL(arrival_missing)

/// The whole warp arrives where one lane should.
extern "C" __global__ void arrivals_of_a_warp(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x < 32) {
        ptx::mbarrier_arrive_expect(full, 512);  // BUG: too many arrivals
        __syncwarp();
        if (threadIdx.x == 0) ptx::bulk_load(tile, x, 512, full);
    }
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(arrivals_of_a_warp)

extern "C" __global__ void phases_run_ahead(const float* x, float* out, float* fresh) {
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive(full);
        ptx::mbarrier_arrive(full);
    } else {
        ptx::mbarrier_wait(full, 0);  // BUG: mbarrier ran ahead|deadlock
    }
}
EXPORT_KERNEL(phases_run_ahead)

extern "C" __global__ void announces_too_much(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect(full, 1024);  // BUG: 512 bytes announced
        ptx::bulk_load(tile, x, 512, full);
    }
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(announces_too_much)

extern "C" __global__ void announces_too_little(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect(full, 256);  // BUG: bytes that nobody announced
        ptx::bulk_load(tile, x, 512, full);
    }
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(announces_too_little)

extern "C" __global__ void announces_too_little_afterwards(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        ptx::bulk_load(tile, x, 512, full);  // BUG: bytes that nobody announced
        ptx::mbarrier_arrive_expect(full, 256);
    }
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(announces_too_little_afterwards)

extern "C" __global__ void announces_nothing(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive(full);
        ptx::bulk_load(tile, x, 512, full);  // BUG: nobody has waited for
    }
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(announces_nothing)

extern "C" __global__ void parity_of_the_next_phase(const float* x, float* out, float* fresh) {
    MBARRIER(full, 128);
    ptx::mbarrier_arrive(full);
    ptx::mbarrier_wait(full, 0);
    ptx::mbarrier_wait(full, 1);  // BUG: in phase 1 with 0 of 128 arrivals
}
EXPORT_KERNEL(parity_of_the_next_phase)

extern "C" __global__ void parity_of_two(const float* x, float* out, float* fresh) {
    MBARRIER(full, 128);
    ptx::mbarrier_arrive(full);
    ptx::mbarrier_wait(full, 2);  // BUG: neither 0 nor 1
}
EXPORT_KERNEL(parity_of_two)

extern "C" __global__ void never_initialised(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u64, full, [1]);
    ptx::mbarrier_arrive(full);  // BUG: uninitialised mbarrier
}
EXPORT_KERNEL(never_initialised)

extern "C" __global__ void used_after_its_end(const float* x, float* out, float* fresh) {
    MBARRIER(full, 1);
    if (threadIdx.x != 0) return;
    ptx::mbarrier_invalidate(full);
    ptx::mbarrier_arrive(full);  // BUG: uninitialised mbarrier
}
EXPORT_KERNEL(used_after_its_end)

extern "C" __global__ void copy_tells_no_mbarrier(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    SMEM_STATIC(u64, full, [1]);
    if (threadIdx.x == 0) ptx::bulk_load(tile, x, 512, full);  // BUG: uninitialised mbarrier
}
EXPORT_KERNEL(copy_tells_no_mbarrier)

extern "C" __global__ void initialised_by_all(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u64, full, [1]);
    ptx::mbarrier_init(full, 128);  // BUG: initialised twice
}
EXPORT_KERNEL(initialised_by_all)

extern "C" __global__ void count_of_none(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u64, full, [1]);
    if (threadIdx.x == 0) ptx::mbarrier_init(full, 0);  // BUG: a count of 0
}
EXPORT_KERNEL(count_of_none)

extern "C" __global__ void word_overwritten(const float* x, float* out, float* fresh) {
    MBARRIER(full, 1);
    if (threadIdx.x == 0) full[0] = 0, ptx::mbarrier_arrive(full);  // BUG: as ordinary memory
}
EXPORT_KERNEL(word_overwritten)

extern "C" __global__ void misaligned_mbarrier(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u32, words, [4]);
    if (threadIdx.x == 0) ptx::mbarrier_init(reinterpret_cast<u64*>(words + 1), 1);  // BUG: misaligned mbarrier
}
EXPORT_KERNEL(misaligned_mbarrier)

extern "C" __global__ void misaligned_bulk_load(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) ptx::bulk_load(tile + 2, x, 512, full);  // BUG: misaligned bulk copy
}
EXPORT_KERNEL(misaligned_bulk_load)

extern "C" __global__ void misaligned_bulk_store(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    if (threadIdx.x == 0) ptx::bulk_store(out + 1, tile, 512);  // BUG: misaligned bulk copy
}
EXPORT_KERNEL(misaligned_bulk_store)

extern "C" __global__ void bulk_load_of_a_few_bytes(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) ptx::bulk_load(tile, x, 24, full);  // BUG: no multiple of 16
}
EXPORT_KERNEL(bulk_load_of_a_few_bytes)

extern "C" __global__ void bulk_load_to_global_memory(const float* x, float* out, float* fresh) {
    MBARRIER(full, 1);
    if (threadIdx.x == 0) ptx::bulk_load(out, x, 512, full);  // BUG: not shared memory
}
EXPORT_KERNEL(bulk_load_to_global_memory)

extern "C" __global__ void bulk_load_unfinished(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x != 0) return;
    ptx::mbarrier_arrive_expect(full, 512);
    ptx::bulk_load(tile, x, 512, full);  // BUG: nobody has waited for
}
EXPORT_KERNEL(bulk_load_unfinished)

extern "C" __global__ void bulk_store_unfinished(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);  // BUG: ends with a bulk store
    ptx::bulk_store_commit();
}
EXPORT_KERNEL(bulk_store_unfinished)

/// A wait covers the groups that are closed.
extern "C" __global__ void bulk_store_in_an_open_group(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);  // BUG: ends with a bulk store
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(bulk_store_in_an_open_group)
