//! An image cut into patches, each projected to a token: a convolution whose stride is its size.

use crate::Tensor;
use crate::error::{Result, mismatch};
use crate::ops::linear;
use crate::tape::{Context, Op, Var, record};
use kernels::patch::{self, Patches};

/// Tokens of an image: image (batch, channels, height, width), w (dim, channels·window·window), b (dim)
/// → (batch, height/patch · width/patch, dim), patches row by row. A window is `patch + 2·margin` wide, so that with
/// a margin neighbours overlap; beyond the image it sees zeros.
pub fn patch_embed(image: &Var, w: &Var, b: Option<&Var>, patch: usize, margin: usize) -> Result<Var> {
    let [batch, channels, height, width] = image.shape()[..] else {
        return mismatch("patch_embed", format!("{}, expected (batch, channels, height, width)", image.shape()));
    };
    if patch == 0 || height % patch != 0 || width % patch != 0 {
        return mismatch("patch_embed", format!("patches of {patch} do not tile an image of {height}×{width}"));
    }
    let cut = Patches { batch, channels, height, width, patch, margin };
    let tokens = (height / patch) * (width / patch);
    let mut patches =
        Tensor::empty(image.tensor().device(), image.dtype(), [batch, tokens, channels * cut.window() * cut.window()])?;
    patch::unfold(cut, image.tensor().view(), &mut patches.view_mut()?)?;
    linear(&record(&[image], patches, || Unfold { cut }), w, b)
}

struct Unfold {
    cut: Patches,
}

impl Op for Unfold {
    fn name(&self) -> &'static str {
        "patch_embed"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let Patches { batch, channels, height, width, .. } = self.cut;
        let mut dimage = Tensor::empty(dy.device(), dy.dtype(), [batch, channels, height, width])?;
        patch::fold(self.cut, dy.view(), &mut dimage.view_mut()?)?;
        Ok(vec![Some(dimage)])
    }
}
