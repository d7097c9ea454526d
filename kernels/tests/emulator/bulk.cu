// One mistake a kernel, told at the line with BUG: bulk copies that nothing orders with what threads read and write.
// Arguments as in correct.cu.
#include "prelude.cuh"

/// An mbarrier of the block, initialised and visible to all.
#define MBARRIER(name, count)                             \
    SMEM_STATIC(u64, name, [1]);                          \
    if (threadIdx.x == 0) ptx::mbarrier_init(name, count); \
    ptx::fence_mbarrier_init();                           \
    __syncthreads()

__device__ void fetch(float* to, const float* from, u64* full) {
    ptx::mbarrier_arrive_expect(full, 512);
    ptx::bulk_load(to, from, 512, full);
}

extern "C" __global__ void read_without_wait(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) fetch(tile, x, full);
    __syncthreads();
    out[global_thread()] = tile[threadIdx.x];  // BUG: bulk copy under way
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(read_without_wait)

extern "C" __global__ void one_thread_waits_for_all(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        fetch(tile, x, full);
        ptx::mbarrier_wait(full, 0);
    }
    out[global_thread()] = tile[threadIdx.x];  // BUG: bulk copy under way|uninitialised shared memory|race on shared memory
}
EXPORT_KERNEL(one_thread_waits_for_all)

/// Where the copy has not landed the wait passes, else it lasts.
extern "C" __global__ void wrong_parity(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) fetch(tile, x, full);
    __syncthreads();
    ptx::mbarrier_wait(full, 1), out[global_thread()] = tile[threadIdx.x];  // BUG: bulk copy under way|deadlock
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(wrong_parity)

/// In the second step the parity of the first is still the one that passes.
extern "C" __global__ void parity_never_turns(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    for (int step = 0; step < 2; step++) {
        if (threadIdx.x == 0) fetch(tile + 128 * step, x, full);
        __syncthreads();
        ptx::mbarrier_wait(full, 0), out[blockIdx.x * 256 + step * 128 + threadIdx.x] = tile[128 * step + threadIdx.x];  // BUG: bulk copy under way|deadlock
        __syncthreads();
    }
    ptx::mbarrier_wait(full, 1);
}
EXPORT_KERNEL(parity_never_turns)

extern "C" __global__ void one_of_two_copies_announced(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) {
        ptx::mbarrier_arrive_expect(full, 512);
        ptx::bulk_load(tile, x, 512, full);
        ptx::bulk_load(tile + 128, x, 512, full);
    }
    ptx::mbarrier_wait(full, 0);
    out[global_thread()] = tile[threadIdx.x] + tile[128 + threadIdx.x];  // BUG: bulk copy under way
}
EXPORT_KERNEL(one_of_two_copies_announced)

/// Two stages, and each consumer says that it has read before it does.
extern "C" __global__ void stage_released_early(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    SMEM_STATIC(u64, full, [2]);
    SMEM_STATIC(u64, empty, [2]);
    int t = threadIdx.x;
    if (t < 2) ptx::mbarrier_init(&full[t], 1), ptx::mbarrier_init(&empty[t], 96);
    ptx::fence_mbarrier_init();
    __syncthreads();
    for (int step = 0; step < 8; step++) {
        int stage = step % 2, turn = step / 2;
        if (t == 0) {
            ptx::mbarrier_wait(&empty[stage], (turn & 1) ^ 1);
            fetch(tile + stage * 128, x + step * 128, &full[stage]);
        } else if (t >= 32) {
            ptx::mbarrier_wait(&full[stage], turn & 1);
            ptx::mbarrier_arrive(&empty[stage]);
            out[(blockIdx.x * 8 + step) * 128 + t] = tile[stage * 128 + t];  // BUG: race on shared memory|bulk copy under way
        }
    }
}
EXPORT_KERNEL(stage_released_early)

/// Two warps read the stage, and the first that has is enough to refill it.
extern "C" __global__ void count_of_one_consumer(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    MBARRIER(empty, 1);
    if (threadIdx.x == 0) {
        fetch(tile, x, full);
        ptx::mbarrier_wait(empty, 0), ptx::mbarrier_arrive_expect(full, 512), ptx::bulk_load(tile, x + 128, 512, full);  // BUG: race on shared memory|bulk copy under way|ran ahead|deadlock
    } else if (threadIdx.x >= 64) {
        ptx::mbarrier_wait(full, 0);
        out[global_thread()] = tile[threadIdx.x];
        __syncwarp();
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(empty);
        ptx::mbarrier_wait(full, 1);
    }
}
EXPORT_KERNEL(count_of_one_consumer)

extern "C" __global__ void load_over_what_others_read(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    out[global_thread()] = tile[threadIdx.x];
    if (threadIdx.x == 64) ptx::mbarrier_arrive_expect(full, 512), ptx::bulk_load(tile, x, 512, full);  // BUG: race on shared memory|bulk copy under way
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(load_over_what_others_read)

extern "C" __global__ void load_over_unfenced_writes(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    tile[threadIdx.x] = 0.0f;
    __syncthreads();
    ptx::mbarrier_arrive_expect(full, threadIdx.x == 0 ? 512 : 0);
    if (threadIdx.x == 0) ptx::bulk_load(tile, x, 512, full);  // BUG: missing fence.proxy.async
}
EXPORT_KERNEL(load_over_unfenced_writes)

extern "C" __global__ void store_of_unfenced_writes(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    if (threadIdx.x != 0) return;
    ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);  // BUG: missing fence.proxy.async
    ptx::bulk_store_commit();
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(store_of_unfenced_writes)

/// A fence by the thread that starts the copy covers what it wrote itself.
extern "C" __global__ void fence_after_the_barrier(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];  // BUG: missing fence.proxy.async
    __syncthreads();
    ptx::fence_proxy_async();
    if (threadIdx.x != 0) return;
    ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);
    ptx::bulk_store_commit();
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(fence_after_the_barrier)

extern "C" __global__ void fence_before_the_write(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    for (int step = 0; step < 2; step++) {
        ptx::fence_proxy_async();
        tile[threadIdx.x] = x[threadIdx.x];  // BUG: missing fence.proxy.async
        __syncthreads();
        if (threadIdx.x == 0) {
            ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);
            ptx::bulk_store_commit();
            ptx::bulk_store_wait<0>();
        }
        __syncthreads();
    }
}
EXPORT_KERNEL(fence_before_the_write)

extern "C" __global__ void store_without_barrier(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    if (threadIdx.x != 0) return;
    ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);  // BUG: race on shared memory|uninitialised shared memory
    ptx::bulk_store_commit();
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(store_without_barrier)

extern "C" __global__ void store_of_half_a_tile(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    if (threadIdx.x != 0) return;
    for (int i = 0; i < 64; i++) tile[i] = x[i];
    ptx::fence_proxy_async();
    ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);  // BUG: uninitialised shared memory
    ptx::bulk_store_commit();
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(store_of_half_a_tile)

extern "C" __global__ void reused_before_it_is_read(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) ptx::bulk_store(out + 128 * blockIdx.x, tile, 512), ptx::bulk_store_commit();
    __syncthreads();
    tile[threadIdx.x] = 0.0f;  // BUG: bulk copy under way
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(reused_before_it_is_read)

/// Two stages, and a wait that leaves two groups under way.
extern "C" __global__ void waits_for_too_few_groups(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    for (int step = 0; step < 4; step++) {
        float* stage = tile + step % 2 * 128;
        if (threadIdx.x == 0) ptx::bulk_store_wait_read<2>();
        __syncthreads();
        stage[threadIdx.x] = x[threadIdx.x];  // BUG: bulk copy under way
        ptx::fence_proxy_async();
        __syncthreads();
        if (threadIdx.x == 0) ptx::bulk_store(out + (blockIdx.x * 4 + step) * 128, stage, 512), ptx::bulk_store_commit();
    }
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(waits_for_too_few_groups)

extern "C" __global__ void others_do_not_know_it_is_read(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) ptx::bulk_store(out + 128 * blockIdx.x, tile, 512), ptx::bulk_store_commit(), ptx::bulk_store_wait_read<0>();  // BUG: bulk copy under way|race on shared memory
    tile[threadIdx.x] = 0.0f;
}
EXPORT_KERNEL(others_do_not_know_it_is_read)

extern "C" __global__ void store_read_back_early(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) {
        ptx::bulk_store(out + 128 * blockIdx.x, tile, 512);
        ptx::bulk_store_commit();
        ptx::bulk_store_wait_read<0>();
    }
    __syncthreads();
    out[1024 + global_thread()] = out[global_thread()];  // BUG: bulk copy under way
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(store_read_back_early)

extern "C" __global__ void blocks_store_to_one_place(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x != 0) return;
    ptx::bulk_store(out, tile, 512);  // BUG: race on global memory
    ptx::bulk_store_commit();
    ptx::bulk_store_wait<0>();
}
EXPORT_KERNEL(blocks_store_to_one_place)

extern "C" __global__ void no_fence_after_init(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    SMEM_STATIC(u64, full, [1]);
    if (threadIdx.x == 0) ptx::mbarrier_init(full, 1);
    __syncthreads();
    if (threadIdx.x == 0) ptx::mbarrier_arrive_expect(full, 512), ptx::bulk_load(tile, x, 512, full);  // BUG: missing fence.mbarrier_init
    ptx::mbarrier_wait(full, 0);
}
EXPORT_KERNEL(no_fence_after_init)

extern "C" __global__ void no_barrier_after_init(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u64, full, [1]);
    if (threadIdx.x == 0) {
        ptx::mbarrier_init(full, 127);
        ptx::fence_mbarrier_init();
    } else {
        ptx::mbarrier_arrive(full);  // BUG: race on an mbarrier|uninitialised mbarrier
    }
}
EXPORT_KERNEL(no_barrier_after_init)

extern "C" __global__ void reads_the_word(const float* x, float* out, float* fresh) {
    MBARRIER(full, 1);
    out[global_thread()] = float(full[0]);  // BUG: mbarrier accessed as ordinary memory
}
EXPORT_KERNEL(reads_the_word)

extern "C" __global__ void load_over_an_mbarrier(const float* x, float* out, float* fresh) {
    SMEM_STATIC(u64, words, [64]);
    if (threadIdx.x != 0) return;
    ptx::mbarrier_init(words + 2, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_arrive_expect(words + 2, 512);
    ptx::bulk_load(words, x, 512, words + 2);  // BUG: mbarrier accessed as ordinary memory
}
EXPORT_KERNEL(load_over_an_mbarrier)

extern "C" __global__ void load_past_the_tile(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) ptx::bulk_load(tile + 1024 - 64, x, 512, full);  // BUG: out of bounds of shared memory
}
EXPORT_KERNEL(load_past_the_tile)

extern "C" __global__ void load_past_the_argument(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    MBARRIER(full, 1);
    if (threadIdx.x == 0) ptx::bulk_load(tile, x + 4096 - 64, 512, full);  // BUG: out of bounds
}
EXPORT_KERNEL(load_past_the_argument)

extern "C" __global__ void store_past_the_argument(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) ptx::bulk_store(out + 4096 - 64, tile, 512);  // BUG: out of bounds
}
EXPORT_KERNEL(store_past_the_argument)

extern "C" __global__ void store_to_the_input(const float* x, float* out, float* fresh) {
    SMEM_DYNAMIC(float, tile);
    tile[threadIdx.x] = x[threadIdx.x];
    ptx::fence_proxy_async();
    __syncthreads();
    if (threadIdx.x == 0) ptx::bulk_store(const_cast<float*>(x), tile, 512);  // BUG: write to a read-only argument
}
EXPORT_KERNEL(store_to_the_input)
