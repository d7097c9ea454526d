// The instructions that GPUs before sm_90 lack: mbarriers, and bulk copies in the asynchronous proxy. Part of ptx.cuh; where
// they do not exist a kernel that calls them does not compile.
//
// An mbarrier is 8 bytes of shared memory. A phase of it completes when as many threads have arrived as its count says and
// as many bytes as they announced have come; phases alternate between the parities 0 and 1, starting with 0.
#pragma once

#if defined(LENSLET_EMULATED) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
namespace ptx {

/// By one thread; the others use it after a barrier, bulk copies after fence_mbarrier_init and a barrier.
__device__ inline void mbarrier_init(u64* at, u32 count PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(at));
        asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(address), "r"(count) : "memory"),
        emu::mbarrier_init(at, count PTX_PLACE));
}

/// Makes its memory ordinary again, once nobody uses it.
__device__ inline void mbarrier_invalidate(u64* at PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(at));
        asm volatile("mbarrier.inval.shared::cta.b64 [%0];" ::"r"(address) : "memory"), emu::mbarrier_invalidate(at PTX_PLACE));
}

/// Shows bulk copies the mbarriers that the thread has initialised.
__device__ inline void fence_mbarrier_init() {
    PTX(asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"), emu::fence_mbarrier_init());
}

/// Whoever waits for the phase sees what the thread did before.
__device__ inline void mbarrier_arrive(u64* at PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(at));
        asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(address) : "memory"), emu::mbarrier_arrive(at PTX_PLACE));
}

/// Arrives, and announces `bytes` of copies that the phase waits for.
__device__ inline void mbarrier_arrive_expect(u64* at, u32 bytes PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(at));
        asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(address), "r"(bytes) : "memory"),
        emu::mbarrier_arrive_expect(at, bytes PTX_PLACE));
}

/// Waits until the phase of this parity is complete: at once if the phase that runs has the other one. So a wait for parity
/// 1 passes at an mbarrier that is new.
__device__ inline void mbarrier_wait(u64* at, u32 parity PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(at)); u32 done; do {
        asm volatile("{\n.reg .pred done;\nmbarrier.try_wait.parity.shared::cta.b64 done, [%1], %2;\nselp.u32 %0, 1, 0, done;\n}"
                     : "=r"(done) : "r"(address), "r"(parity) : "memory");
    } while (!done), emu::mbarrier_wait(at, parity PTX_PLACE));
}

/// Shows bulk copies, and whatever else reads shared memory on its own, what the thread has written there. By every thread
/// that wrote, before the barrier after which the copy starts.
__device__ inline void fence_proxy_async() {
    PTX(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"), emu::fence_proxy_async());
}

/// Copies `bytes` from global to shared memory in the background and tells the mbarrier when they have come. Addresses and
/// size are multiples of 16. One thread does it for all.
__device__ inline void bulk_load(void* to, const void* from, u32 bytes, u64* mbarrier PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(to)); u32 tell = u32(__cvta_generic_to_shared(mbarrier));
        asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(address),
                     "l"(from), "r"(bytes), "r"(tell) : "memory"),
        emu::bulk_load(to, from, bytes, mbarrier PTX_PLACE));
}

/// Copies `bytes` from shared to global memory in the background, as part of the thread's open group. Addresses and size are
/// multiples of 16.
__device__ inline void bulk_store(void* to, const void* from, u32 bytes PTX_CALLER) {
    PTX(u32 address = u32(__cvta_generic_to_shared(from));
        asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(address), "r"(bytes) : "memory"),
        emu::bulk_store(to, from, bytes PTX_PLACE));
}

/// Closes the group of bulk stores the thread has started.
__device__ inline void bulk_store_commit() { PTX(asm volatile("cp.async.bulk.commit_group;" ::: "memory"), emu::bulk_commit()); }

/// Waits until at most the N latest groups of the thread's bulk stores are under way.
template <int N> __device__ inline void bulk_store_wait() {
    PTX(asm volatile("cp.async.bulk.wait_group %0;" ::"n"(N) : "memory"), emu::bulk_wait(N, false));
}

/// As bulk_store_wait, for what the stores read alone: their shared memory may be written again, after a barrier also by
/// others. Before the thread ends it must have waited so for all.
template <int N> __device__ inline void bulk_store_wait_read() {
    PTX(asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(N) : "memory"), emu::bulk_wait(N, true));
}

}  // namespace ptx
#endif
