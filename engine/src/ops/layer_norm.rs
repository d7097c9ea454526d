//! Layer normalisation (Ba et al. 2016).

use crate::Tensor;
use crate::error::{Result, expect_shape};
use crate::tape::{Context, Op, Var, record};
use kernels::norm;

/// `(x − mean) / √(variance + eps) · w + b` over the last dimension: x (rows, dim), w and b (dim).
pub fn layer_norm(x: &Var, w: &Var, b: &Var, eps: f64) -> Result<Var> {
    let dim = x.shape().last();
    expect_shape("layer_norm", "the weight", w.shape(), [dim])?;
    expect_shape("layer_norm", "the bias", b.shape(), [dim])?;
    let mut y = x.tensor().like()?;
    let statistics = || Tensor::empty(x.tensor().device(), x.dtype().accumulator(), [x.shape().rows()]);
    let (mut mean, mut rstd) = (statistics()?, statistics()?);
    let (xv, wv, bv) = (x.tensor().view(), w.tensor().view(), b.tensor().view());
    norm::layer_norm(xv, wv, bv, &mut y.view_mut()?, &mut mean.view_mut()?, &mut rstd.view_mut()?, eps)?;
    let (x_value, w_value) = (x.tensor().clone(), w.tensor().clone());
    Ok(record(&[x, w, b], y, || LayerNorm { x: x_value, w: w_value, mean, rstd }))
}

struct LayerNorm {
    x: Tensor,
    w: Tensor,
    mean: Tensor,
    rstd: Tensor,
}

impl Op for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let LayerNorm { x, w, mean, rstd } = *self;
        let accumulated = || Tensor::empty(x.device(), x.dtype().accumulator(), w.shape());
        let (mut dx, mut dw, mut db) = (dy.like()?, accumulated()?, accumulated()?);
        norm::layer_norm_backward(
            x.view(),
            w.view(),
            mean.view(),
            rstd.view(),
            dy.view(),
            &mut dx.view_mut()?,
            &mut dw.view_mut()?,
            &mut db.view_mut()?,
        )?;
        let needs = &context.needs;
        Ok(vec![needs[0].then_some(dx), needs[1].then_some(dw), needs[2].then_some(db)])
    }
}
