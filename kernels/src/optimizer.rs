//! The optimiser's step and the norm that gradients are clipped by.

use crate::cpu;
use crate::dispatch::Call;
use crate::gpu;
use crate::view::on_device;
use crate::{DType, Element, Result, View, ViewMut};

/// The coefficients of one step of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the average gradient.
    pub beta1: f64,
    /// Decay of the average squared gradient.
    pub beta2: f64,
    /// Added to the root of the average squared gradient.
    pub eps: f64,
    /// Share of the weights, times `lr`, that is taken off.
    pub weight_decay: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// Factor of the gradients: of clipping, or the inverse of a loss scale.
    pub grad_scale: f64,
}

/// One step of AdamW (Loshchilov and Hutter 2019), in place. With `g = grad_scale · grads`:
/// `m = β₁m + (1 − β₁)g`, `v = β₂v + (1 − β₂)g²`, `m̂ = m / (1 − β₁ˢᵗᵉᵖ)`, `v̂ = v / (1 − β₂ˢᵗᵉᵖ)`,
/// `w = w − lr·weight_decay·w − lr·m̂ / (√v̂ + eps)`. All arguments have the same length and are in `A` (F32 or F64);
/// `low`, if given, is BF16 and receives the rounded weights.
///
/// # Errors
/// Lengths, types or devices that do not fit; a `step` of 0.
pub fn adamw(
    p: &AdamW,
    weights: &mut ViewMut,
    grads: View,
    m: &mut ViewMut,
    v: &mut ViewMut,
    mut low: Option<&mut ViewMut>,
) -> Result<()> {
    let call = Call::new("adamw", "weights", weights)?;
    let len = weights.len();
    call.accumulator("weights", weights, len)?;
    call.same("grads", &grads, len)?;
    call.same("m", m, len)?;
    call.same("v", v, len)?;
    if let Some(low) = &low {
        call.typed("low", *low, DType::BF16, len)?;
    }
    if p.step == 0 {
        return Err(call.refuse("steps are counted from 1".to_string()));
    }
    on_device!("adamw", weights, T => cpu::optimizer::adamw::<<T as Element>::Acc>(
        p, weights.slice_mut(), grads.slice(), m.slice_mut(), v.slice_mut(), low.as_mut().map(|low| low.slice_mut())
    ), gpu => gpu::optimizer::adamw(p, weights, grads, m, v, low.as_deref()))
}

/// `out[0] = Σ x²` in F64; `x` is `T` of any length, `out` one F64. NaN and infinities come through.
///
/// # Errors
/// Lengths, types or devices that do not fit.
pub fn sum_squares(x: View, out: &mut ViewMut) -> Result<()> {
    let call = Call::new("sum_squares", "x", &x)?;
    call.typed("out", out, DType::F64, 1)?;
    on_device!("sum_squares", x, T => out.slice_mut::<f64>()[0] = cpu::optimizer::sum_squares::<T>(x.slice()),
        gpu => gpu::optimizer::sum_squares(x, out))
}
