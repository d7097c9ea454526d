//! Launches of `matching.cu`.

use crate::gpu::{Grid, Module, Workspace, args, launch};
use crate::matching::{Lists, Matching};
use crate::{DType, Result, View};

const THREADS: usize = 256;
const WARP: usize = 32;

fn specialise(t: DType) -> Module {
    Module::new("matching").stored_as("TYPE_T", t)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    [DType::F32, DType::BF16].map(|t| (specialise(t), THREADS)).to_vec()
}

pub(crate) fn draw_pairs(
    p: &Matching,
    scores: View,
    log_scale: View,
    truth: View,
    uniform: View,
    Lists { images, texts, labels }: Lists,
) -> Result<()> {
    crate::gpu::refuse_f64("draw_pairs", scores.dtype())?;
    let (device, module, n) = (scores.device(), specialise(scores.dtype()), p.n);
    let mut best = Workspace::new(device, DType::F32, n * n)?;
    let sizes = (n as i64, p.queries as i64);
    let args = args![scores, &best.view_mut(), log_scale, p.hardness as f32, sizes.0, sizes.1];
    launch(device, &module, "best_scores", Grid::over(n * n, 1), args)?;
    let grid = Grid::new((2 * n * WARP).div_ceil(THREADS), THREADS);
    let args = args![best.view(), truth, uniform, &images, &texts, &labels, sizes.0];
    launch(device, &module, "draw_pairs", grid, args)
}
