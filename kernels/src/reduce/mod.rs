//! Sums along one axis, and their derivative.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::{Call, on_pair};
use crate::{Result, View, ViewMut};

/// `out[o, i] = factor · Σ_a x[o, a, i]`: `x` is `(outer, axis, inner)` of type `T`, `out` is `(outer, inner)` of type `T` or
/// `A`. Sums are kept in `A`; a long axis is cut into parts whose sums are added in order. An empty axis gives zeros.
pub fn sum_axis(x: View, out: &mut ViewMut, outer: usize, axis: usize, inner: usize, factor: f64) -> Result<()> {
    let call = Call::new("sum_axis", "x", &x)?;
    let (long, short) = (call.elements(&[outer, axis, inner])?, call.elements(&[outer, inner])?);
    call.same("x", &x, long)?;
    call.same_or_accumulator("out", out, short)?;
    on_pair!("sum_axis", x, out, (T, U) => {
        cpu::sum_axis::<T, U>(x.slice(), out.slice_mut(), [outer, axis, inner], factor)
    }, gpu => gpu::sum_axis(x, out, [outer, axis, inner], factor))
}

/// `out[o, a, i] = factor · x[o, i]`: `out` is `(outer, axis, inner)` of type `T`, `x` is `(outer, inner)` of type `T` or `A`.
/// The derivative of [`sum_axis`].
pub fn broadcast_axis(x: View, out: &mut ViewMut, outer: usize, axis: usize, inner: usize, factor: f64) -> Result<()> {
    let call = Call::new("broadcast_axis", "out", out)?;
    let (long, short) = (call.elements(&[outer, axis, inner])?, call.elements(&[outer, inner])?);
    call.same_or_accumulator("x", &x, short)?;
    call.same("out", out, long)?;
    on_pair!("broadcast_axis", x, out, (T, U) => {
        cpu::broadcast_axis::<T, U>(x.slice(), out.slice_mut(), [outer, axis, inner], factor)
    }, gpu => gpu::broadcast_axis(x, out, [outer, axis, inner], factor))
}
