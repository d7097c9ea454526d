//! The sigmoid contrastive loss of SigLIP (Zhai et al. 2023), without the N×N matrix.

use super::clip_loss::{features, gradients, problem};
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
    let features = features(image.tensor(), text.tensor(), &scale_value);
    kernel::siglip_loss(&problem, features, bias_value.view(), &mut loss.view_mut()?)?;
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
            features(&self.image, &self.text, &self.log_scale),
            self.bias.view(),
            gradients(&mut dimage, &mut dtext, &mut dlog_scale)?,
            &mut dbias.view_mut()?,
        )?;
        [dimage, dtext, dlog_scale, dbias].into_iter().map(|g| scaled(Some(g), &dy)).collect()
    }
}
