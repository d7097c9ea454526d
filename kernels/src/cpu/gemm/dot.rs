//! The one step of the micro-kernel: a multiply-add, of singles or of pairs of bf16.

use crate::Element;
use crate::cpu::simd::{Lanes, Real};

/// Two elements of 16 bits in the bits of one accumulator; meaningless for other types, which never ask for it.
#[inline(always)]
pub(super) fn pair<T: Element>(low: T, high: T) -> T::Acc {
    let bits = |x: T| {
        bytemuck::bytes_of(&x)
            .iter()
            .rev()
            .fold(0u64, |bits, &byte| bits << 8 | u64::from(byte))
    };
    let both = bits(low) | bits(high) << 16;
    bytemuck::pod_read_unaligned(&both.to_le_bytes()[..size_of::<T::Acc>()])
}

/// `sum + a·b`, or with `PAIRS` the sum of both products of each pair.
#[inline(always)]
pub(super) fn dot<A: Real, V: Lanes<A>, const PAIRS: bool>(a: V, b: V, sum: V) -> V {
    #[cfg(target_arch = "x86_64")]
    if PAIRS {
        return dot_pairs(a, b, sum);
    }
    a.fma(b, sum)
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn dot_pairs<A: Real, V: Lanes<A>>(a: V, b: V, sum: V) -> V {
    use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
    assert!(size_of::<V>() == 64, "pairs live in AVX-512 registers");
    // SAFETY: all three are plain 64-byte registers, and PAIRS code runs only where AVX512_BF16 is.
    unsafe {
        let a = std::mem::transmute_copy::<V, __m512bh>(&a);
        let b = std::mem::transmute_copy::<V, __m512bh>(&b);
        let sum = std::mem::transmute_copy::<V, __m512>(&sum);
        std::mem::transmute_copy(&_mm512_dpbf16_ps(sum, a, b))
    }
}
