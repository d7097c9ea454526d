//! Launches of `elementwise.cu`.

use crate::gpu::{Arg, Grid, Module, args, launch, width};
use crate::{DType, Result, View, ViewMut};

/// The module for T and U, and the elements it takes at a time.
fn vectors(t: DType, u: DType, len: usize, pointers: &[Arg]) -> (Module, usize) {
    let w = width(t.size().max(u.size()), &[len], pointers);
    (specialise(t, u, w), w)
}

fn specialise(t: DType, u: DType, w: usize) -> Module {
    Module::new("elementwise").stored_as("TYPE_T", t).stored_as("TYPE_U", u).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32, F64};
    let chosen = [(F32, F32, 4), (BF16, BF16, 8), (F32, BF16, 4), (BF16, F32, 4), (F64, F32, 2), (BF16, BF16, 1)];
    chosen.map(|(t, u, w)| (specialise(t, u, w), 256)).to_vec()
}

/// `out = x ∘ y` for the kernels `add` and `mul`.
pub(crate) fn pointwise(kernel: &'static str, x: View, y: View, out: &mut ViewMut) -> Result<()> {
    let (len, dtype) = (x.len(), x.dtype());
    crate::gpu::refuse_f64(kernel, dtype)?;
    let (module, w) = vectors(dtype, dtype, len, args![x, y, &*out]);
    launch(x.device(), &module, kernel, Grid::over(len, w), args![x, y, &*out, len as i64])
}

/// `out = factor · scalar · x`.
pub(crate) fn scale(op: &'static str, x: View, out: &mut ViewMut, factor: f64, scalar: Option<View>) -> Result<()> {
    crate::gpu::refuse_f64(op, x.dtype())?;
    convert(x, out, factor, scalar)
}

pub(crate) fn cast(x: View, out: &mut ViewMut) -> Result<()> {
    convert(x, out, 1.0, None)
}

fn convert(x: View, out: &mut ViewMut, factor: f64, scalar: Option<View>) -> Result<()> {
    let len = x.len();
    let (module, w) = vectors(x.dtype(), out.dtype(), len, args![x, &*out]);
    let args = args![x, &*out, len as i64, factor as f32, scalar.as_ref()];
    launch(x.device(), &module, "scale", Grid::over(len, w), args)
}

pub(crate) fn axpy(op: &'static str, x: View, y: &mut ViewMut, factor: f64, scalar: Option<View>) -> Result<()> {
    crate::gpu::refuse_f64(op, x.dtype())?;
    let len = x.len();
    let (module, w) = vectors(x.dtype(), y.dtype(), len, args![x, &*y]);
    let args = args![x, &*y, len as i64, factor as f32, scalar.as_ref()];
    launch(x.device(), &module, "axpy", Grid::over(len, w), args)
}

pub(crate) fn cast_unless_nan(x: View, scalar: View, out: &mut ViewMut) -> Result<()> {
    crate::gpu::refuse_f64("cast_unless_nan", x.dtype())?;
    let len = x.len();
    let (module, w) = vectors(x.dtype(), out.dtype(), len, args![x, &*out]);
    let args = args![x, &*out, len as i64, scalar];
    launch(x.device(), &module, "cast_unless_nan", Grid::over(len, w), args)
}

pub(crate) fn add_broadcast(x: View, b: View, out: &mut ViewMut) -> Result<()> {
    crate::gpu::refuse_f64("add_broadcast", x.dtype())?;
    let (module, w) = vectors(x.dtype(), x.dtype(), b.len(), args![x, b, &*out]);
    let args = args![x, b, &*out, x.len() as i64, b.len() as i64];
    launch(x.device(), &module, "add_broadcast", Grid::over(x.len(), w), args)
}

pub(crate) fn clamp(x: &mut ViewMut, least: f64, most: f64) -> Result<()> {
    let len = x.len();
    let (module, w) = vectors(x.dtype(), x.dtype(), len, args![&*x]);
    let args = args![&*x, len as i64, least as f32, most as f32];
    launch(x.device(), &module, "clamp", Grid::over(len, w), args)
}

pub(crate) fn fill(out: &mut ViewMut, value: f64) -> Result<()> {
    let len = out.len();
    let (module, w) = vectors(out.dtype(), out.dtype(), len, args![&*out]);
    launch(out.device(), &module, "fill", Grid::over(len, w), args![&*out, len as i64, value as f32])
}
