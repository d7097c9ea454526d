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

/// What all the losses read.
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    /// (n·groups, dim) of T.
    pub image: View<'a>,
    /// (n, dim) of T.
    pub text: View<'a>,
    /// (1) of A.
    pub log_scale: View<'a>,
}

/// The derivatives that all the losses have.
#[derive(Debug)]
pub struct Gradients<'a> {
    /// (n·groups, dim) of T.
    pub dimage: ViewMut<'a>,
    /// (n, dim) of T.
    pub dtext: ViewMut<'a>,
    /// (1) of A.
    pub dlog_scale: ViewMut<'a>,
}

impl Contrastive {
    /// Checks the sizes and the arguments that all the losses have.
    fn call(&self, op: &'static str, f: &Features) -> Result<Call> {
        let call = Call::new(op, "image", &f.image)?;
        if self.n == 0 || self.dim == 0 || self.groups == 0 {
            return Err(call.refuse(format!("needs n, dim and groups of at least 1, got {self:?}")));
        }
        call.same("image", &f.image, self.n * self.groups * self.dim)?;
        call.same("text", &f.text, self.n * self.dim)?;
        call.accumulator("log_scale", &f.log_scale, 1)?;
        profile::computes(self.products(1.0));
        Ok(call)
    }

    /// Floating-point operations of so many matrix products of all images with all texts.
    fn products(&self, count: f64) -> f64 {
        count * 2.0 * (self.n * self.groups) as f64 * self.n as f64 * self.dim as f64
    }

    /// Checks the gradients that all the losses have.
    fn gradients(&self, call: &Call, g: &Gradients) -> Result<()> {
        // The scores once more, and the gradients of both sides.
        profile::computes(self.products(3.0));
        call.same("dimage", &g.dimage, self.n * self.groups * self.dim)?;
        call.same("dtext", &g.dtext, self.n * self.dim)?;
        call.accumulator("dlog_scale", &g.dlog_scale, 1)
    }
}

/// CLIP's loss: the mean of the cross-entropies of each image over the texts and of each text over the images.
///
/// Outputs in A: `loss` (1), `row_lse` (n) and `col_lse` (n), the log-sum-exps of the scores of each image and of each text,
/// which the derivative needs.
///
/// # Errors
/// A size of 0.
pub fn clip_loss(
    p: &Contrastive,
    f: Features,
    loss: &mut ViewMut,
    row_lse: &mut ViewMut,
    col_lse: &mut ViewMut,
) -> Result<()> {
    let call = p.call("clip_loss", &f)?;
    call.accumulator("loss", loss, 1)?;
    call.accumulator("row_lse", row_lse, p.n)?;
    call.accumulator("col_lse", col_lse, p.n)?;
    let image = f.image;
    on_device!("clip_loss", image, T => {
        loss.slice_mut()[0] = cpu::clip_loss::<T>(p, f, row_lse.slice_mut(), col_lse.slice_mut())
    }, gpu => gpu::clip_loss(p, f, loss, row_lse, col_lse))
}

/// Derivative of [`clip_loss`] for upstream gradient 1, from what that took and wrote.
pub fn clip_loss_backward(p: &Contrastive, f: Features, row_lse: View, col_lse: View, g: Gradients) -> Result<()> {
    let call = p.call("clip_loss_backward", &f)?;
    p.gradients(&call, &g)?;
    call.accumulator("row_lse", &row_lse, p.n)?;
    call.accumulator("col_lse", &col_lse, p.n)?;
    let image = f.image;
    on_device!("clip_loss_backward", image, T => cpu::clip_loss_backward::<T>(p, f, row_lse.slice(), col_lse.slice(), g),
        gpu => gpu::clip_loss_backward(p, f, row_lse, col_lse, g))
}

/// SigLIP's loss: −1/n Σ_ij ln σ(z_ij·(s_ij + bias)), with z = 1 for pairs that belong together and −1 for all others.
///
/// `bias` and `loss` (1) of A.
///
/// # Errors
/// A size of 0.
pub fn siglip_loss(p: &Contrastive, f: Features, bias: View, loss: &mut ViewMut) -> Result<()> {
    let call = p.call("siglip_loss", &f)?;
    call.accumulator("bias", &bias, 1)?;
    call.accumulator("loss", loss, 1)?;
    let image = f.image;
    on_device!("siglip_loss", image, T => loss.slice_mut()[0] = cpu::siglip_loss::<T>(p, f, bias.slice()[0]),
        gpu => gpu::siglip_loss(p, f, bias, loss))
}

/// Derivative of [`siglip_loss`] for upstream gradient 1, from what that took; `dbias` (1) of A.
pub fn siglip_loss_backward(p: &Contrastive, f: Features, bias: View, g: Gradients, dbias: &mut ViewMut) -> Result<()> {
    let call = p.call("siglip_loss_backward", &f)?;
    p.gradients(&call, &g)?;
    call.accumulator("bias", &bias, 1)?;
    call.accumulator("dbias", dbias, 1)?;
    let image = f.image;
    on_device!("siglip_loss_backward", image, T => {
        dbias.slice_mut()[0] = cpu::siglip_loss_backward::<T>(p, f, bias.slice()[0], g)
    }, gpu => gpu::siglip_loss_backward(p, f, bias, g, dbias))
}
