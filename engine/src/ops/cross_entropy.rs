//! The last linear layer and its cross-entropy in one, without ever holding all logits.

use crate::error::{Result, expect_shape, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{DType, Tensor};
use kernels::elementwise::{axpy_by, scale_by};
use kernels::loss as kernel;

/// A cross-entropy and what is worth logging about it.
pub struct CrossEntropy {
    /// The mean over rows that count: a scalar (1) in the accumulator's type.
    pub loss: Var,
    /// Each row's loss, 0 where ignored: (rows) in the accumulator's type.
    pub losses: Tensor,
    /// Each row's most likely id: (rows) I32.
    pub predictions: Tensor,
}

/// Cross-entropy of the logits `x·wᵀ` against `targets`: x (rows, dim), w (vocab, dim), targets (rows) I32;
/// rows whose target is −100 do not count.
pub fn linear_cross_entropy(x: &Var, w: &Var, targets: &Tensor) -> Result<CrossEntropy> {
    let (rows, dim) = (x.shape().rows(), x.shape().last());
    let [vocab, inner] = w.shape()[..] else {
        return mismatch("linear_cross_entropy", format!("the weight has shape {}, expected (vocab, dim)", w.shape()));
    };
    expect_shape("linear_cross_entropy", "the weight", w.shape(), [vocab, dim])?;
    debug_assert_eq!(inner, dim);
    let problem = kernel::CrossEntropy { rows, dim, vocab, ignore_index: -100 };
    let (device, accumulator) = (x.tensor().device(), x.dtype().accumulator());
    let mut loss = Tensor::empty(device, accumulator, [1])?;
    let mut losses = Tensor::empty(device, accumulator, [rows])?;
    let mut predictions = Tensor::empty(device, DType::I32, [rows])?;
    let mut dx = x.needs_gradient().then(|| x.tensor().like()).transpose()?;
    let mut dw = w.needs_gradient().then(|| Tensor::empty(device, accumulator, w.shape())).transpose()?;
    let out = kernel::Outputs {
        loss: loss.view_mut()?,
        losses: losses.view_mut()?,
        predictions: predictions.view_mut()?,
        dx: dx.as_mut().map(Tensor::view_mut).transpose()?,
        dw: dw.as_mut().map(Tensor::view_mut).transpose()?,
    };
    kernel::linear_cross_entropy(&problem, x.tensor().view(), w.tensor().view(), targets.view(), out)?;
    let w_tensor = w.tensor().clone();
    let loss = record(&[x, w], loss, || LinearCrossEntropy { w: w_tensor, dx, dw });
    Ok(CrossEntropy { loss, losses, predictions })
}

/// The gradients were computed with the loss; backward only scales them.
struct LinearCrossEntropy {
    w: Tensor,
    dx: Option<Tensor>,
    dw: Option<Tensor>,
}

impl Op for LinearCrossEntropy {
    fn name(&self) -> &'static str {
        "linear_cross_entropy"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let LinearCrossEntropy { w, dx, dw } = *self;
        let dw = match dw {
            Some(made) => context.gradient(1, &w, |dw, add| match add {
                true => Ok(axpy_by(made.view(), dy.view(), dw, 1.0)?),
                false => Ok(scale_by(made.view(), dy.view(), dw, 1.0)?),
            })?,
            None => None,
        };
        Ok(vec![scaled(dx, &dy)?, dw])
    }
}

/// `x · scalar`, the scalar being an upstream gradient on the device.
pub(super) fn scaled(x: Option<Tensor>, scalar: &Tensor) -> Result<Option<Tensor>> {
    let Some(x) = x else { return Ok(None) };
    let mut out = x.like()?;
    scale_by(x.view(), scalar.view(), &mut out.view_mut()?, 1.0)?;
    Ok(Some(out))
}
