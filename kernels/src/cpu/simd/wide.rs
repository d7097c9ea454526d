//! Registers without intrinsics: arrays that the compiler vectorises as it can.

use super::functions::{erf_f32, exp_f32};
use super::{Lanes, Real, round_bf16};
use crate::Element;
use std::ops::{Add, Div, Mul, Neg, Sub};

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
                unsafe { p.cast::<[half::bf16; 8]>().write_unaligned(self.0.map(|a| round_bf16(a as f32))) }
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
                self.0.iter().fold(<$t>::NEG_INFINITY, |m, &a| if a > m { a } else { m })
            }
        }
    };
}
wide_lanes!(
    f32,
    |x| exp_f32(
        x,
        |v: Wide<f32>| Wide(v.0.map(|a| a.round_ties_even())),
        |p: Wide<f32>, n| {
            // 2ⁿ might be infinite, 2ⁿ⁻¹ is not.
            let power = Wide(n.0.map(|a| f32::from_bits(((a as i32 + 126) as u32) << 23)));
            p * power * Wide([2.0; 8])
        }
    ),
    erf_f32
);
wide_lanes!(f64, |x: Wide<f64>| Wide(x.0.map(f64::exp)), |x: Wide<f64>| Wide(x.0.map(libm::erf)));
