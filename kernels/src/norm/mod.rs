//! Normalisation of rows: layer norm, RMS norm, unit length.
//!
//! `x`, `y` and their gradients are `(rows, dim)`, `w` and `b` are `(dim)`; all are `T`. What the derivative needs of the
//! forward pass, `mean`, `rstd` and `inverse`, is `(rows)` in `A`. Everything is computed in `A` and rounded once.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{Result, View, ViewMut};

/// What [`layer_norm`] takes.
#[derive(Debug)]
pub struct LayerNorm<'a> {
    /// (rows, dim)
    pub x: View<'a>,
    /// (dim)
    pub w: View<'a>,
    /// (dim)
    pub b: View<'a>,
    /// (rows, dim)
    pub y: ViewMut<'a>,
    /// (rows)
    pub mean: ViewMut<'a>,
    /// (rows)
    pub rstd: ViewMut<'a>,
    /// Added to the variance.
    pub eps: f64,
}

/// Layer norm (Ba et al. 2016): `y = (x − mean)·rstd·w + b` with `mean` and the biased variance of the row and
/// `rstd = 1/√(variance + eps)`. The number of rows is `x.len() / w.len()`.
pub fn layer_norm(a: LayerNorm) -> Result<()> {
    let x = a.x;
    let call = Call::new("layer_norm", "x", &x)?;
    let rows = rows(&call, &x, a.w.len())?;
    call.same("w", &a.w, a.w.len())?;
    call.same("b", &a.b, a.w.len())?;
    call.same("y", &a.y, x.len())?;
    call.accumulator("mean", &a.mean, rows)?;
    call.accumulator("rstd", &a.rstd, rows)?;
    on_device!("layer_norm", x, T => cpu::layer_norm::<T>(a), gpu => gpu::layer_norm(a))
}

/// What [`layer_norm_backward`] takes.
#[derive(Debug)]
pub struct LayerNormBackward<'a> {
    /// (rows, dim)
    pub x: View<'a>,
    /// (dim)
    pub w: View<'a>,
    /// (rows), from the forward pass.
    pub mean: View<'a>,
    /// (rows), from the forward pass.
    pub rstd: View<'a>,
    /// (rows, dim)
    pub dy: View<'a>,
    /// (rows, dim)
    pub dx: ViewMut<'a>,
    /// (dim), A
    pub dw: ViewMut<'a>,
    /// (dim), A
    pub db: ViewMut<'a>,
}

/// Derivative of [`layer_norm`]. With `x̂ = (x − mean)·rstd` and `g = dy·w`, averages taken over the row:
/// `dx = rstd·(g − avg(g) − x̂·avg(g·x̂))`, `dw = Σ_rows dy·x̂`, `db = Σ_rows dy`.
pub fn layer_norm_backward(a: LayerNormBackward) -> Result<()> {
    let x = a.x;
    let call = Call::new("layer_norm_backward", "x", &x)?;
    let rows = rows(&call, &x, a.w.len())?;
    call.same("w", &a.w, a.w.len())?;
    call.accumulator("mean", &a.mean, rows)?;
    call.accumulator("rstd", &a.rstd, rows)?;
    call.same("dy", &a.dy, x.len())?;
    call.same("dx", &a.dx, x.len())?;
    call.accumulator("dw", &a.dw, a.w.len())?;
    call.accumulator("db", &a.db, a.w.len())?;
    on_device!("layer_norm_backward", x, T => cpu::layer_norm_backward::<T>(a), gpu => gpu::layer_norm_backward(a))
}

/// RMS norm (Zhang and Sennrich 2019): `y = x·rstd·w` with `rstd = 1/√(avg(x²) + eps)`. The number of rows is
/// `x.len() / w.len()`.
pub fn rms_norm(x: View, w: View, y: &mut ViewMut, rstd: &mut ViewMut, eps: f64) -> Result<()> {
    let call = Call::new("rms_norm", "x", &x)?;
    let rows = rows(&call, &x, w.len())?;
    call.same("w", &w, w.len())?;
    call.same("y", y, x.len())?;
    call.accumulator("rstd", rstd, rows)?;
    on_device!("rms_norm", x, T => cpu::rms_norm::<T>(
        x.slice(), w.slice(), y.slice_mut(), rstd.slice_mut(), eps
    ), gpu => gpu::rms_norm(x, w, y, rstd, eps))
}

/// Derivative of [`rms_norm`]. With `x̂ = x·rstd` and `g = dy·w`: `dx = rstd·(g − x̂·avg(g·x̂))`, `dw = Σ_rows dy·x̂`, which is
/// `(dim)` in `A`.
pub fn rms_norm_backward(x: View, w: View, rstd: View, dy: View, dx: &mut ViewMut, dw: &mut ViewMut) -> Result<()> {
    let call = Call::new("rms_norm_backward", "x", &x)?;
    let rows = rows(&call, &x, w.len())?;
    call.same("w", &w, w.len())?;
    call.accumulator("rstd", &rstd, rows)?;
    call.same("dy", &dy, x.len())?;
    call.same("dx", dx, x.len())?;
    call.accumulator("dw", dw, w.len())?;
    on_device!("rms_norm_backward", x, T => cpu::rms_norm_backward::<T>(
        x.slice(), w.slice(), rstd.slice(), dy.slice(), dx.slice_mut(), dw.slice_mut()
    ), gpu => gpu::rms_norm_backward(x, w, rstd, dy, dx, dw))
}

/// Rows of unit length: `y = x·inverse` with `inverse = 1/max(‖x‖, eps)`, for rows of `dim` elements.
pub fn l2_normalize(x: View, y: &mut ViewMut, inverse: &mut ViewMut, dim: usize, eps: f64) -> Result<()> {
    let call = Call::new("l2_normalize", "x", &x)?;
    let rows = rows(&call, &x, dim)?;
    call.same("y", y, x.len())?;
    call.accumulator("inverse", inverse, rows)?;
    on_device!("l2_normalize", x, T => cpu::l2_normalize::<T>(
        x.slice(), y.slice_mut(), inverse.slice_mut(), dim, eps
    ), gpu => gpu::l2_normalize(x, y, inverse, dim, eps))
}

/// Derivative of [`l2_normalize`] for rows no shorter than `eps`: `dx = inverse·(dy − y·⟨y, dy⟩)`. Towards a row of zeros it
/// tends to `dy/eps`, which is exact there.
pub fn l2_normalize_backward(y: View, inverse: View, dy: View, dx: &mut ViewMut, dim: usize) -> Result<()> {
    let call = Call::new("l2_normalize_backward", "y", &y)?;
    let rows = rows(&call, &y, dim)?;
    call.accumulator("inverse", &inverse, rows)?;
    call.same("dy", &dy, y.len())?;
    call.same("dx", dx, y.len())?;
    on_device!("l2_normalize_backward", y, T => cpu::l2_normalize_backward::<T>(
        y.slice(), inverse.slice(), dy.slice(), dx.slice_mut(), dim
    ), gpu => gpu::l2_normalize_backward(y, inverse, dy, dx, dim))
}

/// The number of rows of `dim` elements in `x`, which must be whole rows of at least one element.
fn rows(call: &Call, x: &View, dim: usize) -> Result<usize> {
    if dim == 0 {
        return Err(call.refuse("rows have no elements".to_string()));
    }
    let rows = x.len() / dim;
    call.sized("x", x.len(), rows * dim)?;
    Ok(rows)
}
