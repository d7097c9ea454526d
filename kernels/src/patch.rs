//! Images as rows of patches: what turns a patch embedding's convolution into a matrix product.

use crate::view::on_device;
use crate::{Error, Result, View, ViewMut, cpu, gpu};

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

    fn check(&self, op: &'static str, image: (usize, &'static str), patches: (usize, &'static str)) -> Result<()> {
        if self.patch == 0 {
            let message = "patches need a side of at least one pixel".to_owned();
            return Err(Error::Value { op, message });
        }
        let Patches {
            batch,
            channels,
            height,
            width,
            patch,
            ..
        } = *self;
        let whole = batch * channels * height * width;
        let cut = batch * (height / patch) * (width / patch) * channels * self.window() * self.window();
        for ((found, what), expected) in [(image, whole), (patches, cut)] {
            if found != expected {
                return Err(Error::Length {
                    op,
                    what,
                    found,
                    expected,
                });
            }
        }
        Ok(())
    }
}

/// Cuts `image` `(batch, channels, height, width)` into `patches` `(batch, height/patch · width/patch, channels·window·window)`,
/// left to right and top to bottom.
///
/// # Errors
/// Lengths or types that do not fit; a patch of no pixels.
pub fn unfold(p: Patches, image: View, patches: &mut ViewMut) -> Result<()> {
    const OP: &str = "unfold";
    p.check(OP, (image.len(), "image"), (patches.len(), "patches"))?;
    patches.expect_dtype(OP, "patches", image.dtype())?;
    on_device!("unfold", image, T => cpu::patch::unfold::<T>(p, image.slice(), patches.slice_mut()),
        gpu => gpu::patch::unfold(p, image, patches))
}

/// The derivative of [`unfold`]: adds `dpatches` up in their places in `dimage`, zero where no window lies.
///
/// # Errors
/// As for [`unfold`].
pub fn fold(p: Patches, dpatches: View, dimage: &mut ViewMut) -> Result<()> {
    const OP: &str = "fold";
    p.check(OP, (dimage.len(), "dimage"), (dpatches.len(), "dpatches"))?;
    dimage.expect_dtype(OP, "dimage", dpatches.dtype())?;
    on_device!("fold", dpatches, T => cpu::patch::fold::<T>(p, dpatches.slice(), dimage.slice_mut()),
        gpu => gpu::patch::fold(p, dpatches, dimage))
}
