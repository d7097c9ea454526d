//! The sigmoid contrastive loss of SigLIP (Zhai et al. 2023), without the N×N matrix.

use super::clip_loss::problem;
use super::cross_entropy::scaled;
use crate::Tensor;
use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use kernels::contrastive as kernel;

/// `−1/n · Σᵢⱼ log σ(±(exp(log_scale)·⟨image[i], text[j]⟩ + bias))`, + for pairs (i, i): image (n, dim) or
/// (n, queries, dim), text (n, dim), both of unit length; log_scale and bias (1). A scalar (1).
pub fn siglip_loss(image: &Var, text: &Var, log_scale: &Var, bias: &Var) -> Result<Var> {
    let problem = problem("siglip_loss", image, text)?;
    let accumulator = text.dtype().accumulator();
    let mut loss = Tensor::empty(text.tensor().device(), accumulator, [1])?;
    let (scale_value, bias_value) = (log_scale.tensor().cast(accumulator)?, bias.tensor().cast(accumulator)?);
    let (iv, tv) = (image.tensor().view(), text.tensor().view());
    kernel::siglip_loss(&problem, iv, tv, scale_value.view(), bias_value.view(), &mut loss.view_mut()?)?;
    let (image_value, text_value) = (image.tensor().clone(), text.tensor().clone());
    Ok(record(&[image, text, log_scale, bias], loss, || SiglipLoss {
        problem,
        image: image_value,
        text: text_value,
        log_scale: scale_value,
        bias: bias_value,
    }))
}

struct SiglipLoss {
    problem: kernel::Contrastive,
    image: Tensor,
    text: Tensor,
    log_scale: Tensor,
    bias: Tensor,
}

impl Op for SiglipLoss {
    fn name(&self) -> &'static str {
        "siglip_loss"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let (mut dimage, mut dtext) = (self.image.like()?, self.text.like()?);
        let (mut dlog_scale, mut dbias) = (dy.like()?, dy.like()?);
        kernel::siglip_loss_backward(
            &self.problem,
            self.image.view(),
            self.text.view(),
            self.log_scale.view(),
            self.bias.view(),
            &mut dimage.view_mut()?,
            &mut dtext.view_mut()?,
            &mut dlog_scale.view_mut()?,
            &mut dbias.view_mut()?,
        )?;
        [dimage, dtext, dlog_scale, dbias].into_iter().map(|g| scaled(Some(g), &dy)).collect()
    }
}
