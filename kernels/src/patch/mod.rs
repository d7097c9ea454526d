//! Images as rows of patches: what turns a patch embedding's convolution into a matrix product.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{Result, View, ViewMut};

/// Images and the square windows they are cut into: one every `patch` pixels, `patch + 2·margin` wide, zero beyond the
/// image. Rows and columns of pixels that do not fill a patch at the lower and right edge have no window of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patches {
    /// Images.
    pub batch: usize,
    /// Colours.
    pub channels: usize,
    /// Pixels from top to bottom.
    pub height: usize,
    /// Pixels from left to right.
    pub width: usize,
    /// Pixels from one window to the next.
    pub patch: usize,
    /// Pixels by which a window reaches over its patch on each side; 0: plain patches.
    pub margin: usize,
}

impl Patches {
    /// Side of a window in pixels.
    pub fn window(&self) -> usize {
        self.patch + 2 * self.margin
    }

    /// Elements of all images and of all windows.
    fn sizes(&self, call: Call) -> Result<(usize, usize)> {
        if self.patch == 0 {
            return Err(call.refuse("patches need a side of at least one pixel".to_owned()));
        }
        let Patches { batch, channels, height, width, patch, .. } = *self;
        let windows = batch * (height / patch) * (width / patch);
        Ok((batch * channels * height * width, windows * channels * self.window() * self.window()))
    }
}

/// Cuts `image` `(batch, channels, height, width)` into `patches` `(batch, height/patch · width/patch, channels·window·window)`,
/// left to right and top to bottom.
///
/// # Errors
/// Lengths or types that do not fit; a patch of no pixels.
pub fn unfold(p: Patches, image: View, patches: &mut ViewMut) -> Result<()> {
    let call = Call::new("unfold", "image", &image)?;
    let (whole, cut) = p.sizes(call)?;
    call.same("image", &image, whole)?;
    call.same("patches", patches, cut)?;
    on_device!("unfold", image, T => cpu::unfold::<T>(p, image.slice(), patches.slice_mut()),
        gpu => gpu::unfold(p, image, patches))
}

/// The derivative of [`unfold`]: adds `dpatches` up in their places in `dimage`, zero where no window lies.
pub fn fold(p: Patches, dpatches: View, dimage: &mut ViewMut) -> Result<()> {
    let call = Call::new("fold", "dpatches", &dpatches)?;
    let (whole, cut) = p.sizes(call)?;
    call.same("dimage", dimage, whole)?;
    call.same("dpatches", &dpatches, cut)?;
    on_device!("fold", dpatches, T => cpu::fold::<T>(p, dpatches.slice(), dimage.slice_mut()),
        gpu => gpu::fold(p, dpatches, dimage))
}
