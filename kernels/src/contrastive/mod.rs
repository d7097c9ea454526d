//! Contrastive losses between images and texts, forward and backward, from blocks of rows of the score matrix.
//!
//! The score of image i and text j is `s_ij = e^log_scale · max_q ⟨image[i, q], text[j]⟩`: with one query per image that
//! of CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023), with several that of BLIP-2 (Li et al., 2023). Among equal
//! queries the lowest counts, and gets the gradient. Rows are taken as they are: the caller normalises them, and keeps `log_scale` within bounds.
//!
//! The (n, n) matrix never exists: blocks of rows are computed, reduced and dropped, and computed again for the gradient.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{Result, View, ViewMut, profile};

/// Sizes of a contrastive loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contrastive {
    /// Pairs of image and text.
    pub n: usize,
    /// Width of a row.
    pub dim: usize,
    /// Queries per image: 1 for CLIP.
    pub groups: usize,
}

impl Contrastive {
    /// Checks the sizes and the arguments that all the losses have.
    fn call(&self, op: &'static str, image: View, text: View, log_scale: View) -> Result<Call> {
        let call = Call::new(op, "image", &image)?;
        if self.n == 0 || self.dim == 0 || self.groups == 0 {
            return Err(call.refuse(format!("needs n, dim and groups of at least 1, got {self:?}")));
        }
        call.same("image", &image, self.n * self.groups * self.dim)?;
        call.same("text", &text, self.n * self.dim)?;
        call.accumulator("log_scale", &log_scale, 1)?;
        profile::computes(self.products(1.0));
        Ok(call)
    }

    /// Floating-point operations of so many matrix products of all images with all texts.
    fn products(&self, count: f64) -> f64 {
        count * 2.0 * (self.n * self.groups) as f64 * self.n as f64 * self.dim as f64
    }

    /// Checks the gradients that all the losses have.
    fn gradients(&self, call: &Call, dimage: &ViewMut, dtext: &ViewMut, dlog_scale: &ViewMut) -> Result<()> {
        // The scores once more, and the gradients of both sides.
        profile::computes(self.products(3.0));
        call.same("dimage", dimage, self.n * self.groups * self.dim)?;
        call.same("dtext", dtext, self.n * self.dim)?;
        call.accumulator("dlog_scale", dlog_scale, 1)
    }
}

/// CLIP's loss: the mean of the cross-entropies of each image over the texts and of each text over the images.
///
/// `image` (n·groups, dim) and `text` (n, dim) of T, `log_scale` (1) of A. Outputs in A: `loss` (1), `row_lse` (n) and
/// `col_lse` (n), the log-sum-exps of the scores of each image and of each text, which the derivative needs.
///
/// # Errors
/// Lengths, types or devices that do not fit; a size of 0.
pub fn clip_loss(
    p: &Contrastive,
    image: View,
    text: View,
    log_scale: View,
    loss: &mut ViewMut,
    row_lse: &mut ViewMut,
    col_lse: &mut ViewMut,
) -> Result<()> {
    let call = p.call("clip_loss", image, text, log_scale)?;
    call.accumulator("loss", loss, 1)?;
    call.accumulator("row_lse", row_lse, p.n)?;
    call.accumulator("col_lse", col_lse, p.n)?;
    on_device!("clip_loss", image, T => loss.slice_mut()[0] = cpu::clip_loss::<T>(
        p,
        image.slice(),
        text.slice(),
        log_scale.slice()[0],
        row_lse.slice_mut(),
        col_lse.slice_mut(),
    ), gpu => gpu::clip_loss(p, image, text, log_scale, loss, row_lse, col_lse))
}

/// Derivative of [`clip_loss`] for upstream gradient 1.
///
/// Takes what [`clip_loss`] took and wrote. Outputs: `dimage` (n·groups, dim) and `dtext` (n, dim) of T, `dlog_scale` (1)
/// of A.
pub fn clip_loss_backward(
    p: &Contrastive,
    image: View,
    text: View,
    log_scale: View,
    row_lse: View,
    col_lse: View,
    dimage: &mut ViewMut,
    dtext: &mut ViewMut,
    dlog_scale: &mut ViewMut,
) -> Result<()> {
    let call = p.call("clip_loss_backward", image, text, log_scale)?;
    p.gradients(&call, dimage, dtext, dlog_scale)?;
    call.accumulator("row_lse", &row_lse, p.n)?;
    call.accumulator("col_lse", &col_lse, p.n)?;
    on_device!("clip_loss_backward", image, T => dlog_scale.slice_mut()[0] = cpu::clip_loss_backward::<T>(
        p,
        image.slice(),
        text.slice(),
        log_scale.slice()[0],
        row_lse.slice(),
        col_lse.slice(),
        dimage.slice_mut(),
        dtext.slice_mut(),
    ), gpu => gpu::clip_loss_backward(
        p, image, text, log_scale, row_lse, col_lse, dimage, dtext, dlog_scale,
    ))
}

/// SigLIP's loss: −1/n Σ_ij ln σ(z_ij·(s_ij + bias)), with z = 1 for pairs that belong together and −1 for all others.
///
/// `image` (n·groups, dim) and `text` (n, dim) of T; `log_scale`, `bias` and `loss` (1) of A.
///
/// # Errors
/// Lengths, types or devices that do not fit; a size of 0.
pub fn siglip_loss(
    p: &Contrastive,
    image: View,
    text: View,
    log_scale: View,
    bias: View,
    loss: &mut ViewMut,
) -> Result<()> {
    let call = p.call("siglip_loss", image, text, log_scale)?;
    call.accumulator("bias", &bias, 1)?;
    call.accumulator("loss", loss, 1)?;
    on_device!("siglip_loss", image, T => loss.slice_mut()[0] = cpu::siglip_loss::<T>(
        p,
        image.slice(),
        text.slice(),
        log_scale.slice()[0],
        bias.slice()[0],
    ), gpu => gpu::siglip_loss(p, image, text, log_scale, bias, loss))
}

/// Derivative of [`siglip_loss`] for upstream gradient 1.
///
/// Takes what [`siglip_loss`] took. Outputs: `dimage` (n·groups, dim) and `dtext` (n, dim) of T, `dlog_scale` and `dbias`
/// (1) of A.
pub fn siglip_loss_backward(
    p: &Contrastive,
    image: View,
    text: View,
    log_scale: View,
    bias: View,
    dimage: &mut ViewMut,
    dtext: &mut ViewMut,
    dlog_scale: &mut ViewMut,
    dbias: &mut ViewMut,
) -> Result<()> {
    let call = p.call("siglip_loss_backward", image, text, log_scale)?;
    p.gradients(&call, dimage, dtext, dlog_scale)?;
    call.accumulator("bias", &bias, 1)?;
    call.accumulator("dbias", dbias, 1)?;
    on_device!("siglip_loss_backward", image, T => {
        (dlog_scale.slice_mut()[0], dbias.slice_mut()[0]) = cpu::siglip_loss_backward::<T>(
            p,
            image.slice(),
            text.slice(),
            log_scale.slice()[0],
            bias.slice()[0],
            dimage.slice_mut(),
            dtext.slice_mut(),
        )
    }, gpu => gpu::siglip_loss_backward(
        p, image, text, log_scale, bias, dimage, dtext, dlog_scale, dbias,
    ))
}
