//! Launches of `pixels.cu`.

use crate::gpu::{Grid, Module, args, launch, width};
use crate::pixels::Normalise;
use crate::{DType, Result, View, ViewMut};

fn specialise(t: DType, w: usize) -> Module {
    Module::new("pixels").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), 256)).to_vec()
}

pub(crate) fn normalise(p: &Normalise, bytes: View, out: &mut ViewMut) -> Result<()> {
    let t = out.dtype();
    crate::gpu::refuse_f64("normalise", t)?;
    let w = width(t.size(), &[p.area], args![bytes, &*out]);
    let pixels = out.len() / 3;
    let [r, g, b] = p.mean;
    let [r_deviation, g_deviation, b_deviation] = p.deviation;
    let args = args![bytes, &*out, pixels as i64, p.area as i64, r, g, b, r_deviation, g_deviation, b_deviation];
    launch(out.device(), &specialise(t, w), "normalise", Grid::over(pixels, w), args)
}
