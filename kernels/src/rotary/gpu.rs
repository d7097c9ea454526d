//! Launches of `rotary.cu`.

use crate::gpu::{Grid, Module, args, launch, width};
use crate::{DType, Result, View, ViewMut};

fn specialise(t: DType, w: usize) -> Module {
    Module::new("rotary").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), 256)).to_vec()
}

pub(crate) fn rotary(
    x: View,
    positions: View,
    inv_freq: View,
    y: &mut ViewMut,
    heads: usize,
    inverse: bool,
) -> Result<()> {
    crate::gpu::refuse_f64("rotary", x.dtype())?;
    let (tokens, half) = (positions.len(), inv_freq.len());
    let w = width(x.dtype().size(), &[half], args![x, &*y]);
    let direction = if inverse { -1.0_f32 } else { 1.0 };
    let args = args![x, positions, inv_freq, &*y, tokens as i64, heads as i32, half as i32, direction];
    let grid = Grid::over(tokens * half, w);
    launch(x.device(), &specialise(x.dtype(), w), "rotary", grid, args)
}
