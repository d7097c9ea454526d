//! Pairs of images and texts that are to be told apart.

use crate::error::{Result, mismatch};
use crate::{DType, Tensor};
use kernels::matching::{Lists, Matching, draw_pairs};

/// Pairs by the numbers of their image and text in a batch, I32 (pairs) each.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Which image.
    pub images: Tensor,
    /// Which text.
    pub texts: Tensor,
    /// 1 where they belong together, else 0.
    pub labels: Tensor,
}

impl Pairs {
    /// Each image with its own text, each image with a wrong text, each text with a wrong image: 3n pairs of a batch of n.
    /// Wrong ones are drawn by `exp(hardness · score)` among those that `truth` (n, n) U8 does not call true, with 2n numbers
    /// in [0, 1), F64. `scores` (n, queries, n) are those of texts with each of an image's vectors, times
    /// `exp(log_scale)` what the contrastive loss sees.
    pub fn draw(scores: &Tensor, log_scale: &Tensor, hardness: f64, truth: &Tensor, uniform: &Tensor) -> Result<Pairs> {
        let [n, queries, columns] = scores.shape()[..] else {
            return mismatch("draw_pairs", format!("scores {}, expected (n, queries, n)", scores.shape()));
        };
        if n != columns {
            return mismatch("draw_pairs", format!("scores of {n} images with {columns} texts, expected as many"));
        }
        let list = || Tensor::empty(scores.device(), DType::I32, [3 * n]);
        let (mut images, mut texts, mut labels) = (list()?, list()?, list()?);
        let p = Matching { n, queries, hardness };
        draw_pairs(
            &p,
            scores.view(),
            log_scale.cast(scores.dtype().accumulator())?.view(),
            truth.view(),
            uniform.view(),
            Lists { images: images.view_mut()?, texts: texts.view_mut()?, labels: labels.view_mut()? },
        )?;
        Ok(Pairs { images, texts, labels })
    }
}
