//! Launches of `cuda/optimizer.cu`.

use super::{Grid, Module, Workspace, args, launch, width};
use crate::optimizer::{AdamW, NormScale};
use crate::{DType, Result, View, ViewMut};

const THREADS: usize = 256;
/// Most blocks that leave a part of a sum.
const PARTS: usize = 1024;

fn specialise(t: DType, w: usize) -> Module {
    Module::new("optimizer").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (F32, 1), (BF16, 8), (BF16, 1)]
        .map(|(t, w)| (specialise(t, w), THREADS))
        .to_vec()
}

pub(crate) fn adamw(
    p: &AdamW,
    weights: &mut ViewMut,
    grads: View,
    grad_scale: Option<View>,
    m: &mut ViewMut,
    v: &mut ViewMut,
    low: Option<&ViewMut>,
) -> Result<()> {
    super::refuse_f64("adamw", weights.dtype())?;
    let len = weights.len();
    let w = width(4, &[len], args![&*weights, grads, &*m, &*v, low]);
    let correction = |beta: f64| 1.0 - beta.powf(p.step as f64);
    let args = args![
        &*weights,
        grads,
        m,
        v,
        low,
        len as i64,
        (1.0 - p.lr * p.weight_decay) as f32,
        (p.lr / correction(p.beta1)) as f32,
        (1.0 / correction(p.beta2).sqrt()) as f32,
        p.eps as f32,
        p.beta1 as f32,
        (1.0 - p.beta1) as f32,
        p.beta2 as f32,
        (1.0 - p.beta2) as f32,
        grad_scale.as_ref()
    ];
    let module = specialise(DType::F32, w);
    launch(weights.device(), &module, "adamw", Grid::over(len, w), args)
}

pub(crate) fn sum_squares(x: View, out: &mut ViewMut) -> Result<()> {
    super::refuse_f64("sum_squares", x.dtype())?;
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
    super::refuse_f64("norm_scale", out.dtype())?;
    // One formula for both: scale / (norm + tiny), at most `most`.
    let (scale, tiny, most) = match rule {
        NormScale::Clip(limit) => (limit, 0.0, 1.0),
        NormScale::Unit => (1.0, NormScale::TINY, f64::INFINITY),
    };
    let args = args![squares, &*out, scale, tiny, most];
    let module = specialise(DType::F32, 1);
    launch(out.device(), &module, "norm_scale", Grid::new(1, 1), args)
}
