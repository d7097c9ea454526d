//! Launches of `cuda/loss.cu`.

use super::score::{MOST_THREADS, Space, threads, typed};
use super::{Grid, Module, args, launch};
use crate::gemm::{Epilogue, Gemm, Layout, gemm};
use crate::loss::CrossEntropy;
use crate::{DType, Result, View, ViewMut, elementwise};

/// Elements taken at a time where rows allow.
const WIDE: usize = 4;

/// The specialisations that launches choose from, with the most threads of a block.
#[allow(dead_code)] // For the gate that compiles every family's.
pub(crate) fn modules() -> Vec<(Module, usize)> {
    let widths = |module: Module| [1, WIDE].map(|width| (module.clone().define("WIDTH", width), MOST_THREADS));
    typed("loss").into_iter().flat_map(widths).collect()
}

/// The module for T and rows of `len` elements, the first of which lies at a multiple of 16 bytes where `aligned`.
fn rows(dtype: DType, len: usize, aligned: bool) -> (Module, usize) {
    let width = if aligned && len.is_multiple_of(WIDE) { WIDE } else { 1 };
    let module = Module::new("loss").stored_as("TYPE_T", dtype);
    (module.define("WIDTH", width), width)
}

pub(crate) fn linear_cross_entropy(
    p: &CrossEntropy,
    x: View,
    w: View,
    targets: View,
    loss: &mut ViewMut,
    losses: &mut ViewMut,
    predictions: &mut ViewMut,
    mut dx: Option<&mut ViewMut>,
    mut dw: Option<&mut ViewMut>,
) -> Result<()> {
    super::refuse_f64("linear_cross_entropy", x.dtype())?;
    let (device, dtype) = (x.device(), x.dtype());
    let (module, _) = rows(dtype, p.vocab, true);
    let all_rows = Grid::new(1, threads(p.rows));
    let mut count = device.allocate(size_of::<i32>())?;
    let count = ViewMut::new(&mut count, DType::I32, 0, 1);
    let args = args![targets, &count, p.rows as i64, p.ignore_index];
    launch(device, &module, "count_rows", all_rows, args)?;

    let mut space = Space::new(device, dtype, p.rows, 1, p.vocab, dx.is_some() || dw.is_some())?;
    let kept_rows = if dx.is_none() && dw.is_some() { space.chunk() } else { 0 };
    let mut kept = device.allocate(kept_rows * p.dim * dtype.size())?;
    for chunk in space.chunks(p.rows) {
        for slice in space.slices(&chunk) {
            let (first, rows) = (slice.start, slice.len());
            let (mut logits, dlogits) = space.of_slice(&chunk, &slice);
            let shape = Gemm::new(Layout::Nt, rows, p.vocab, p.dim);
            let x = x.part(first * p.dim, rows * p.dim);
            gemm(shape, x, w, &mut logits, Epilogue::default())?;
            let args = args![
                &logits,
                dlogits,
                targets.part(first, rows),
                &count,
                &losses.part(first, rows),
                &predictions.part(first, rows),
                p.vocab as i32,
                p.ignore_index,
                p.smoothing as f32,
            ];
            launch(
                device,
                &module,
                "cross_entropy",
                Grid::new(rows, threads(p.vocab)),
                args,
            )?;
        }
        let (first, rows) = (chunk.start, chunk.len());
        let (start, len) = (first * p.dim, rows * p.dim);
        // Where dx is to be, rows of x are kept until they have made dw.
        let mut dx = dx.as_deref_mut().map(|dx| dx.part(start, len));
        if let Some(dw) = dw.as_deref_mut() {
            let mut spare = ViewMut::new(&mut kept, dtype, 0, len);
            let kept = dx.as_mut().unwrap_or(&mut spare);
            keep_counted(p, x.part(start, len), targets.part(first, rows), kept)?;
            let epilogue = Epilogue {
                accumulate: first > 0,
                ..Epilogue::default()
            };
            let shape = Gemm::new(Layout::Tn, p.vocab, p.dim, rows);
            gemm(shape, space.gradient(&chunk), kept.read(), dw, epilogue)?;
        }
        if let Some(dx) = &mut dx {
            let shape = Gemm::new(Layout::Nn, rows, p.dim, p.vocab);
            gemm(shape, space.gradient(&chunk), w, dx, Epilogue::default())?;
        }
    }
    if let Some(dw) = dw.filter(|_| p.rows == 0) {
        elementwise::fill(dw, 0.0)?;
    }
    let args = args![&*losses, &count, &*loss, p.rows as i64];
    launch(device, &module, "mean_loss", all_rows, args)
}

/// Copies the rows of `x` that count, and writes zeros for the others.
fn keep_counted(p: &CrossEntropy, x: View, targets: View, kept: &mut ViewMut) -> Result<()> {
    let aligned = args![x, &*kept].iter().all(|arg| arg.bits.is_multiple_of(16));
    let (module, width) = rows(x.dtype(), p.dim, aligned);
    let args = args![x, targets, &*kept, x.len() as i64, p.dim as i32, p.ignore_index];
    launch(x.device(), &module, "keep_counted", Grid::over(x.len(), width), args)
}
