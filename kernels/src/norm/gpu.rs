//! Launches of `norm.cu`.

use crate::gpu::{Arg, Grid, Module, Workspace, args, launch, width};
use crate::norm::{LayerNorm, LayerNormBackward};
use crate::reduce::gpu as reduce;
use crate::{DType, Result, View, ViewMut};

/// Elements a thread holds in registers, with and without vectors, as in the source.
const VALUES: usize = 8;
const VALUES_ALONE: usize = 4;
/// Most threads of a block.
const THREADS: usize = 1024;
/// Threads that the derivatives run on at most, over all blocks: about half of what the largest GPUs hold at once. More
/// blocks would write more parts of dw and db, each as large as a row.
const BUSY: usize = 1 << 17;
/// Fewest rows a block of the derivatives takes.
const ROWS: usize = 4;

fn specialise(t: DType, w: usize) -> Module {
    Module::new("norm").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (F32, 1), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), THREADS)).to_vec()
}

/// The module for rows of `dim` elements at the addresses `rows`, and a block's threads.
fn module(t: DType, dim: usize, rows: &[Arg]) -> (Module, usize) {
    let w = width(t.size(), &[dim], rows);
    let values = if w == 1 { VALUES_ALONE } else { VALUES };
    (specialise(t, w), dim.div_ceil(values).next_multiple_of(32).min(THREADS))
}

pub(crate) fn layer_norm(LayerNorm { x, w, b, y, mean, rstd, eps }: LayerNorm) -> Result<()> {
    crate::gpu::refuse_f64("layer_norm", x.dtype())?;
    let dim = w.len();
    let (module, threads) = module(x.dtype(), dim, args![x, w, b, &y]);
    let grid = Grid::new(x.len() / dim, threads);
    let args = args![x, w, b, &y, &mean, &rstd, dim as i64, eps as f32];
    launch(x.device(), &module, "layer_norm", grid, args)
}

pub(crate) fn rms_norm(x: View, w: View, y: &mut ViewMut, rstd: &mut ViewMut, eps: f64) -> Result<()> {
    crate::gpu::refuse_f64("rms_norm", x.dtype())?;
    let dim = w.len();
    let (module, threads) = module(x.dtype(), dim, args![x, w, &*y]);
    let grid = Grid::new(x.len() / dim, threads);
    let args = args![x, w, y, rstd, dim as i64, eps as f32];
    launch(x.device(), &module, "rms_norm", grid, args)
}

pub(crate) fn l2_normalize(x: View, y: &mut ViewMut, inverse: &mut ViewMut, dim: usize, eps: f64) -> Result<()> {
    crate::gpu::refuse_f64("l2_normalize", x.dtype())?;
    let (module, threads) = module(x.dtype(), dim, args![x, &*y]);
    let grid = Grid::new(x.len() / dim, threads);
    let args = args![x, y, inverse, dim as i64, eps as f32];
    launch(x.device(), &module, "l2_normalize", grid, args)
}

pub(crate) fn l2_normalize_backward(y: View, inverse: View, dy: View, dx: &mut ViewMut, dim: usize) -> Result<()> {
    crate::gpu::refuse_f64("l2_normalize_backward", y.dtype())?;
    let (module, threads) = module(y.dtype(), dim, args![y, dy, &*dx]);
    let grid = Grid::new(y.len() / dim, threads);
    let args = args![y, inverse, dy, dx, dim as i64];
    launch(y.device(), &module, "l2_normalize_backward", grid, args)
}

/// Blocks of the derivatives, from the shape and not from the device: sums over rows have the same order everywhere.
fn backward_grid(rows: usize, threads: usize) -> Grid {
    Grid::new(rows.div_ceil(ROWS).min(BUSY / threads), threads)
}

pub(crate) fn layer_norm_backward(a: LayerNormBackward) -> Result<()> {
    let LayerNormBackward { x, w, mean, rstd, dy, dx, mut dw, mut db } = a;
    crate::gpu::refuse_f64("layer_norm_backward", x.dtype())?;
    let (rows, dim) = (rstd.len(), w.len());
    let (module, threads) = module(x.dtype(), dim, args![x, w, dy, &dx]);
    let grid = backward_grid(rows, threads);
    let parts = grid.blocks[0];
    let mut dw_parts = Workspace::new(x.device(), DType::F32, parts * dim)?;
    let mut db_parts = Workspace::new(x.device(), DType::F32, parts * dim)?;
    let (dw_out, db_out) = (dw_parts.view_mut(), db_parts.view_mut());
    let args = args![x, w, mean, rstd, dy, &dx, &dw_out, &db_out, rows as i64, dim as i64];
    launch(x.device(), &module, "layer_norm_backward", grid, args)?;
    reduce::sum_axis(dw_parts.view(), &mut dw, [1, parts, dim], 1.0)?;
    reduce::sum_axis(db_parts.view(), &mut db, [1, parts, dim], 1.0)
}

pub(crate) fn rms_norm_backward(
    x: View,
    w: View,
    rstd: View,
    dy: View,
    dx: &mut ViewMut,
    dw: &mut ViewMut,
) -> Result<()> {
    crate::gpu::refuse_f64("rms_norm_backward", x.dtype())?;
    let (rows, dim) = (rstd.len(), w.len());
    let (module, threads) = module(x.dtype(), dim, args![x, w, dy, &*dx]);
    let grid = backward_grid(rows, threads);
    let parts = grid.blocks[0];
    let mut dw_parts = Workspace::new(x.device(), DType::F32, parts * dim)?;
    let args = args![x, w, rstd, dy, dx, &dw_parts.view_mut(), rows as i64, dim as i64];
    launch(x.device(), &module, "rms_norm_backward", grid, args)?;
    reduce::sum_axis(dw_parts.view(), dw, [1, parts, dim], 1.0)
}
