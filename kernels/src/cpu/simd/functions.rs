//! Functions that no instruction computes, over registers of singles.

use super::Lanes;

/// `eˣ` in single precision, 0 below 2.5e-38 and NaN for NaN: x = n·ln 2 + r with |r| ≤ ln 2 / 2 (Cody and Waite), a minimax
/// polynomial in r (relative error 1e-7), times 2ⁿ, which `scale(p, n)` computes for −125 ≤ n ≤ 128.
#[inline(always)]
pub(super) fn exp_f32<V: Lanes<f32>>(x: V, round: impl Fn(V) -> V, scale: impl Fn(V, V) -> V) -> V {
    // `max`, `min` and `select_gt` pass a NaN on in the places where `x` stands here.
    let clamped = V::splat(88.722_83).min(V::splat(-86.6).max(x));
    let n = round(clamped * V::splat(std::f32::consts::LOG2_E));
    let r = n.fma(V::splat(-0.693_359_4), clamped);
    let r = n.fma(V::splat(2.121_944_4e-4), r);
    let mut p = V::splat(8.290_272e-3);
    for c in [4.189_816e-2, 0.166_676_38, 0.499_991_48, 0.999_999_7, 1.0] {
        p = p.fma(r, V::splat(c));
    }
    V::splat(-86.6).select_gt(x, V::zero(), scale(p, n))
}

/// The error function in single precision (|error| ≤ 4e-7): a·P(a²)/Q(a²) with a = |x|, a minimax fit of relative error 2e-8 up to
/// where the function rounds to 1.
#[inline(always)]
pub(super) fn erf_f32<V: Lanes<f32>>(x: V) -> V {
    let one = V::splat(1.0);
    let a = x.max(-x);
    let square = a * a;
    let (mut p, mut q) = (V::splat(2.050_085_3e-6), V::splat(3.809_158_4e-5));
    for (above, below) in [
        (2.848_806e-4, 1.162_520_3e-3),
        (3.765_560_5e-3, 1.496_910_3e-2),
        (5.274_854_4e-2, 0.114_108_6),
        (0.190_405_27, 0.502_075),
        (std::f32::consts::FRAC_2_SQRT_PI, 1.0),
    ] {
        p = p.fma(square, V::splat(above));
        q = q.fma(square, V::splat(below));
    }
    let y = a.select_gt(V::splat(3.92), one, a * p / q);
    x.select_gt(V::zero(), y, -y)
}
