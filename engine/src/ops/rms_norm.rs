//! Root-mean-square normalisation (Zhang and Sennrich 2019).

use crate::Tensor;
use crate::error::{Result, expect_shape};
use crate::tape::{Context, Op, Var, record};
use kernels::norm;

/// `x / √(mean(x²) + eps) · w` over the last dimension: x (rows, dim), w (dim).
pub fn rms_norm(x: &Var, w: &Var, eps: f64) -> Result<Var> {
    expect_shape("rms_norm", "the weight", w.shape(), [x.shape().last()])?;
    let mut y = x.tensor().like()?;
    let mut rstd = Tensor::empty(x.tensor().device(), x.dtype().accumulator(), [x.shape().rows()])?;
    norm::rms_norm(x.tensor().view(), w.tensor().view(), &mut y.view_mut()?, &mut rstd.view_mut()?, eps)?;
    let (x_value, w_value) = (x.tensor().clone(), w.tensor().clone());
    Ok(record(&[x, w], y, || RmsNorm { x: x_value, w: w_value, rstd }))
}

struct RmsNorm {
    x: Tensor,
    w: Tensor,
    rstd: Tensor,
}

impl Op for RmsNorm {
    fn name(&self) -> &'static str {
        "rms_norm"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let RmsNorm { x, w, rstd } = *self;
        let mut dx = dy.like()?;
        let mut dw = Tensor::empty(x.device(), x.dtype().accumulator(), w.shape())?;
        let (xv, wv, rv) = (x.view(), w.view(), rstd.view());
        norm::rms_norm_backward(xv, wv, rv, dy.view(), &mut dx.view_mut()?, &mut dw.view_mut()?)?;
        Ok(vec![context.needs[0].then_some(dx), context.needs[1].then_some(dw)])
    }
}
