//! Rows scaled to unit length.

use crate::Tensor;
use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use kernels::norm;

/// `x / max(‖x‖₂, eps)` over the last dimension.
pub fn l2_normalize(x: &Var, eps: f64) -> Result<Var> {
    let mut y = x.tensor().like()?;
    let mut inverse = Tensor::empty(x.tensor().device(), x.dtype().accumulator(), [x.shape().rows()])?;
    let dim = x.shape().last();
    norm::l2_normalize(x.tensor().view(), &mut y.view_mut()?, &mut inverse.view_mut()?, dim, eps)?;
    let saved = y.clone();
    Ok(record(&[x], y, || L2Normalize { y: saved, inverse }))
}

struct L2Normalize {
    y: Tensor,
    inverse: Tensor,
}

impl Op for L2Normalize {
    fn name(&self) -> &'static str {
        "l2_normalize"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut dx = dy.like()?;
        let dim = dy.shape().last();
        norm::l2_normalize_backward(self.y.view(), self.inverse.view(), dy.view(), &mut dx.view_mut()?, dim)?;
        Ok(vec![Some(dx)])
    }
}
