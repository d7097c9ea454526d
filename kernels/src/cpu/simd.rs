//! SIMD without repeating oneself: a kernel body is written once over [`Lanes`] and compiled for each instruction set.
//!
//! The `simd!` macro wraps a body in one function per instruction set, marked with its target features, and chooses
//! among them at run time. Everything in between is `#[inline(always)]`, so the body is compiled with those features.

mod functions;
mod isa;
mod wide;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use isa::{Isa, chosen, isa, set_isa};

use crate::Element;
use std::ops::{Add, Div, Mul, Neg, Sub};
use wide::Wide;

/// The widest register of any instruction set, in elements.
pub const MAX_LANES: usize = 16;

/// A real number the kernels accumulate in: `f32` or `f64`.
pub trait Real:
    num_traits::Float + num_traits::FloatConst + std::iter::Sum + bytemuck::Pod + Send + Sync + std::fmt::Debug
{
    /// Its registers under AVX-512.
    type Avx512: Lanes<Self>;
    /// Its registers under AVX2.
    type Avx2: Lanes<Self>;
    /// Its registers elsewhere.
    type Portable: Lanes<Self>;
    /// Rounds a double.
    fn of(x: f64) -> Self;
    /// Widens to a double.
    fn f64(self) -> f64;
    /// The error function.
    fn erf(self) -> Self;
}

impl Real for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx512 = x86::F32x16;
    #[cfg(target_arch = "x86_64")]
    type Avx2 = x86::F32x8;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx512 = Wide<f32>;
    #[cfg(not(target_arch = "x86_64"))]
    type Avx2 = Wide<f32>;
    type Portable = Wide<f32>;
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self as f64
    }
    fn erf(self) -> f32 {
        libm::erff(self)
    }
}

impl Real for f64 {
    type Avx512 = Wide<f64>;
    type Avx2 = Wide<f64>;
    type Portable = Wide<f64>;
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    fn erf(self) -> f64 {
        libm::erf(self)
    }
}

/// A register of `N` accumulators.
pub trait Lanes<A: Real>:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self> + Neg<Output = Self>
{
    /// Elements in the register; divides [`MAX_LANES`].
    const N: usize;
    /// All elements `a`.
    fn splat(a: A) -> Self;
    /// Reads `N` elements.
    ///
    /// # Safety
    /// `p` must be valid for reading `N` elements.
    unsafe fn load(p: *const A) -> Self;
    /// Writes `N` elements.
    ///
    /// # Safety
    /// `p` must be valid for writing `N` elements.
    unsafe fn store(self, p: *mut A);
    /// Reads and widens `N` elements.
    ///
    /// # Safety
    /// `p` must be valid for reading `N` elements.
    unsafe fn load_bf16(p: *const half::bf16) -> Self;
    /// Rounds to nearest even and writes `N` elements.
    ///
    /// # Safety
    /// `p` must be valid for writing `N` elements.
    unsafe fn store_bf16(self, p: *mut half::bf16);
    /// `self · b + c`, fused where the processor can.
    fn fma(self, b: Self, c: Self) -> Self;
    /// The larger of each pair; `other` where either is NaN.
    fn max(self, other: Self) -> Self;
    /// The smaller of each pair; `other` where either is NaN.
    fn min(self, other: Self) -> Self;
    /// Square roots.
    fn sqrt(self) -> Self;
    /// `eˣ`, within 2 units in the last place; 0 for −∞, NaN for NaN.
    fn exp(self) -> Self;
    /// The error function, within 2e-7 in f32.
    fn erf(self) -> Self;
    /// `x` where `self > bound`, else `y`, also where one of them is NaN.
    fn select_gt(self, bound: Self, x: Self, y: Self) -> Self;
    /// The sum of the elements, in a fixed order.
    fn sum(self) -> A;
    /// The largest element; unspecified if one is NaN.
    fn largest(self) -> A;

    /// All elements zero.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(A::zero())
    }

    /// Applies `f` to each element, one by one: for functions that are rare on hot paths.
    #[inline(always)]
    fn map(self, f: impl Fn(A) -> A) -> Self {
        let mut all = [A::zero(); MAX_LANES];
        // SAFETY: the array holds MAX_LANES ≥ N elements.
        unsafe {
            self.store(all.as_mut_ptr());
            all.iter_mut().take(Self::N).for_each(|a| *a = f(*a));
            Self::load(all.as_ptr())
        }
    }

    /// `1 / (1 + e⁻ˣ)`.
    #[inline(always)]
    fn sigmoid(self) -> Self {
        Self::splat(A::one()) / (Self::splat(A::one()) + (-self).exp())
    }

    /// `tanh x = 2·sigmoid(2x) − 1`.
    #[inline(always)]
    fn tanh(self) -> Self {
        let two = Self::splat(A::of(2.0));
        two * (two * self).sigmoid() - Self::splat(A::one())
    }
}

/// Rounds a single to bf16, to nearest even; NaN stays NaN.
#[inline(always)]
pub(crate) fn round_bf16(x: f32) -> half::bf16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    half::bf16::from_bits(if x.is_nan() { 0x7fc0 } else { rounded as u16 })
}

/// Loads the first `n ≤ V::N` elements of a slice's tail, the rest filled with `fill`.
#[inline(always)]
pub(crate) fn load_tail<T: Element, V: Lanes<T::Acc>>(tail: &[T], fill: T::Acc) -> V {
    let mut all = [fill; MAX_LANES];
    for (a, x) in all.iter_mut().zip(tail) {
        *a = x.widen();
    }
    // SAFETY: the array holds MAX_LANES ≥ V::N elements.
    unsafe { V::load(all.as_ptr()) }
}

/// Stores the first `tail.len() ≤ V::N` elements.
#[inline(always)]
pub(crate) fn store_tail<T: Element, V: Lanes<T::Acc>>(tail: &mut [T], v: V) {
    let mut all = [<T::Acc as num_traits::Zero>::zero(); MAX_LANES];
    // SAFETY: the array holds MAX_LANES ≥ V::N elements.
    unsafe { v.store(all.as_mut_ptr()) }
    for (x, a) in tail.iter_mut().zip(all) {
        *x = T::narrow(a);
    }
}

/// Defines a function compiled for each instruction set and chosen at run time.
///
/// ```text
/// simd! {
///     /// Sum of a row.
///     pub(crate) fn row_sum<V; T: Element>(x: &[T]) -> T::Acc { … body over V: Lanes<T::Acc> … }
/// }
/// ```
/// `V` is the register type of the first type parameter's accumulator.
macro_rules! simd {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident<$v:ident; $t:ident: Element $(, $u:ident: $bound:path)*>
       ($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block)*) => {$(
        $(#[$meta])*
        $vis fn $name<$t: $crate::Element $(, $u: $bound)*>($($arg: $ty),*) $(-> $ret)? {
            #[allow(clippy::extra_unused_type_parameters)]
            #[inline(always)]
            fn body<$v: $crate::cpu::simd::Lanes<$t::Acc>, $t: $crate::Element $(, $u: $bound)*>($($arg: $ty),*) $(-> $ret)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
            fn avx512<$t: $crate::Element $(, $u: $bound)*>($($arg: $ty),*) $(-> $ret)? {
                body::<<$t::Acc as $crate::cpu::simd::Real>::Avx512, $t $(, $u)*>($($arg),*)
            }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2<$t: $crate::Element $(, $u: $bound)*>($($arg: $ty),*) $(-> $ret)? {
                body::<<$t::Acc as $crate::cpu::simd::Real>::Avx2, $t $(, $u)*>($($arg),*)
            }
            match $crate::cpu::simd::isa() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` returns these only after asking the processor for the features.
                isa if isa >= $crate::cpu::simd::Isa::Avx512 => unsafe { avx512::<$t $(, $u)*>($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: as above.
                $crate::cpu::simd::Isa::Avx2 => unsafe { avx2::<$t $(, $u)*>($($arg),*) },
                _ => body::<<$t::Acc as $crate::cpu::simd::Real>::Portable, $t $(, $u)*>($($arg),*),
            }
        }
    )*};
}
pub(crate) use simd;

#[cfg(test)]
mod tests {
    use super::*;

    simd! {
        fn exp_all<V; T: Element>(x: &[T], y: &mut [T]) {
            for (x, y) in x.chunks(V::N).zip(y.chunks_mut(V::N)) {
                store_tail(y, load_tail::<T, V>(x, T::Acc::of(0.0)).exp());
            }
        }
        fn erf_all<V; T: Element>(x: &[T], y: &mut [T]) {
            for (x, y) in x.chunks(V::N).zip(y.chunks_mut(V::N)) {
                store_tail(y, load_tail::<T, V>(x, T::Acc::of(0.0)).erf());
            }
        }
        fn sum_and_largest<V; T: Element>(x: &[T]) -> (T::Acc, T::Acc) {
            let v = load_tail::<T, V>(&x[..V::N], T::Acc::of(0.0));
            (v.sum(), v.largest())
        }
    }

    #[test]
    fn exp_and_erf_follow_the_library() {
        let x: Vec<f32> =
            (-1000..1000).map(|i| i as f32 * 0.1).chain([f32::NEG_INFINITY, -88.0, 88.7, -87.3]).collect();
        let mut y = vec![0.0; x.len()];
        exp_all(&x, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let exact = (x.clamp(-1e4, 88.722_83) as f64).exp();
            assert!(((*y as f64) - exact).abs() <= 3e-7 * exact + 3e-38, "exp({x}) = {y}, expected {exact}");
        }
        exp_all(&[f32::NAN; 16], &mut y[..16]);
        assert!(y[..16].iter().all(|y| y.is_nan()));
        erf_all(&x, &mut y);
        for (x, y) in x.iter().zip(&y).filter(|(x, _)| x.is_finite()) {
            assert!((*y - libm::erff(*x)).abs() < 3e-7, "erf({x}) = {y}");
        }
    }

    #[test]
    fn reductions_see_every_lane() {
        let x: Vec<f32> = (0..16).map(|i| (i * 7 % 16) as f32).collect();
        let (sum, largest) = sum_and_largest(&x);
        let n = if isa() >= Isa::Avx512 { 16 } else { 8 };
        assert_eq!(sum, x[..n].iter().sum::<f32>());
        assert_eq!(largest, x[..n].iter().copied().fold(0.0, f32::max));
    }

    #[test]
    fn bf16_rounds_to_nearest_even() {
        for x in [1.0f32, 1.003_906_3, 1.011_718_8, -3.3, 1e-40, 3.4e38, f32::INFINITY] {
            assert_eq!(round_bf16(x), half::bf16::from_f32(x), "{x}");
        }
        assert!(round_bf16(f32::NAN).is_nan());
    }
}
