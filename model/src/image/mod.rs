//! Images on their way into a model.

mod decode;
mod resize;

pub use decode::{decode_image, open_image};
pub use resize::{Resample, resize};

use crate::error::{Result, config, input};
use ::image::{RgbImage, imageops};
use engine::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

/// Largest side accepted, in pixels.
const MAX_SIDE: u32 = 16_384;

/// How an image of another aspect becomes square.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Both sides are resized on their own.
    #[default]
    Squash,
    /// The longer side is resized to fit, the rest filled with the mean colour.
    Pad,
    /// The shorter side is resized to fit, the middle is kept.
    Crop,
}

/// Turns images into what the encoder reads; serialised as `preprocessor_config.json`.
///
/// ```
/// use model::ImageProcessor;
/// let processor = ImageProcessor { size: 4, ..ImageProcessor::default() };
/// let grey = image::RgbImage::from_pixel(9, 7, image::Rgb([255, 0, 255]));
/// let pixels = processor.batch(&[grey], &engine::Device::cpu(), engine::DType::F32)?; // (1, 3, 4, 4)
/// let pixels = pixels.to_vec::<f32>()?;
/// assert_eq!(pixels.len(), 48);
/// assert_eq!((pixels[0], pixels[16]), (1.0, -1.0)); // (x/255 − mean) / std with both 0.5
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ImageProcessor {
    /// Side of the result in pixels.
    pub size: usize,
    /// Mean per channel, of values in 0..1.
    pub image_mean: [f64; 3],
    /// Standard deviation per channel.
    pub image_std: [f64; 3],
    /// The resampling filter.
    pub resample: Resample,
    /// How other aspects are handled.
    pub fit: Fit,
}

impl Default for ImageProcessor {
    fn default() -> ImageProcessor {
        ImageProcessor {
            size: 48,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            resample: Resample::Bicubic,
            fit: Fit::Squash,
        }
    }
}

impl ImageProcessor {
    /// Reads `preprocessor_config.json` in a folder.
    pub fn open(folder: &std::path::Path) -> Result<ImageProcessor> {
        let path = folder.join("preprocessor_config.json");
        let bytes = crate::files::read_up_to(&path, 1 << 20)?;
        serde_json::from_slice(&bytes).map_err(crate::error::at(&path))
    }

    /// Checks every field.
    pub fn validate(&self) -> Result<()> {
        if self.size == 0 || self.size > MAX_SIDE as usize {
            return config("size", format!("{} is not in 1..={MAX_SIDE}", self.size));
        }
        if self.image_std.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return config("image_std", "must be finite numbers above 0");
        }
        if self.image_mean.iter().any(|m| !m.is_finite()) {
            return config("image_mean", "must be finite numbers");
        }
        Ok(())
    }

    /// A batch of images: (batch, 3, size, size) in `dtype`.
    pub fn batch(&self, images: &[RgbImage], device: &Device, dtype: DType) -> Result<Tensor> {
        self.tensor(&self.bytes(images)?, device, dtype)
    }

    /// Images at their final size, one after another: (batch, size, size, 3).
    pub fn bytes<'i>(&self, images: impl IntoIterator<Item = &'i RgbImage>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        for image in images {
            bytes.extend(self.square(image)?.into_raw());
        }
        Ok(bytes)
    }

    /// What [`ImageProcessor::bytes`] gave as the encoder reads it: (batch, 3, size, size) in `dtype`.
    pub fn tensor(&self, bytes: &[u8], device: &Device, dtype: DType) -> Result<Tensor> {
        let shape = [bytes.len() / (3 * self.size * self.size), self.size, self.size, 3];
        let bytes = Tensor::from_slice(device, bytes, shape)?;
        Ok(bytes.normalised(self.image_mean, self.image_std, dtype)?)
    }

    /// The image at its final size.
    pub fn square(&self, image: &RgbImage) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 || width.max(height) > MAX_SIDE {
            return input("image", format!("{width}×{height}, sides must be in 1..={MAX_SIDE}"));
        }
        let size = self.size as u32;
        let (short, long) = (width.min(height), width.max(height));
        // As Hugging Face's processors round: towards zero.
        let scaled = |side: u32, base: u32| ((side as u64 * size as u64 / base as u64) as u32).max(1);
        Ok(match self.fit {
            Fit::Squash => resize(image, size, size, self.resample),
            Fit::Crop => {
                let (w, h) = (scaled(width, short), scaled(height, short));
                let whole = resize(image, w, h, self.resample);
                imageops::crop_imm(&whole, (w - size) / 2, (h - size) / 2, size, size).to_image()
            }
            Fit::Pad => {
                let (w, h) = (scaled(width, long), scaled(height, long));
                let whole = resize(image, w, h, self.resample);
                let fill = self.image_mean.map(|m| (m * 255.0).round().clamp(0.0, 255.0) as u8);
                let mut square = RgbImage::from_pixel(size, size, image::Rgb(fill));
                let place = |side: u32| i64::from((size - side) / 2);
                imageops::replace(&mut square, &whole, place(w), place(h));
                square
            }
        })
    }
}
