//! Registers of AVX2 and AVX-512. Only the functions that `simd!` marks with the target features construct and use
//! them, after asking the processor: that is what makes the intrinsics below sound.

use super::Lanes;
use super::functions::{erf_f32, exp_f32};
use half::bf16;
use std::arch::x86_64::*;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Sixteen singles in an AVX-512 register.
#[derive(Debug, Clone, Copy)]
pub struct F32x16(pub(crate) __m512);

/// Eight singles in an AVX register.
#[derive(Debug, Clone, Copy)]
pub struct F32x8(pub(crate) __m256);

macro_rules! operators {
    ($t:ident: $($trait:ident $method:ident $intrinsic:ident),*) => {
        $(impl $trait for $t {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                // SAFETY: values of this type exist only where its instruction set is enabled.
                $t(unsafe { $intrinsic(self.0, other.0) })
            }
        })*
        impl Neg for $t {
            type Output = Self;
            #[inline(always)]
            fn neg(self) -> Self {
                Self::splat(-0.0) - self
            }
        }
    };
}
operators!(F32x16: Add add _mm512_add_ps, Sub sub _mm512_sub_ps, Mul mul _mm512_mul_ps, Div div _mm512_div_ps);
operators!(F32x8: Add add _mm256_add_ps, Sub sub _mm256_sub_ps, Mul mul _mm256_mul_ps, Div div _mm256_div_ps);

macro_rules! common_lanes {
    ($n:literal, $splat:ident, $load:ident, $store:ident, $fma:ident, $max:ident, $min:ident, $sqrt:ident) => {
        const N: usize = $n;
        #[inline(always)]
        fn splat(a: f32) -> Self {
            // SAFETY: reached only from code compiled for this instruction set.
            Self(unsafe { $splat(a) })
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self {
            // SAFETY: the caller vouches for the elements; unaligned access is allowed.
            Self(unsafe { $load(p) })
        }
        #[inline(always)]
        unsafe fn store(self, p: *mut f32) {
            // SAFETY: the caller vouches for the elements; unaligned access is allowed.
            unsafe { $store(p, self.0) }
        }
        #[inline(always)]
        fn fma(self, b: Self, c: Self) -> Self {
            // SAFETY: values of this type exist only where its instruction set is enabled.
            Self(unsafe { $fma(self.0, b.0, c.0) })
        }
        #[inline(always)]
        fn max(self, other: Self) -> Self {
            // SAFETY: as for `fma`.
            Self(unsafe { $max(self.0, other.0) })
        }
        #[inline(always)]
        fn min(self, other: Self) -> Self {
            // SAFETY: as for `fma`.
            Self(unsafe { $min(self.0, other.0) })
        }
        #[inline(always)]
        fn sqrt(self) -> Self {
            // SAFETY: as for `fma`.
            Self(unsafe { $sqrt(self.0) })
        }
        #[inline(always)]
        fn erf(self) -> Self {
            erf_f32(self)
        }
    };
}

impl Lanes<f32> for F32x16 {
    common_lanes!(
        16,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_fmadd_ps,
        _mm512_max_ps,
        _mm512_min_ps,
        _mm512_sqrt_ps
    );

    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the caller vouches for sixteen elements.
        Self(unsafe { _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())), 16)) })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        // SAFETY: the caller vouches for sixteen elements.
        unsafe {
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
            let rounded =
                _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
            let nan = _mm512_cmp_ps_mask(self.0, self.0, _CMP_UNORD_Q);
            let result = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7fc0));
            _mm256_storeu_si256(p.cast(), _mm512_cvtepi32_epi16(result));
        }
    }
    #[inline(always)]
    fn exp(self) -> Self {
        exp_f32(
            self,
            // SAFETY: values of this type exist only where AVX-512 is enabled.
            |v| Self(unsafe { _mm512_roundscale_ps(v.0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) }),
            // SAFETY: as above.
            |p, n| Self(unsafe { _mm512_scalef_ps(p.0, n.0) }),
        )
    }
    #[inline(always)]
    fn select_gt(self, bound: Self, x: Self, y: Self) -> Self {
        // SAFETY: values of this type exist only where AVX-512 is enabled.
        Self(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask(self.0, bound.0, _CMP_GT_OQ), y.0, x.0) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        // SAFETY: as for `select_gt`.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: as for `select_gt`.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
}

impl Lanes<f32> for F32x8 {
    common_lanes!(
        8,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_fmadd_ps,
        _mm256_max_ps,
        _mm256_min_ps,
        _mm256_sqrt_ps
    );

    #[inline(always)]
    unsafe fn load_bf16(p: *const bf16) -> Self {
        // SAFETY: the caller vouches for eight elements.
        Self(unsafe { _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())), 16)) })
    }
    #[inline(always)]
    unsafe fn store_bf16(self, p: *mut bf16) {
        let mut all = [0.0; 8];
        // SAFETY: the caller vouches for eight elements of `p`; `all` has eight.
        unsafe {
            self.store(all.as_mut_ptr());
            p.cast::<[bf16; 8]>().write_unaligned(all.map(super::round_bf16));
        }
    }
    #[inline(always)]
    fn exp(self) -> Self {
        exp_f32(
            self,
            // SAFETY: values of this type exist only where AVX2 is enabled.
            |v| Self(unsafe { _mm256_round_ps(v.0, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC) }),
            |p, n| {
                // 2ⁿ might be infinite, 2ⁿ⁻¹ is not.
                let below = n - Self::splat(1.0);
                // SAFETY: as above.
                let power = Self(unsafe {
                    _mm256_castsi256_ps(_mm256_slli_epi32(
                        _mm256_add_epi32(_mm256_cvtps_epi32(below.0), _mm256_set1_epi32(127)),
                        23,
                    ))
                });
                p * power * Self::splat(2.0)
            },
        )
    }
    #[inline(always)]
    fn select_gt(self, bound: Self, x: Self, y: Self) -> Self {
        // SAFETY: values of this type exist only where AVX2 is enabled.
        Self(unsafe { _mm256_blendv_ps(y.0, x.0, _mm256_cmp_ps(self.0, bound.0, _CMP_GT_OQ)) })
    }
    #[inline(always)]
    fn sum(self) -> f32 {
        let mut a = [0.0f32; 8];
        // SAFETY: `a` has eight elements.
        unsafe { self.store(a.as_mut_ptr()) }
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        let mut a = [0.0f32; 8];
        // SAFETY: `a` has eight elements.
        unsafe { self.store(a.as_mut_ptr()) }
        a.iter().fold(f32::NEG_INFINITY, |m, &x| if x > m { x } else { m })
    }
}
