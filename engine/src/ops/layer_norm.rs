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
    norm::layer_norm(norm::LayerNorm {
        x: x.tensor().view(),
        w: w.tensor().view(),
        b: b.tensor().view(),
        y: y.view_mut()?,
        mean: mean.view_mut()?,
        rstd: rstd.view_mut()?,
        eps,
    })?;
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
        norm::layer_norm_backward(norm::LayerNormBackward {
            x: x.view(),
            w: w.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dy: dy.view(),
            dx: dx.view_mut()?,
            dw: dw.view_mut()?,
            db: db.view_mut()?,
        })?;
        let needs = &context.needs;
        Ok(vec![needs[0].then_some(dx), needs[1].then_some(dw), needs[2].then_some(db)])
    }
}
