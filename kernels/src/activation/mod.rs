//! Pointwise activations and the SiLU gate of LLaMA-style MLPs.
//!
//! All arguments are `T` and have the same number of elements.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{Result, View, ViewMut};

/// A pointwise non-linearity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x·Φ(x)` with Φ the normal distribution function, through the error function.
    Gelu,
    /// `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))`.
    GeluTanh,
    /// `x·σ(1.702·x)`, CLIP's.
    QuickGelu,
    /// `x·σ(x)`.
    Silu,
}

/// `y = act(x)`.
pub fn activate(x: View, y: &mut ViewMut, act: Activation) -> Result<()> {
    Call::new("activate", "x", &x)?.same("y", y, x.len())?;
    on_device!("activate", x, T => cpu::activate::<T>(x.slice(), y.slice_mut(), act),
        gpu => gpu::activate(x, y, act))
}

/// `dx = dy ⊙ act'(x)`.
pub fn activate_backward(x: View, dy: View, dx: &mut ViewMut, act: Activation) -> Result<()> {
    let call = Call::new("activate_backward", "x", &x)?;
    call.same("dy", &dy, x.len())?;
    call.same("dx", dx, x.len())?;
    on_device!("activate_backward", x, T =>
        cpu::activate_backward::<T>(x.slice(), dy.slice(), dx.slice_mut(), act),
        gpu => gpu::activate_backward(x, dy, dx, act))
}

/// `y = silu(gate) ⊙ up`.
pub fn silu_mul(gate: View, up: View, y: &mut ViewMut) -> Result<()> {
    let call = Call::new("silu_mul", "gate", &gate)?;
    call.same("up", &up, gate.len())?;
    call.same("y", y, gate.len())?;
    on_device!("silu_mul", gate, T => cpu::silu_mul::<T>(gate.slice(), up.slice(), y.slice_mut()),
        gpu => gpu::silu_mul(gate, up, y))
}

/// `dgate = dy ⊙ up ⊙ silu'(gate)` and `dup = dy ⊙ silu(gate)`.
pub fn silu_mul_backward(gate: View, up: View, dy: View, dgate: &mut ViewMut, dup: &mut ViewMut) -> Result<()> {
    let call = Call::new("silu_mul_backward", "gate", &gate)?;
    for (what, view) in [("up", &up), ("dy", &dy)] {
        call.same(what, view, gate.len())?;
    }
    for (what, view) in [("dgate", &*dgate), ("dup", &*dup)] {
        call.same(what, view, gate.len())?;
    }
    on_device!("silu_mul_backward", gate, T => cpu::silu_mul_backward::<T>(
        gate.slice(),
        up.slice(),
        dy.slice(),
        dgate.slice_mut(),
        dup.slice_mut()
    ), gpu => gpu::silu_mul_backward(gate, up, dy, dgate, dup))
}
