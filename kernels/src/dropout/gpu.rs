//! Launches of `dropout.cu`.

use crate::gpu::{Grid, Module, args, launch, width};
use crate::{DType, Result, View, ViewMut};

fn specialise(t: DType, w: usize) -> Module {
    Module::new("dropout").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), 256)).to_vec()
}

pub(crate) fn dropout(x: View, y: &mut ViewMut, p: f64, seed: u64) -> Result<()> {
    crate::gpu::refuse_f64("dropout", x.dtype())?;
    let (t, len) = (x.dtype(), x.len());
    let w = width(t.size(), &[len], args![x, &*y]);
    let scale = 1.0 / (1.0 - p);
    let args = args![x, &*y, len as i64, p as f32, scale as f32, seed];
    launch(x.device(), &specialise(t, w), "dropout", Grid::over(len, w), args)
}
