//! Hints about memory that will soon be read or written. Elsewhere than on x86 the processor is left to itself.

/// Bytes of a cache line.
pub(crate) const LINE: usize = 64;

/// Asks for a cache line in the L1 cache.
#[inline(always)]
pub(crate) fn prefetch_l1<A>(p: *const A) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, without effect on memory or faults at any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(p.cast::<i8>());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = p;
}

/// Asks for the cache lines, in the L2 cache, of `len` elements from `p` on, which need not exist.
#[inline(always)]
pub(crate) fn prefetch_l2<A>(p: *const A, len: usize) {
    for byte in (0..len * size_of::<A>()).step_by(LINE) {
        let line = p.cast::<i8>().wrapping_add(byte);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, without effect on memory or faults at any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T1>(line);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = line;
    }
}
