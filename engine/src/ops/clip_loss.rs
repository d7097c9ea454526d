//! The contrastive loss of CLIP (Radford et al. 2021), without the N×N matrix.

use super::cross_entropy::scaled;
use crate::Tensor;
use crate::error::{Result, expect_shape, mismatch};
use crate::tape::{Context, Op, Var, record};
use kernels::contrastive as kernel;

/// Symmetric cross-entropy of image–text scores `exp(log_scale) · max_q ⟨image[i, q], text[j]⟩` with the pairs (i, i):
/// image (n, dim), or (n, queries, dim) as in BLIP-2; text (n, dim), both of unit length; log_scale (1) in the
/// accumulator's type, held at ln 100 by whoever trains it. A scalar (1).
pub fn clip_loss(image: &Var, text: &Var, log_scale: &Var) -> Result<Var> {
    let problem = problem("clip_loss", image, text)?;
    let accumulated = |n: usize| Tensor::empty(text.tensor().device(), text.dtype().accumulator(), [n]);
    let (mut loss, mut row_lse, mut col_lse) = (accumulated(1)?, accumulated(problem.n)?, accumulated(problem.n)?);
    let log_scale_value = log_scale.tensor().cast(text.dtype().accumulator())?;
    let features = features(image.tensor(), text.tensor(), &log_scale_value);
    let (row, col) = (&mut row_lse.view_mut()?, &mut col_lse.view_mut()?);
    kernel::clip_loss(&problem, features, &mut loss.view_mut()?, row, col)?;
    let (image_value, text_value) = (image.tensor().clone(), text.tensor().clone());
    Ok(record(&[image, text, log_scale], loss, || ClipLoss {
        problem,
        image: image_value,
        text: text_value,
        log_scale: log_scale_value,
        row_lse,
        col_lse,
    }))
}

/// The sizes of a contrastive loss.
pub(super) fn problem(op: &'static str, image: &Var, text: &Var) -> Result<kernel::Contrastive> {
    let (n, groups, dim) = match image.shape()[..] {
        [n, dim] => (n, 1, dim),
        [n, groups, dim] => (n, groups, dim),
        _ => {
            return mismatch(op, format!("image features {}, expected (n, dim) or (n, queries, dim)", image.shape()));
        }
    };
    expect_shape(op, "text features", text.shape(), [n, dim])?;
    Ok(kernel::Contrastive { n, dim, groups })
}

struct ClipLoss {
    problem: kernel::Contrastive,
    image: Tensor,
    text: Tensor,
    log_scale: Tensor,
    row_lse: Tensor,
    col_lse: Tensor,
}

impl Op for ClipLoss {
    fn name(&self) -> &'static str {
        "clip_loss"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let (mut dimage, mut dtext, mut dlog_scale) = (self.image.like()?, self.text.like()?, dy.like()?);
        kernel::clip_loss_backward(
            &self.problem,
            features(&self.image, &self.text, &self.log_scale),
            self.row_lse.view(),
            self.col_lse.view(),
            gradients(&mut dimage, &mut dtext, &mut dlog_scale)?,
        )?;
        Ok(vec![scaled(Some(dimage), &dy)?, scaled(Some(dtext), &dy)?, scaled(Some(dlog_scale), &dy)?])
    }
}

pub(super) fn features<'a>(image: &'a Tensor, text: &'a Tensor, log_scale: &'a Tensor) -> kernel::Features<'a> {
    kernel::Features { image: image.view(), text: text.view(), log_scale: log_scale.view() }
}

pub(super) fn gradients<'a>(
    dimage: &'a mut Tensor,
    dtext: &'a mut Tensor,
    dlog_scale: &'a mut Tensor,
) -> Result<kernel::Gradients<'a>> {
    Ok(kernel::Gradients { dimage: dimage.view_mut()?, dtext: dtext.view_mut()?, dlog_scale: dlog_scale.view_mut()? })
}
