//! The optimiser's step and the norm that gradients are clipped by.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::cpu::simd::Real;
use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Element, Result, View, ViewMut};
use std::ops::Range;

/// The coefficients of one step of AdamW that all parameters share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the average gradient.
    pub beta1: f64,
    /// Decay of the average squared gradient.
    pub beta2: f64,
    /// Added to the root of the average squared gradient.
    pub eps: f64,
    /// Number of this step, from 1.
    pub step: u64,
    /// Round `low` up or down at random with this seed, by chances that keep the mean; None: to nearest.
    pub stochastic: Option<u64>,
}

/// Neighbouring parameters that are stepped alike.
#[derive(Debug, Clone, PartialEq)]
pub struct Segment {
    /// Where they lie.
    pub range: Range<usize>,
    /// Learning rate.
    pub lr: f64,
    /// Share of the weights, times `lr`, that is taken off.
    pub weight_decay: f64,
}

/// What a step changes, and the gradients: all of one length and in `A` (F32 or F64).
#[derive(Debug)]
pub struct State<'a> {
    /// The parameters.
    pub weights: ViewMut<'a>,
    /// Their gradients.
    pub grads: View<'a>,
    /// The gradients' running mean.
    pub m: ViewMut<'a>,
    /// That of their squares.
    pub v: ViewMut<'a>,
    /// BF16: receives the rounded weights.
    pub low: Option<ViewMut<'a>>,
}

/// One step of AdamW (Loshchilov and Hutter 2019), in place, on the parameters of all `segments` at once. With
/// `g = grad_scale · grads`, or `grads` where none is given:
/// `m = β₁m + (1 − β₁)g`, `v = β₂v + (1 − β₂)g²`, `m̂ = m / (1 − β₁ˢᵗᵉᵖ)`, `v̂ = v / (1 − β₂ˢᵗᵉᵖ)`,
/// `w = w − lr·weight_decay·w − lr·m̂ / (√v̂ + eps)`. `grad_scale` is one `A` on the device, as [`norm_scale`] leaves
/// it; where it is NaN nothing is changed, as nothing is outside the segments.
///
/// # Errors
/// A `step` of 0; segments that overlap, are not in order or pass the end.
pub fn adamw(p: &AdamW, segments: &[Segment], state: State, grad_scale: Option<View>) -> Result<()> {
    let call = Call::new("adamw", "weights", &state.weights)?;
    let len = state.weights.len();
    call.accumulator("weights", &state.weights, len)?;
    call.same("grads", &state.grads, len)?;
    if let Some(grad_scale) = &grad_scale {
        call.same("grad_scale", grad_scale, 1)?;
    }
    call.same("m", &state.m, len)?;
    call.same("v", &state.v, len)?;
    if let Some(low) = &state.low {
        call.typed("low", low, DType::BF16, len)?;
    }
    if p.step == 0 {
        return Err(call.refuse("steps are counted from 1".to_string()));
    }
    let mut end = 0;
    for Segment { range, .. } in segments {
        if range.start < end || range.end < range.start || range.end > len {
            let message = format!("segment {range:?} of {len} elements after one that ends at {end}");
            return Err(call.refuse(message));
        }
        end = range.end;
    }
    let grads = state.grads;
    on_device!("adamw", grads, T => cpu::adamw::<<T as Element>::Acc>(p, segments, state, grad_scale),
        gpu => gpu::adamw(p, segments, state, grad_scale))
}

/// What a vector is to be scaled by, given its norm.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum NormScale {
    /// `min(1, limit / norm)`: no longer than this limit.
    Clip(f64),
    /// `1 / (norm + 1e-7)`: to length one, or to zero where there is nothing.
    Unit,
}

impl NormScale {
    /// Added to the norm, so that zeros stay zeros.
    pub(crate) const TINY: f64 = 1e-7;

    fn of(self, norm: f64) -> f64 {
        match self {
            _ if !norm.is_finite() => f64::NAN,
            NormScale::Clip(limit) if norm > limit => limit / norm,
            NormScale::Clip(_) => 1.0,
            NormScale::Unit => 1.0 / (norm + Self::TINY),
        }
    }
}

/// `out[0]` is the factor by which `rule` scales a vector whose squares add up to `squares[0]`, NaN where that is not finite:
/// the host need not see the norm. `squares` is one F64, `out` one F32 or F64.
pub fn norm_scale(squares: View, rule: NormScale, out: &mut ViewMut) -> Result<()> {
    Call::new("norm_scale", "squares", &squares)?.typed("squares", &squares, DType::F64, 1)?;
    let call = Call::new("norm_scale", "out", out)?;
    call.accumulator("out", out, 1)?;
    call.typed("squares", &squares, DType::F64, 1)?;
    on_device!("norm_scale", out, T => {
        let norm = squares.slice::<f64>()[0].sqrt();
        out.slice_mut()[0] = <<T as Element>::Acc as Real>::of(rule.of(norm))
    }, gpu => gpu::norm_scale(squares, rule, out))
}

/// `out[0] = Σ x²` in F64; `x` is `T` of any length, `out` one F64. NaN and infinities come through.
pub fn sum_squares(x: View, out: &mut ViewMut) -> Result<()> {
    let call = Call::new("sum_squares", "x", &x)?;
    call.typed("out", out, DType::F64, 1)?;
    on_device!("sum_squares", x, T => out.slice_mut::<f64>()[0] = cpu::sum_squares::<T>(x.slice()),
        gpu => gpu::sum_squares(x, out))
}
