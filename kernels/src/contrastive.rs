//! Contrastive losses between images and texts, forward and backward, from blocks of rows of the score matrix.
//!
//! The score of image i and text j is s_ij = e^log_scale · max_q ⟨image[i, q], text[j]⟩: with one query per image that of
//! CLIP (Radford et al., 2021) and SigLIP (Zhai et al., 2023), with several that of BLIP-2 (Li et al., 2023). Among equal
//! queries the lowest counts, and gets the gradient. The scale e^log_scale is held at 100 at most; where it is held,
//! `log_scale` gets no gradient. Rows are taken as they are: the caller normalises them.
//!
//! The (n, n) matrix never exists: blocks of rows are computed, reduced and dropped, and computed again for the gradient.

use crate::view::on_device;
use crate::{Error, Result, View, ViewMut, cpu};

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
    /// Checks the sizes, and that `image` and `text` fit them and each other.
    fn expect(&self, op: &'static str, image: View, text: View) -> Result<()> {
        if self.n == 0 || self.groups == 0 {
            let message = format!("needs at least one pair and one query per image, got {self:?}");
            return Err(Error::Value { op, message });
        }
        image.expect_len(op, "image", self.n * self.groups * self.dim)?;
        text.expect_len(op, "text", self.n * self.dim)?;
        text.expect_dtype(op, "text", image.dtype())
    }

    /// Checks that `dimage` and `dtext` are like `image` and `text`.
    fn expect_gradients(&self, op: &'static str, image: View, dimage: &ViewMut, dtext: &ViewMut) -> Result<()> {
        dimage.expect_len(op, "dimage", image.len())?;
        dimage.expect_dtype(op, "dimage", image.dtype())?;
        dtext.expect_len(op, "dtext", self.n * self.dim)?;
        dtext.expect_dtype(op, "dtext", image.dtype())
    }
}

/// Checks that each view has `len` elements of the accumulator of `image`'s type.
macro_rules! expect_acc {
    ($op:expr, $image:expr, $len:expr, $($view:ident),*) => {$(
        $view.expect_len($op, stringify!($view), $len)?;
        $view.expect_dtype($op, stringify!($view), $image.dtype().accumulator())?;
    )*};
}

/// CLIP's loss: the mean of the cross-entropies of each image over the texts and of each text over the images.
///
/// `image` (n·groups, dim) and `text` (n, dim) of T, `log_scale` (1) of A. Outputs in A: `loss` (1), `row_lse` (n) and
/// `col_lse` (n), the log-sum-exps of the scores of each image and of each text, which the derivative needs.
///
/// # Errors
/// Lengths or types that do not fit; no pairs or no queries.
pub fn clip_loss(
    p: &Contrastive,
    image: View,
    text: View,
    log_scale: View,
    loss: &mut ViewMut,
    row_lse: &mut ViewMut,
    col_lse: &mut ViewMut,
) -> Result<()> {
    const OP: &str = "clip_loss";
    p.expect(OP, image, text)?;
    expect_acc!(OP, image, 1, log_scale, loss);
    expect_acc!(OP, image, p.n, row_lse, col_lse);
    on_device!("clip_loss", image, T => loss.slice_mut()[0] = cpu::contrastive::clip_loss::<T>(
        p,
        image.slice(),
        text.slice(),
        log_scale.slice()[0],
        row_lse.slice_mut(),
        col_lse.slice_mut(),
    ))
}

/// Derivative of [`clip_loss`] for upstream gradient 1.
///
/// Takes what [`clip_loss`] took and wrote. Outputs: `dimage` (n·groups, dim) and `dtext` (n, dim) of T, `dlog_scale` (1)
/// of A.
///
/// # Errors
/// As [`clip_loss`].
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
    const OP: &str = "clip_loss_backward";
    p.expect(OP, image, text)?;
    p.expect_gradients(OP, image, dimage, dtext)?;
    expect_acc!(OP, image, 1, log_scale, dlog_scale);
    expect_acc!(OP, image, p.n, row_lse, col_lse);
    on_device!("clip_loss_backward", image, T => dlog_scale.slice_mut()[0] = cpu::contrastive::clip_loss_backward::<T>(
        p,
        image.slice(),
        text.slice(),
        log_scale.slice()[0],
        row_lse.slice(),
        col_lse.slice(),
        dimage.slice_mut(),
        dtext.slice_mut(),
    ))
}

/// SigLIP's loss: −1/n Σ_ij ln σ(z_ij·(s_ij + bias)), with z = 1 for pairs that belong together and −1 for all others.
///
/// `image` (n·groups, dim) and `text` (n, dim) of T; `log_scale`, `bias` and `loss` (1) of A.
///
/// # Errors
/// Lengths or types that do not fit; no pairs or no queries.
pub fn siglip_loss(
    p: &Contrastive,
    image: View,
    text: View,
    log_scale: View,
    bias: View,
    loss: &mut ViewMut,
) -> Result<()> {
    const OP: &str = "siglip_loss";
    p.expect(OP, image, text)?;
    expect_acc!(OP, image, 1, log_scale, bias, loss);
    on_device!("siglip_loss", image, T => loss.slice_mut()[0] = cpu::contrastive::siglip_loss::<T>(
        p,
        image.slice(),
        text.slice(),
        log_scale.slice()[0],
        bias.slice()[0],
    ))
}

/// Derivative of [`siglip_loss`] for upstream gradient 1.
///
/// Takes what [`siglip_loss`] took. Outputs: `dimage` (n·groups, dim) and `dtext` (n, dim) of T, `dlog_scale` and `dbias`
/// (1) of A.
///
/// # Errors
/// As [`siglip_loss`].
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
    const OP: &str = "siglip_loss_backward";
    p.expect(OP, image, text)?;
    p.expect_gradients(OP, image, dimage, dtext)?;
    expect_acc!(OP, image, 1, log_scale, bias, dlog_scale, dbias);
    on_device!("siglip_loss_backward", image, T => {
        (dlog_scale.slice_mut()[0], dbias.slice_mut()[0]) = cpu::contrastive::siglip_loss_backward::<T>(
            p,
            image.slice(),
            text.slice(),
            log_scale.slice()[0],
            bias.slice()[0],
            dimage.slice_mut(),
            dtext.slice_mut(),
        )
    })
}
