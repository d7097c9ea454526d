//! Launches of `optimizer.cu`.

use crate::gpu::{Grid, Module, Workspace, args, launch, width};
use crate::optimizer::{AdamW, NormScale, Segment, State};
use crate::{DType, Result, View, ViewMut};

const THREADS: usize = 256;
/// Vectors that a block of `adamw` steps.
const VECTORS: usize = 4 * THREADS;
/// Most blocks that leave a part of a sum.
const PARTS: usize = 1024;

fn specialise(t: DType, w: usize) -> Module {
    Module::new("optimizer").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (F32, 1), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), THREADS)).to_vec()
}

/// A `Segment` of optimizer.cu.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
struct Row {
    first_block: i64,
    start: i64,
    end: i64,
    keep: f32,
    rate: f32,
}

/// The rows of a step's table, and the number of blocks that step them in vectors of `w`.
fn table(p: &AdamW, segments: &[Segment], w: usize) -> (Vec<Row>, usize) {
    let (mut rows, mut blocks) = (Vec::with_capacity(segments.len()), 0);
    for Segment { range, lr, weight_decay } in segments.iter().filter(|segment| !segment.range.is_empty()) {
        rows.push(Row {
            first_block: blocks as i64,
            start: range.start as i64,
            end: range.end as i64,
            keep: (1.0 - lr * weight_decay) as f32,
            rate: (lr / correction(p.beta1, p.step)) as f32,
        });
        blocks += (range.end.div_ceil(w) - range.start / w).div_ceil(VECTORS);
    }
    (rows, blocks)
}

/// What averages of a few steps, which began at 0, are too small by.
fn correction(beta: f64, step: u64) -> f64 {
    1.0 - beta.powf(step as f64)
}

pub(crate) fn adamw(p: &AdamW, segments: &[Segment], state: State, grad_scale: Option<View>) -> Result<()> {
    let State { weights, grads, m, v, low } = state;
    crate::gpu::refuse_f64("adamw", weights.dtype())?;
    let w = width(4, &[], args![&weights, grads, &m, &v, low.as_ref()]);
    let (rows, blocks) = table(p, segments, w);
    let words: &[i32] = bytemuck::cast_slice(&rows);
    let mut table = Workspace::new(weights.device(), DType::I32, words.len())?;
    table.view_mut().upload(words)?;
    let args = args![
        &weights,
        grads,
        &m,
        &v,
        low.as_ref(),
        table.view(),
        rows.len() as i32,
        (1.0 / correction(p.beta2, p.step).sqrt()) as f32,
        p.eps as f32,
        p.beta1 as f32,
        (1.0 - p.beta1) as f32,
        p.beta2 as f32,
        (1.0 - p.beta2) as f32,
        i32::from(p.stochastic.is_some()),
        p.stochastic.unwrap_or(0) as i64,
        grad_scale.as_ref()
    ];
    let module = specialise(DType::F32, w);
    launch(weights.device(), &module, "adamw", Grid::new(blocks, THREADS), args)
}

pub(crate) fn sum_squares(x: View, out: &mut ViewMut) -> Result<()> {
    crate::gpu::refuse_f64("sum_squares", x.dtype())?;
    let (device, len) = (x.device(), x.len());
    let w = width(x.dtype().size(), &[len], args![x]);
    let module = specialise(x.dtype(), w);
    let blocks = len.div_ceil(THREADS * w).min(PARTS);
    let mut parts = Workspace::new(device, DType::F64, blocks)?;
    let args = args![x, &parts.view_mut(), len as i64];
    launch(device, &module, "sum_squares", Grid::new(blocks, THREADS), args)?;
    let args = args![parts.view(), out, blocks as i64];
    launch(device, &module, "sum_parts", Grid::new(1, THREADS), args)
}

pub(crate) fn norm_scale(squares: View, rule: NormScale, out: &mut ViewMut) -> Result<()> {
    crate::gpu::refuse_f64("norm_scale", out.dtype())?;
    // One formula for both: scale / (norm + tiny), at most `most`.
    let (scale, tiny, most) = match rule {
        NormScale::Clip(limit) => (limit, 0.0, 1.0),
        NormScale::Unit => (1.0, NormScale::TINY, f64::INFINITY),
    };
    let args = args![squares, &*out, scale, tiny, most];
    let module = specialise(DType::F32, 1);
    launch(out.device(), &module, "norm_scale", Grid::new(1, 1), args)
}
