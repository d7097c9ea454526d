//! Launches of `embedding.cu`.

use crate::gpu::{Grid, Module, Workspace, args, launch, width};
use crate::{DType, Error, Result, View, ViewMut};

const THREADS: usize = 256;
/// Table rows of a range, as in the source.
const RANGE: usize = 256;

fn specialise(t: DType, w: usize) -> Module {
    Module::new("embedding").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), THREADS)).to_vec()
}

pub(crate) fn embedding(table: View, ids: View, out: &mut ViewMut, vocab: usize, dim: usize) -> Result<()> {
    crate::gpu::refuse_f64("embedding", table.dtype())?;
    // Integers are moved as floats, which spares a module.
    let t = if table.dtype() == DType::I32 { DType::F32 } else { table.dtype() };
    let len = out.len();
    let w = width(t.size(), &[dim], args![table, &*out]);
    let args = args![table, ids, &*out, len as i64, vocab as i64, dim as i64];
    launch(table.device(), &specialise(t, w), "gather", Grid::over(len, w), args)
}

pub(crate) fn embedding_backward(
    ids: View,
    dout: View,
    dtable: &mut ViewMut,
    vocab: usize,
    dim: usize,
    accumulate: bool,
) -> Result<()> {
    const OP: &str = "embedding_backward";
    crate::gpu::refuse_f64(OP, dout.dtype())?;
    let (device, n) = (ids.device(), ids.len());
    if i32::try_from(n).is_err() {
        let message = format!("{n} ids, places are counted in 32 bits on this device");
        return Err(Error::Value { op: OP, message });
    }
    let ranges = vocab.div_ceil(RANGE);
    let integers = |len| Workspace::new(device, DType::I32, len);
    let (mut counts, mut starts, mut places) = (integers(ranges)?, integers(ranges)?, integers(n)?);
    let module = specialise(dout.dtype(), width(dout.dtype().size(), &[dim], args![dout]));
    let (n, vocab_arg, dim) = (n as i64, vocab as i64, dim as i64);

    let per_range = Grid::new(ranges, THREADS);
    let args = args![ids, &counts.view_mut(), n, vocab_arg];
    launch(device, &module, "count_ranges", per_range, args)?;
    let args = args![ids, counts.view(), &starts.view_mut(), &places.view_mut(), n, vocab_arg];
    launch(device, &module, "list_ranges", per_range, args)?;
    let args = args![ids, dout, counts.view(), starts.view(), places.view(), dtable, dim, i32::from(accumulate)];
    launch(device, &module, "sum_rows", Grid::new(vocab, THREADS), args)
}
