//! Launches of `loss.cu`.

use crate::gemm::{Epilogue, Gemm, Layout, gemm};
use crate::gpu::score::{MOST_THREADS, Space, threads, typed};
use crate::gpu::{Arg, Grid, Module, args, launch};
use crate::loss::{CrossEntropy, Outputs};
use crate::{DType, Result, View, ViewMut, elementwise};
use std::ops::Range;

/// Elements taken at a time where rows allow.
const WIDE: usize = 4;

/// The specialisations that launches choose from, with the most threads of a block.
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

pub(crate) fn linear_cross_entropy(p: &CrossEntropy, x: View, w: View, targets: View, mut out: Outputs) -> Result<()> {
    crate::gpu::refuse_f64("linear_cross_entropy", x.dtype())?;
    let (device, dtype) = (x.device(), x.dtype());
    let (module, _) = rows(dtype, p.vocab, true);
    let all_rows = Grid::new(1, threads(p.rows));
    let mut count = device.allocate(size_of::<i32>())?;
    let count = ViewMut::new(&mut count, DType::I32, 0, 1);
    let args = args![targets, &count, p.rows as i64, p.ignore_index];
    launch(device, &module, "count_rows", all_rows, args)?;

    let (count, with_gradient) = (count.read(), out.dx.is_some() || out.dw.is_some());
    let inputs = Inputs { p, x, w, targets, count };
    let mut space = Space::new(device, dtype, p.rows, 1, p.vocab, with_gradient)?;
    for chunk in space.chunks(p.rows) {
        for slice in space.slices(&chunk) {
            let (logits, dlogits) = space.of_slice(&chunk, &slice);
            inputs.score(&module, slice, logits, dlogits, &mut out)?;
        }
        inputs.gradients(chunk.clone(), space.gradient(&chunk), &mut out)?;
    }
    if let Some(dw) = out.dw.as_mut().filter(|_| p.rows == 0) {
        elementwise::fill(dw, 0.0)?;
    }
    let args = args![&out.losses, count, &out.loss, p.rows as i64];
    launch(device, &module, "mean_loss", all_rows, args)
}

/// What all chunks read; `count` is the number of rows that are not ignored.
struct Inputs<'a> {
    p: &'a CrossEntropy,
    x: View<'a>,
    w: View<'a>,
    targets: View<'a>,
    count: View<'a>,
}

impl Inputs<'_> {
    /// Losses, predictions and the gradient of the logits for some rows.
    fn score(
        &self,
        module: &Module,
        rows: Range<usize>,
        mut logits: ViewMut,
        dlogits: Arg,
        out: &mut Outputs,
    ) -> Result<()> {
        let CrossEntropy { dim, vocab, .. } = *self.p;
        let (first, len) = (rows.start, rows.len());
        let x = self.x.part(first * dim, len * dim);
        let shape = Gemm::new(Layout::Nt, len, vocab, dim);
        gemm(shape, x, self.w, &mut logits, Epilogue::default())?;
        let args = args![
            &logits,
            dlogits,
            self.targets.part(first, len),
            self.count,
            &out.losses.part(first, len),
            &out.predictions.part(first, len),
            vocab as i32,
            self.p.ignore_index,
        ];
        launch(x.device(), module, "cross_entropy", Grid::new(len, threads(vocab)), args)
    }

    /// `dx = dz·w` for some rows, and their part of `dw = dzᵀ·x`.
    fn gradients(&self, rows: Range<usize>, dlogits: View, out: &mut Outputs) -> Result<()> {
        let CrossEntropy { dim, vocab, .. } = *self.p;
        let (start, len) = (rows.start * dim, rows.len() * dim);
        let mut dx = out.dx.as_mut().map(|dx| dx.part(start, len));
        if let Some(dw) = &mut out.dw {
            // Where dx is to be, rows of x are kept until they have made dw.
            let dtype = self.x.dtype();
            let spare_len = if dx.is_none() { len } else { 0 };
            let mut spare = self.x.device().allocate(spare_len * dtype.size())?;
            let mut spare = ViewMut::new(&mut spare, dtype, 0, spare_len);
            let mut kept = match &mut dx {
                Some(dx) => dx.part(0, len),
                None => spare.part(0, len),
            };
            self.keep_counted(&rows, &mut kept)?;
            let epilogue = Epilogue { accumulate: rows.start > 0, ..Epilogue::default() };
            let shape = Gemm::new(Layout::Tn, vocab, dim, rows.len());
            gemm(shape, dlogits, kept.read(), dw, epilogue)?;
        }
        if let Some(dx) = &mut dx {
            let shape = Gemm::new(Layout::Nn, rows.len(), dim, vocab);
            gemm(shape, dlogits, self.w, dx, Epilogue::default())?;
        }
        Ok(())
    }

    /// Copies the rows of `x` that count, and writes zeros for the others.
    fn keep_counted(&self, counted: &Range<usize>, kept: &mut ViewMut) -> Result<()> {
        let (dim, len) = (self.p.dim, kept.len());
        let x = self.x.part(counted.start * dim, len);
        let targets = self.targets.part(counted.start, counted.len());
        let aligned = args![x, &*kept].iter().all(|arg| arg.bits.is_multiple_of(16));
        let (module, width) = rows(x.dtype(), dim, aligned);
        let args = args![x, targets, &*kept, len as i64, dim as i32, self.p.ignore_index];
        launch(x.device(), &module, "keep_counted", Grid::over(len, width), args)
    }
}
