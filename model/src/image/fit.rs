//! How an image of any size becomes one of the encoder's.

use super::resize::{Canvas, Resample};
use ::image::{Rgb, RgbImage, imageops};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::ops::Range;

/// How an image of another aspect becomes square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Both sides are resized on their own.
    #[default]
    Squash,
    /// The longer side is resized to fit, the rest filled with the mean colour.
    Pad,
    /// The shorter side is resized to fit, the middle is kept.
    Crop,
    /// As another model's `preprocessor_config.json` says.
    #[serde(skip)]
    Steps(Steps),
}

/// What is done to an image, one after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Steps {
    /// The shorter side is filled up to a square with this colour, half on either side (`do_pad`).
    pub pad: Option<[u8; 3]>,
    /// It is resized (`do_resize`, `size`).
    pub resize: Option<Resize>,
    /// Height and width of the middle that is kept; what the image lacks of it is black (`do_center_crop`, `crop_size`).
    pub crop: Option<[usize; 2]>,
}

/// To which size an image is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    /// The shorter side to this many pixels, the longer one in proportion, rounded towards zero.
    ShortestEdge(usize),
    /// Both sides.
    To {
        /// Pixels from top to bottom.
        height: usize,
        /// Pixels from left to right.
        width: usize,
    },
}

impl Steps {
    /// The steps of [`Fit::Squash`].
    pub(super) fn squash(size: usize) -> Steps {
        let resize = Some(Resize::To { height: size, width: size });
        Steps { pad: None, resize, crop: None }
    }

    /// The steps of [`Fit::Crop`].
    pub(super) fn crop(size: usize) -> Steps {
        Steps { pad: None, resize: Some(Resize::ShortestEdge(size)), crop: Some([size, size]) }
    }

    /// The height and width of every result; None where they hang on the image.
    pub(super) fn size(&self) -> Option<[usize; 2]> {
        match (self.crop, self.resize) {
            (Some(size), _) => Some(size),
            (None, Some(Resize::To { height, width })) => Some([height, width]),
            (None, Some(Resize::ShortestEdge(side))) => self.pad.map(|_| [side, side]),
            (None, None) => None,
        }
    }

    /// Only what is kept of the resized image is computed: a thin one becomes a thousand times as long on the way.
    pub(super) fn apply(&self, image: &RgbImage, filter: Resample) -> RgbImage {
        let canvas = match self.pad {
            Some(colour) => squared(image, Rgb(colour)),
            None => Canvas::of(image),
        };
        let [width, height] = match self.resize {
            Some(resize) => resize.of(canvas.size),
            None => canvas.size,
        };
        let Some([tall, wide]) = self.crop.map(|size| size.map(|side| side as u32)) else {
            return canvas.resized([width, height], filter, [0..width, 0..height]);
        };
        let (columns, left) = middle(width, wide);
        let (rows, top) = middle(height, tall);
        let part = canvas.resized([width, height], filter, [columns, rows]);
        if part.dimensions() == (wide, tall) {
            return part;
        }
        let mut whole = RgbImage::new(wide, tall);
        imageops::replace(&mut whole, &part, left.into(), top.into());
        whole
    }
}

impl Resize {
    /// The width and height of what was `size`.
    fn of(self, [width, height]: [u32; 2]) -> [u32; 2] {
        match self {
            Resize::To { height, width } => [width as u32, height as u32],
            Resize::ShortestEdge(side) => {
                let short = u64::from(width.min(height));
                [width, height].map(|length| (u64::from(length) * side as u64 / short) as u32)
            }
        }
    }
}

/// The middle `kept` of `all` pixels, as far as they are there, and where they come to lie.
fn middle(all: u32, kept: u32) -> (Range<u32>, u32) {
    let start = (i64::from(all) - i64::from(kept)).div_euclid(2);
    let first = start.max(0) as u32;
    let end = (start + i64::from(kept)).min(i64::from(all)) as u32;
    (first..end, (-start).max(0) as u32)
}

/// The image in the middle of a square, rounded to the left and up.
fn squared(image: &RgbImage, background: Rgb<u8>) -> Canvas<'_> {
    let (width, height) = image.dimensions();
    let side = width.max(height);
    Canvas { image, size: [side; 2], at: [width, height].map(|length| (side - length) / 2), background }
}

/// [`Fit::Pad`]: the image as large as it fits in the middle of a square.
pub(super) fn padded(image: &RgbImage, size: u32, background: Rgb<u8>, filter: Resample) -> RgbImage {
    let (width, height) = image.dimensions();
    let long = u64::from(width.max(height));
    let scaled = [width, height].map(|side| ((u64::from(side) * u64::from(size) / long) as u32).max(1));
    let [w, h] = scaled;
    let whole = Canvas::of(image).resized(scaled, filter, [0..w, 0..h]);
    let mut square = RgbImage::from_pixel(size, size, background);
    imageops::replace(&mut square, &whole, i64::from((size - w) / 2), i64::from((size - h) / 2));
    square
}
