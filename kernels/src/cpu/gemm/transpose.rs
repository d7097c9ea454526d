//! Transposing squares of 16×16 steps in registers.

use super::format::Format;
use crate::Element;
use crate::cpu::simd::{Lanes, Real};

/// Rows and columns of a square.
pub(super) const SIZE: usize = 16;

/// Whether registers hold a row of a square of 4-byte steps.
#[inline(always)]
pub(super) const fn fits<V: Lanes<A>, A: Real>() -> bool {
    V::N == SIZE && size_of::<V>() == 64 && cfg!(target_arch = "x86_64")
}

/// `to[step·stride + i] = rows[i][step]` for sixteen steps of sixteen rows; only where [`fits`] says so.
#[inline(always)]
pub(super) fn square<V: Lanes<T::Acc>, T: Element, F: Format>(rows: [&[T]; SIZE], to: &mut [T::Acc], stride: usize) {
    let mut lines = [V::zero(); SIZE];
    for i in 0..SIZE {
        assert!(rows[i].len() == SIZE * F::PER_STEP);
        // SAFETY: the row holds sixteen steps: sixteen elements to widen, or thirty-two of two bytes, 64 in all.
        lines[i] = unsafe {
            match F::PER_STEP {
                1 => T::load::<V>(rows[i].as_ptr()),
                _ => V::load(rows[i].as_ptr().cast()),
            }
        };
    }
    store(turned(lines), to, stride);
}

/// `to[i·stride + step] = from[step·16 + i]`.
#[inline(always)]
pub(super) fn turn<V: Lanes<A>, A: Real>(from: &[A; SIZE * SIZE], to: &mut [A], stride: usize) {
    let mut lines = [V::zero(); SIZE];
    for (line, from) in lines.iter_mut().zip(from.chunks_exact(SIZE)) {
        // SAFETY: the chunk holds sixteen elements, V::N of them at least where this is used.
        *line = unsafe { V::load(from.as_ptr()) };
    }
    store(turned(lines), to, stride);
}

#[inline(always)]
fn store<V: Lanes<A>, A: Real>(lines: [V; SIZE], to: &mut [A], stride: usize) {
    for (i, line) in lines.into_iter().enumerate() {
        let to = &mut to[i * stride..][..V::N];
        // SAFETY: the slice holds a register.
        unsafe { line.store(to.as_mut_ptr()) }
    }
}

/// The transpose of sixteen registers of sixteen.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned<V: Lanes<A>, A: Real>(lines: [V; SIZE]) -> [V; SIZE] {
    use std::arch::x86_64::*;
    assert!(fits::<V, A>());
    // SAFETY: the registers are 64 plain bytes, and this is reached only from code compiled for AVX-512.
    unsafe {
        let r: [__m512; SIZE] = std::mem::transmute_copy(&lines);
        let mut t = r;
        for i in (0..SIZE).step_by(2) {
            t[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
            t[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
        }
        let mut quads = t;
        for i in (0..SIZE).step_by(4) {
            let double = |x: __m512| _mm512_castps_pd(x);
            quads[i] = _mm512_castpd_ps(_mm512_unpacklo_pd(double(t[i]), double(t[i + 2])));
            quads[i + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(double(t[i]), double(t[i + 2])));
            quads[i + 2] = _mm512_castpd_ps(_mm512_unpacklo_pd(double(t[i + 1]), double(t[i + 3])));
            quads[i + 3] = _mm512_castpd_ps(_mm512_unpackhi_pd(double(t[i + 1]), double(t[i + 3])));
        }
        let mut out = quads;
        for i in 0..4 {
            let even_low = _mm512_shuffle_f32x4::<0x88>(quads[i], quads[i + 4]);
            let odd_low = _mm512_shuffle_f32x4::<0xdd>(quads[i], quads[i + 4]);
            let even_high = _mm512_shuffle_f32x4::<0x88>(quads[i + 8], quads[i + 12]);
            let odd_high = _mm512_shuffle_f32x4::<0xdd>(quads[i + 8], quads[i + 12]);
            out[i] = _mm512_shuffle_f32x4::<0x88>(even_low, even_high);
            out[i + 4] = _mm512_shuffle_f32x4::<0x88>(odd_low, odd_high);
            out[i + 8] = _mm512_shuffle_f32x4::<0xdd>(even_low, even_high);
            out[i + 12] = _mm512_shuffle_f32x4::<0xdd>(odd_low, odd_high);
        }
        std::mem::transmute_copy(&out)
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn turned<V: Lanes<A>, A: Real>(_: [V; SIZE]) -> [V; SIZE] {
    unreachable!("squares are turned under AVX-512 only")
}
