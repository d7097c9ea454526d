//! Launches of `activation.cu`.

use crate::activation::Activation;
use crate::gpu::{Arg, Grid, Module, args, launch, width};
use crate::{DType, Result, View, ViewMut};

/// The activation's name in `activation.cuh`.
pub(crate) fn name(act: Activation) -> &'static str {
    match act {
        Activation::Gelu => "GELU",
        Activation::GeluTanh => "GELU_TANH",
        Activation::QuickGelu => "QUICK_GELU",
        Activation::Silu => "SILU",
    }
}

fn specialise(act: Activation, t: DType, w: usize) -> Module {
    Module::new("activation").define("ACTIVATION", name(act)).stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    let wide = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu]
        .map(|act| (specialise(act, DType::BF16, 8), 256));
    let others = [(DType::F32, 4), (DType::BF16, 1)].map(|(t, w)| (specialise(Activation::Gelu, t, w), 256));
    [wide.as_slice(), &others].concat()
}

/// Runs a kernel whose arguments are `pointers` and their length.
fn pointwise(op: &'static str, kernel: &'static str, x: View, act: Activation, pointers: &[Arg]) -> Result<()> {
    crate::gpu::refuse_f64(op, x.dtype())?;
    let (t, len) = (x.dtype(), x.len());
    let w = width(t.size(), &[len], pointers);
    let args = [pointers, args![len as i64]].concat();
    launch(x.device(), &specialise(act, t, w), kernel, Grid::over(len, w), &args)
}

pub(crate) fn activate(x: View, y: &mut ViewMut, act: Activation) -> Result<()> {
    pointwise("activate", "forward", x, act, args![x, y])
}

pub(crate) fn activate_backward(x: View, dy: View, dx: &mut ViewMut, act: Activation) -> Result<()> {
    pointwise("activate_backward", "backward", x, act, args![x, dy, dx])
}

pub(crate) fn silu_mul(gate: View, up: View, y: &mut ViewMut) -> Result<()> {
    pointwise("silu_mul", "gated_forward", gate, Activation::Silu, args![gate, up, y])
}

pub(crate) fn silu_mul_backward(gate: View, up: View, dy: View, dgate: &mut ViewMut, dup: &mut ViewMut) -> Result<()> {
    let pointers = args![gate, up, dy, dgate, dup];
    pointwise("silu_mul_backward", "gated_backward", gate, Activation::Silu, pointers)
}
