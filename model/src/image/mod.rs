//! Images on their way into a model.

mod decode;
mod fit;
mod preprocessor;
mod resize;

pub use decode::{MAX_IMAGE_FILE, decode_image, open_image};
pub use fit::{Fit, Resize, Steps};
pub use preprocessor::ProcessorType;
pub use resize::{Resample, resize};

use crate::error::{Result, config, input};
use ::image::{Rgb, RgbImage};
use engine::{DType, Device, Tensor};

/// Largest side accepted, in pixels.
const MAX_SIDE: u32 = 16_384;
/// Largest side of a result, in pixels.
const MAX_SIZE: usize = 4096;

/// Turns images into what the encoder reads, as `preprocessor_config.json` says.
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
#[derive(Debug, Clone, PartialEq)]
pub struct ImageProcessor {
    /// Side of the result in pixels.
    pub size: usize,
    /// How an image comes to that size.
    pub fit: Fit,
    /// The resampling filter.
    pub resample: Resample,
    /// What a byte is multiplied by.
    pub rescale_factor: f64,
    /// Mean per channel, of rescaled values.
    pub image_mean: [f64; 3],
    /// Standard deviation per channel.
    pub image_std: [f64; 3],
    /// The class of `transformers` that computes this; None for the one that fits.
    pub image_processor_type: Option<ProcessorType>,
    /// The class of `transformers` that puts images and texts together, where the file says so.
    pub processor_class: Option<String>,
}

impl Default for ImageProcessor {
    fn default() -> ImageProcessor {
        ImageProcessor {
            size: 48,
            fit: Fit::Squash,
            resample: Resample::Bicubic,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
            image_processor_type: None,
            processor_class: None,
        }
    }
}

impl ImageProcessor {
    /// The same for images of another size: what is resized or cut before grows or shrinks with it.
    pub fn with_size(self, size: usize) -> ImageProcessor {
        let scaled = |side: usize| ((side * size) as f64 / self.size as f64).round().max(1.0) as usize;
        let fit = match self.fit {
            Fit::Steps(steps) => Fit::Steps(Steps {
                resize: steps.resize.map(|resize| match resize {
                    Resize::ShortestEdge(side) => Resize::ShortestEdge(scaled(side)),
                    Resize::To { height, width } => Resize::To { height: scaled(height), width: scaled(width) },
                }),
                crop: steps.crop.map(|sides| sides.map(scaled)),
                ..steps
            }),
            other => other,
        };
        ImageProcessor { size, fit, ..self }
    }

    /// Checks every field.
    pub fn validate(&self) -> Result<()> {
        let mut sides = vec![self.size];
        if let Fit::Steps(steps) = self.fit {
            if steps.size() != Some([self.size; 2]) {
                let size = self.size;
                return config("fit", format!("its steps do not make every image {size}×{size}"));
            }
            match steps.resize {
                Some(Resize::ShortestEdge(side)) => sides.push(side),
                Some(Resize::To { height, width }) => sides.extend([height, width]),
                None => {}
            }
        }
        if let Some(side) = sides.iter().find(|side| !(1..=MAX_SIZE).contains(*side)) {
            return config("size", format!("{side} is not in 1..={MAX_SIZE}"));
        }
        if !(self.rescale_factor.is_finite() && self.rescale_factor > 0.0) {
            return config("rescale_factor", "must be a finite number above 0");
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

    /// What [`ImageProcessor::bytes`] gave as the encoder reads it, `(byte · rescale_factor − mean) / std`:
    /// (batch, 3, size, size) in `dtype`.
    pub fn tensor(&self, bytes: &[u8], device: &Device, dtype: DType) -> Result<Tensor> {
        let shape = [bytes.len() / (3 * self.size * self.size), self.size, self.size, 3];
        let bytes = Tensor::from_slice(device, bytes, shape)?;
        // The kernel divides by 255.
        let scale = 255.0 * self.rescale_factor;
        let [mean, std] = [self.image_mean, self.image_std].map(|values| values.map(|value| value / scale));
        Ok(bytes.normalised(mean, std, dtype)?)
    }

    /// The image at its final size.
    pub fn square(&self, image: &RgbImage) -> Result<RgbImage> {
        let (width, height) = image.dimensions();
        if width == 0 || height == 0 || width.max(height) > MAX_SIDE {
            return input("image", format!("{width}×{height}, sides must be in 1..={MAX_SIDE}"));
        }
        let steps = match self.fit {
            Fit::Squash => Steps::squash(self.size),
            Fit::Crop => Steps::crop(self.size),
            Fit::Steps(steps) => steps,
            Fit::Pad => {
                let fill = self.image_mean.map(|m| (m * 255.0).round().clamp(0.0, 255.0) as u8);
                return Ok(fit::padded(image, self.size as u32, Rgb(fill), self.resample));
            }
        };
        Ok(steps.apply(image, self.resample))
    }
}
