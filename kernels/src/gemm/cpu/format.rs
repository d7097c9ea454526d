//! How panels hold the values of `k`, and the micro-kernel that goes with it.

use super::amx;
use super::peak::chains;
use super::tile::{self, Left, Step};
use crate::Element;
use crate::cpu::simd::{Lanes, Real};

/// A format of panels. Its unit, a step of one row or column, has the size of the accumulator.
pub(super) trait Format: Copy + Send + Sync + 'static {
    /// Values of `k` in a step: 1 widened to the accumulator, or 2 of bf16 in the bits of a single.
    const PER_STEP: usize;
    /// Panels are filled with zeros up to a multiple of so many steps; row-major `a` has a multiple of so many rows.
    const GROUP: usize;
    /// Whether the micro-kernel reads `a` row by row only (else step by step from panels too).
    const ROW_MAJOR: bool;
    /// What a thread holds while it multiplies.
    type Session;

    /// Prepares this thread.
    fn begin() -> Self::Session;

    /// `tile (R, vectors·V::N) = [tile +] a·b`; rows beyond those `a` has are left with arbitrary sums.
    ///
    /// # Safety
    /// `a` and `b` must hold the step's rows and columns, `tile` `R` rows; `1 ≤ vectors ≤ 3`.
    unsafe fn multiply<A: Real, V: Lanes<A>, const R: usize>(session: &Self::Session, a: Left<A>, step: Step<A>);

    /// The micro-kernel's multiply-adds without its memory, `rounds` of them on independent sums; the floating-point operations done.
    fn saturate<A: Real, V: Lanes<A>>(rounds: usize) -> f64;

    /// Steps that `k` values take.
    #[inline(always)]
    fn steps(k: usize) -> usize {
        k.div_ceil(Self::PER_STEP).next_multiple_of(Self::GROUP)
    }
}

/// Widened values and multiply-adds.
#[derive(Clone, Copy)]
pub(super) struct Singles;

/// Pairs of bf16 and the dot products of AVX512_BF16.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

/// Pairs of bf16 and the tile products of AMX.
#[derive(Clone, Copy)]
pub(super) struct Amx;

impl Format for Singles {
    const PER_STEP: usize = 1;
    const GROUP: usize = 1;
    const ROW_MAJOR: bool = false;
    type Session = ();

    #[inline(always)]
    fn begin() {}

    #[inline(always)]
    unsafe fn multiply<A: Real, V: Lanes<A>, const R: usize>(_: &(), a: Left<A>, step: Step<A>) {
        // SAFETY: the caller's promise.
        unsafe { tile::multiply::<A, V, R>(a, step, |a, b, sum| a.fma(b, sum)) }
    }

    #[inline(always)]
    fn saturate<A: Real, V: Lanes<A>>(rounds: usize) -> f64 {
        chains(rounds, Self::PER_STEP, |a: V, b, sum| a.fma(b, sum))
    }
}

impl Format for Pairs {
    const PER_STEP: usize = 2;
    const GROUP: usize = 1;
    const ROW_MAJOR: bool = false;
    type Session = ();

    #[inline(always)]
    fn begin() {}

    #[inline(always)]
    unsafe fn multiply<A: Real, V: Lanes<A>, const R: usize>(_: &(), a: Left<A>, step: Step<A>) {
        // SAFETY: the caller's promise.
        unsafe { tile::multiply::<A, V, R>(a, step, dot_pairs) }
    }

    #[inline(always)]
    fn saturate<A: Real, V: Lanes<A>>(rounds: usize) -> f64 {
        chains(rounds, Self::PER_STEP, dot_pairs::<A, V>)
    }
}

impl Format for Amx {
    const PER_STEP: usize = 2;
    const GROUP: usize = amx::STEPS;
    const ROW_MAJOR: bool = true;
    type Session = amx::Tiles;

    #[inline(always)]
    fn begin() -> amx::Tiles {
        amx::Tiles::new()
    }

    #[inline(always)]
    unsafe fn multiply<A: Real, V: Lanes<A>, const R: usize>(session: &amx::Tiles, a: Left<A>, step: Step<A>) {
        let Left::Rows { first, stride, rows } = a else {
            unreachable!("tiles read rows");
        };
        let block = amx::Block {
            a: first.cast(),
            a_stride: stride * size_of::<A>(),
            b: step.b.cast(),
            b_stride: step.b_stride * size_of::<A>(),
            sums: step.tile.cast(),
            sums_stride: step.tile_stride * size_of::<A>(),
            groups: step.steps / amx::STEPS,
            fresh: step.fresh,
            prefetch: step.prefetch.cast(),
        };
        // SAFETY: the caller's promise; `a` has whole groups of rows, `b` whole groups of steps.
        unsafe { session.multiply(rows.div_ceil(Self::GROUP), step.vectors, block) }
    }

    fn saturate<A: Real, V: Lanes<A>>(rounds: usize) -> f64 {
        amx::Tiles::new().saturate(rounds)
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn dot_pairs<A: Real, V: Lanes<A>>(a: V, b: V, sum: V) -> V {
    use std::arch::x86_64::{__m512, __m512bh, _mm512_dpbf16_ps};
    assert!(size_of::<V>() == 64, "pairs live in AVX-512 registers");
    // SAFETY: all three are plain 64-byte registers, and this format is used only where AVX512_BF16 is.
    unsafe {
        let a = std::mem::transmute_copy::<V, __m512bh>(&a);
        let b = std::mem::transmute_copy::<V, __m512bh>(&b);
        let sum = std::mem::transmute_copy::<V, __m512>(&sum);
        std::mem::transmute_copy(&_mm512_dpbf16_ps(sum, a, b))
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dot_pairs<A: Real, V: Lanes<A>>(_: V, _: V, _: V) -> V {
    unreachable!("pairs are an x86 format")
}

/// Two elements of 16 bits in the bits of one accumulator; meaningless for other types, which never ask for it.
#[inline(always)]
pub(super) fn pair<T: Element>(low: T, high: T) -> T::Acc {
    let bits = |x: T| {
        let bytes = bytemuck::bytes_of(&x);
        u64::from(u16::from_le_bytes([bytes[0], bytes[1]]))
    };
    let both = bits(low) | bits(high) << 16;
    bytemuck::pod_read_unaligned(&both.to_le_bytes()[..size_of::<T::Acc>()])
}
