//! Transposing blocks of eight rows: with shuffles in single precision, else element by element.

#[cfg(target_arch = "x86_64")]
use crate::cpu::simd::{Isa, isa};
use crate::cpu::simd::{MAX_LANES, Real};

/// Rows and columns of a block.
pub(super) const SIDE: usize = 8;

/// Writes columns `first..first + SIDE` of `block` as rows of `out`, `width` elements apart.
#[inline(always)]
pub(super) fn transpose<A: Real>(block: &[[A; MAX_LANES]; SIDE], first: usize, out: &mut [A], width: usize) {
    assert!(first + SIDE <= MAX_LANES && out.len() >= (SIDE - 1) * width + SIDE);
    #[cfg(target_arch = "x86_64")]
    if size_of::<A>() == size_of::<f32>() && isa() >= Isa::Avx2 {
        // SAFETY: the processor has AVX2, and the only four-byte `Real` is f32; the assertion bounds all rows.
        return unsafe { shuffle(block.as_ptr().cast::<f32>().add(first), out.as_mut_ptr().cast(), width) };
    }
    for j in 0..SIDE {
        for (i, row) in block.iter().enumerate() {
            out[j * width + i] = row[first + j];
        }
    }
}

/// Eight rows `MAX_LANES` apart to eight rows `width` apart: pairs, then fours, then halves change places.
///
/// # Safety
/// The processor has AVX2; `x` and `out` hold eight such rows of eight elements.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn shuffle(x: *const f32, out: *mut f32, width: usize) {
    use std::arch::x86_64::*;
    // SAFETY: the caller's promise.
    unsafe {
        let mut fours = [_mm256_setzero_ps(); SIDE];
        for half in 0..2 {
            // Rows i and i + 4 share a register: their halves need not change places later.
            let row = |i: usize| {
                let low = _mm_loadu_ps(x.add(i * MAX_LANES + 4 * half));
                let high = _mm_loadu_ps(x.add((i + 4) * MAX_LANES + 4 * half));
                _mm256_insertf128_ps(_mm256_castps128_ps256(low), high, 1)
            };
            let (a, b, c, d) = (row(0), row(1), row(2), row(3));
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
            fours[4 * half] = _mm256_shuffle_ps(ab_low, cd_low, 0b01_00_01_00);
            fours[4 * half + 1] = _mm256_shuffle_ps(ab_low, cd_low, 0b11_10_11_10);
            fours[4 * half + 2] = _mm256_shuffle_ps(ab_high, cd_high, 0b01_00_01_00);
            fours[4 * half + 3] = _mm256_shuffle_ps(ab_high, cd_high, 0b11_10_11_10);
        }
        for (j, row) in fours.into_iter().enumerate() {
            _mm256_storeu_ps(out.add(j * width), row);
        }
    }
}
