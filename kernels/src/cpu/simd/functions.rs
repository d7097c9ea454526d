//! Functions that no instruction computes, over registers of singles.

use super::Lanes;

/// `eˣ` in single precision, 0 below 2.5e-38 and NaN for NaN: x = n·ln 2 + r with |r| ≤ ln 2 / 2, a degree-6 Taylor polynomial in r, times 2ⁿ (Cody and Waite).
#[inline(always)]
pub(super) fn exp_f32<V: Lanes<f32>>(x: V, round: impl Fn(V) -> V, pow2: impl Fn(V) -> V) -> V {
    // `max`, `min` and `select_gt` pass a NaN on in the places where `x` stands here.
    let clamped = V::splat(88.722_83).min(V::splat(-86.6).max(x));
    let n = round(clamped * V::splat(std::f32::consts::LOG2_E));
    let r = n.fma(V::splat(-0.693_359_4), clamped);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    let mut p = V::splat(1.0 / 720.0);
    for c in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p.fma(r, V::splat(c));
    }
    let half = pow2(n - V::splat(1.0));
    let result = p * half * V::splat(2.0);
    V::splat(-86.6).select_gt(x, V::zero(), result)
}

/// The error function in single precision (Abramowitz and Stegun 7.1.26, |error| ≤ 1.5e-7).
#[inline(always)]
pub(super) fn erf_f32<V: Lanes<f32>>(x: V) -> V {
    let a = x.max(-x);
    let t = V::splat(1.0) / a.fma(V::splat(0.327_591_1), V::splat(1.0));
    let mut p = V::splat(1.061_405_4);
    for c in [-1.453_152_1, 1.421_413_8, -0.284_496_72, 0.254_829_6] {
        p = p.fma(t, V::splat(c));
    }
    let y = V::splat(1.0) - p * t * (-(a * a)).exp();
    x.select_gt(V::zero(), y, -y)
}
