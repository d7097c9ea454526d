//! Transposing squares of 4-byte steps in registers: 16×16 under AVX-512, 8×8 under AVX2.

use super::simd::{Isa, Lanes, Real, isa};

/// Rows and columns of the largest square.
pub(crate) const SIZE: usize = 16;

/// Whether registers hold a row of a square of `V::N` 4-byte steps.
#[inline(always)]
pub(crate) fn fits<V: Lanes<A>, A: Real>() -> bool {
    let wide = V::N == SIZE && size_of::<V>() == 64;
    // Plain Rust's groups are as large as AVX2's registers.
    let narrow = V::N == SIZE / 2 && size_of::<V>() == 32 && isa() >= Isa::Avx2;
    cfg!(target_arch = "x86_64") && (wide || narrow)
}

/// `to[j·stride + i] = row(i)[j]` for `V::N` rows of as many steps; only where [`fits`] says so.
#[inline(always)]
pub(crate) fn square<V: Lanes<A>, A: Real>(row: impl Fn(usize) -> V, to: &mut [A], stride: usize) {
    let mut lines = [V::zero(); SIZE];
    for (i, line) in lines.iter_mut().enumerate().take(V::N) {
        *line = row(i);
    }
    for (j, line) in turned(lines).into_iter().enumerate().take(V::N) {
        let to = &mut to[j * stride..][..V::N];
        // SAFETY: the slice holds a register.
        unsafe { line.store(to.as_mut_ptr()) }
    }
}

/// The transpose of as many registers as each has elements.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned<V: Lanes<A>, A: Real>(lines: [V; SIZE]) -> [V; SIZE] {
    debug_assert!(fits::<V, A>());
    match V::N {
        SIZE => turned_16(lines),
        _ => turned_8(lines),
    }
}

/// The transpose of eight registers of eight: pairs, then fours, then halves change places.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned_8<V: Copy>(mut lines: [V; SIZE]) -> [V; SIZE] {
    use std::arch::x86_64::*;
    assert!(size_of::<V>() == 32);
    // SAFETY: the registers are 32 plain bytes, and this is reached only from code compiled for AVX2.
    unsafe {
        let r: [__m256; SIZE] = std::mem::transmute_copy(&lines);
        let mut fours = [_mm256_setzero_ps(); 8];
        for i in (0..8).step_by(4) {
            let (ab_low, ab_high) = (_mm256_unpacklo_ps(r[i], r[i + 1]), _mm256_unpackhi_ps(r[i], r[i + 1]));
            let (cd_low, cd_high) = (_mm256_unpacklo_ps(r[i + 2], r[i + 3]), _mm256_unpackhi_ps(r[i + 2], r[i + 3]));
            fours[i] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_low, cd_low);
            fours[i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_low, cd_low);
            fours[i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high);
            fours[i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high);
        }
        for i in 0..4 {
            let low = _mm256_permute2f128_ps::<0x20>(fours[i], fours[i + 4]);
            let high = _mm256_permute2f128_ps::<0x31>(fours[i], fours[i + 4]);
            lines[i] = std::mem::transmute_copy(&low);
            lines[i + 4] = std::mem::transmute_copy(&high);
        }
    }
    lines
}

/// The transpose of sixteen registers of sixteen.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn turned_16<V: Copy>(lines: [V; SIZE]) -> [V; SIZE] {
    use std::arch::x86_64::*;
    assert!(size_of::<V>() == 64);
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
    unreachable!("squares are turned on x86-64 only")
}
