//! SIMD without repeating oneself: a kernel body is written once over [`Lanes`] and compiled for each instruction set.
//!
//! The `simd!` macro wraps a body in one function per instruction set, marked with its target features, and chooses
//! among them at run time. Everything in between is `#[inline(always)]`, so the body is compiled with those features.

#[cfg(target_arch = "x86_64")]
pub mod x86;

use crate::Element;
use std::ops::{Add, Div, Mul, Neg, Sub};
use std::sync::atomic::{AtomicU8, Ordering};

/// The widest register of any instruction set, in elements.
pub const MAX_LANES: usize = 16;

/// An instruction set the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    /// Plain Rust in groups of eight, vectorised by the compiler: any processor.
    Portable = 1,
    /// x86-64 with AVX2 and FMA.
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16 = 4,
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The instruction set in use: the best this processor has, or what `LENSLET_ISA` (portable, avx2, avx512,
/// avx512bf16) or [`set_isa`] lowered it to.
pub fn isa() -> Isa {
    match CURRENT.load(Ordering::Relaxed) {
        1 => Isa::Portable,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        4 => Isa::Avx512Bf16,
        _ => {
            let wanted = match std::env::var("LENSLET_ISA").as_deref() {
                Ok("portable") => Isa::Portable,
                Ok("avx2") => Isa::Avx2,
                Ok("avx512") => Isa::Avx512,
                _ => Isa::Avx512Bf16,
            };
            set_isa(wanted)
        }
    }
}

/// Uses `wanted`, or the best this processor has below it; returns what is in use from now on, in every thread.
/// Meant for tests and benches that compare the paths.
pub fn set_isa(wanted: Isa) -> Isa {
    let chosen = wanted.min(best());
    CURRENT.store(chosen as u8, Ordering::Relaxed);
    chosen
}

#[cfg(target_arch = "x86_64")]
fn best() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
        (true, true, true) => Isa::Avx512Bf16,
        (true, true, false) => Isa::Avx512,
        (true, false, _) => Isa::Avx2,
        _ => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best() -> Isa {
    Isa::Portable
}

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
    /// The larger of each pair.
    fn max(self, other: Self) -> Self;
    /// The smaller of each pair.
    fn min(self, other: Self) -> Self;
    /// Square roots.
    fn sqrt(self) -> Self;
    /// `eˣ`, within 2 units in the last place; 0 for −∞.
    fn exp(self) -> Self;
    /// The error function, within 2e-7 in f32.
    fn erf(self) -> Self;
    /// `x` where `self > bound`, else `y`.
    fn select_gt(self, bound: Self, x: Self, y: Self) -> Self;
    /// The sum of the elements, in a fixed order.
    fn sum(self) -> A;
    /// The largest element.
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

/// `eˣ` in single precision, 0 below 2.5e-38: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a degree-6 Taylor polynomial in r, times 2ⁿ (Cody and Waite).
#[inline(always)]
fn exp_f32<V: Lanes<f32>>(x: V, round: impl Fn(V) -> V, pow2: impl Fn(V) -> V) -> V {
    let clamped = x.max(V::splat(-86.6)).min(V::splat(88.722_83));
    let n = round(clamped * V::splat(std::f32::consts::LOG2_E));
    let r = n.fma(V::splat(-0.693_359_4), clamped);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    let mut p = V::splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.fma(r, V::splat(c));
    }
    let half = pow2(n - V::splat(1.0));
    let result = p * half * V::splat(2.0);
    x.select_gt(V::splat(-86.6), result, V::zero())
}

/// The error function in single precision (Abramowitz and Stegun 7.1.26, |error| ≤ 1.5e-7).
#[inline(always)]
fn erf_f32<V: Lanes<f32>>(x: V) -> V {
    let a = x.max(-x);
    let t = V::splat(1.0) / a.fma(V::splat(0.327_591_1), V::splat(1.0));
    let mut p = V::splat(1.061_405_4);
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = p.fma(t, V::splat(c));
    }
    let y = V::splat(1.0) - p * t * (-(a * a)).exp();
    x.select_gt(V::zero(), y, -y)
}

/// Eight elements in plain Rust, for the compiler to vectorise.
#[derive(Debug, Clone, Copy)]
#[repr(align(32))]
pub struct Wide<A>([A; 8]);

impl<A: Copy> Wide<A> {
    #[inline(always)]
    fn zip(self, other: Self, f: impl Fn(A, A) -> A) -> Self {
        let mut out = self.0;
        for i in 0..8 {
            out[i] = f(self.0[i], other.0[i]);
        }
        Wide(out)
    }
}

macro_rules! wide_operators {
    ($($trait:ident $method:ident),*) => {$(
        impl<A: Real> $trait for Wide<A> {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self { self.zip(other, |a, b| a.$method(b)) }
        }
    )*};
}
wide_operators!(Add add, Sub sub, Mul mul, Div div);

impl<A: Real> Neg for Wide<A> {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        Wide(self.0.map(|a| -a))
    }
}

macro_rules! wide_lanes {
    ($t:ty, $exp:expr, $erf:expr) => {
        impl Lanes<$t> for Wide<$t> {
            const N: usize = 8;
            #[inline(always)]
            fn splat(a: $t) -> Self {
                Wide([a; 8])
            }
            #[inline(always)]
            unsafe fn load(p: *const $t) -> Self {
                // SAFETY: the caller vouches for eight elements.
                Wide(unsafe { p.cast::<[$t; 8]>().read_unaligned() })
            }
            #[inline(always)]
            unsafe fn store(self, p: *mut $t) {
                // SAFETY: the caller vouches for eight elements.
                unsafe { p.cast::<[$t; 8]>().write_unaligned(self.0) }
            }
            #[inline(always)]
            unsafe fn load_bf16(p: *const half::bf16) -> Self {
                // SAFETY: the caller vouches for eight elements.
                Wide(unsafe { p.cast::<[half::bf16; 8]>().read_unaligned() }.map(|x| x.widen() as $t))
            }
            #[inline(always)]
            unsafe fn store_bf16(self, p: *mut half::bf16) {
                // SAFETY: the caller vouches for eight elements.
                unsafe {
                    p.cast::<[half::bf16; 8]>()
                        .write_unaligned(self.0.map(|a| round_bf16(a as f32)))
                }
            }
            #[inline(always)]
            fn fma(self, b: Self, c: Self) -> Self {
                let mut out = c.0;
                for i in 0..8 {
                    // Without FMA in hardware `mul_add` is a slow library call.
                    out[i] = if cfg!(target_arch = "aarch64") {
                        self.0[i].mul_add(b.0[i], c.0[i])
                    } else {
                        self.0[i] * b.0[i] + c.0[i]
                    };
                }
                Wide(out)
            }
            #[inline(always)]
            fn max(self, other: Self) -> Self {
                self.zip(other, |a, b| if a > b { a } else { b })
            }
            #[inline(always)]
            fn min(self, other: Self) -> Self {
                self.zip(other, |a, b| if a < b { a } else { b })
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                Wide(self.0.map(|a| a.sqrt()))
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn erf(self) -> Self {
                $erf(self)
            }
            #[inline(always)]
            fn select_gt(self, bound: Self, x: Self, y: Self) -> Self {
                let mut out = y.0;
                for i in 0..8 {
                    if self.0[i] > bound.0[i] {
                        out[i] = x.0[i];
                    }
                }
                Wide(out)
            }
            #[inline(always)]
            fn sum(self) -> $t {
                let a = self.0;
                ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
            }
            #[inline(always)]
            fn largest(self) -> $t {
                self.0
                    .iter()
                    .fold(<$t>::NEG_INFINITY, |m, &a| if a > m { a } else { m })
            }
        }
    };
}
wide_lanes!(
    f32,
    |x| exp_f32(
        x,
        |v: Wide<f32>| Wide(v.0.map(|a| a.round_ties_even())),
        |n| { Wide(n.0.map(|a| f32::from_bits(((a as i32 + 127) as u32) << 23))) }
    ),
    erf_f32
);
wide_lanes!(f64, |x: Wide<f64>| Wide(x.0.map(f64::exp)), |x: Wide<f64>| Wide(
    x.0.map(libm::erf)
));

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
                $crate::cpu::simd::Isa::Avx512 | $crate::cpu::simd::Isa::Avx512Bf16 => unsafe { avx512::<$t $(, $u)*>($($arg),*) },
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
        let x: Vec<f32> = (-1000..1000)
            .map(|i| i as f32 * 0.1)
            .chain([f32::NEG_INFINITY, -88.0, 88.7, -87.3])
            .collect();
        let mut y = vec![0.0; x.len()];
        exp_all(&x, &mut y);
        for (x, y) in x.iter().zip(&y) {
            let exact = (x.clamp(-1e4, 88.722_83) as f64).exp();
            assert!(
                ((*y as f64) - exact).abs() <= 3e-7 * exact + 3e-38,
                "exp({x}) = {y}, expected {exact}"
            );
        }
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
