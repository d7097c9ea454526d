//! Pointwise activations and the SiLU gate of LLaMA-style MLPs.
//!
//! All arguments are `T` and have the same number of elements.

use crate::view::on_device;
use crate::{Result, View, ViewMut, cpu, gpu};

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
///
/// # Errors
/// Lengths or types that differ.
pub fn activate(x: View, y: &mut ViewMut, act: Activation) -> Result<()> {
    y.expect_len("activate", "y", x.len())?;
    y.expect_dtype("activate", "y", x.dtype())?;
    on_device!("activate", x, T => cpu::activation::activate::<T>(x.slice(), y.slice_mut(), act),
        gpu => gpu::activation::activate(x, y, act))
}

/// `dx = dy ⊙ act'(x)`.
///
/// # Errors
/// Lengths or types that differ.
pub fn activate_backward(x: View, dy: View, dx: &mut ViewMut, act: Activation) -> Result<()> {
    dy.expect_len("activate_backward", "dy", x.len())?;
    dy.expect_dtype("activate_backward", "dy", x.dtype())?;
    dx.expect_len("activate_backward", "dx", x.len())?;
    dx.expect_dtype("activate_backward", "dx", x.dtype())?;
    on_device!("activate_backward", x, T =>
        cpu::activation::activate_backward::<T>(x.slice(), dy.slice(), dx.slice_mut(), act),
        gpu => gpu::activation::activate_backward(x, dy, dx, act))
}

/// `y = silu(gate) ⊙ up`.
///
/// # Errors
/// Lengths or types that differ.
pub fn silu_mul(gate: View, up: View, y: &mut ViewMut) -> Result<()> {
    up.expect_len("silu_mul", "up", gate.len())?;
    up.expect_dtype("silu_mul", "up", gate.dtype())?;
    y.expect_len("silu_mul", "y", gate.len())?;
    y.expect_dtype("silu_mul", "y", gate.dtype())?;
    on_device!("silu_mul", gate, T => cpu::activation::silu_mul::<T>(gate.slice(), up.slice(), y.slice_mut()),
        gpu => gpu::activation::silu_mul(gate, up, y))
}

/// `dgate = dy ⊙ up ⊙ silu'(gate)` and `dup = dy ⊙ silu(gate)`.
///
/// # Errors
/// Lengths or types that differ.
pub fn silu_mul_backward(gate: View, up: View, dy: View, dgate: &mut ViewMut, dup: &mut ViewMut) -> Result<()> {
    const OP: &str = "silu_mul_backward";
    for (what, view) in [("up", up), ("dy", dy)] {
        view.expect_len(OP, what, gate.len())?;
        view.expect_dtype(OP, what, gate.dtype())?;
    }
    for (what, view) in [("dgate", &*dgate), ("dup", &*dup)] {
        view.expect_len(OP, what, gate.len())?;
        view.expect_dtype(OP, what, gate.dtype())?;
    }
    on_device!("silu_mul_backward", gate, T => cpu::activation::silu_mul_backward::<T>(
        gate.slice(),
        up.slice(),
        dy.slice(),
        dgate.slice_mut(),
        dup.slice_mut()
    ), gpu => gpu::activation::silu_mul_backward(gate, up, dy, dgate, dup))
}
