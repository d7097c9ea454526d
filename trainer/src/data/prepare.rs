//! Images and text on their way into the model.

use anyhow::Result;
use engine::{Params, Tensor};
use image::RgbImage;
use model::{ImageProcessor, TextBatch, Tokenizer, Turn};

/// Rows of text are padded to a multiple of this, so that few shapes occur and memory is used again.
const LENGTH_STEP: usize = 16;

/// What turns samples into the model's input.
#[derive(Debug, Clone)]
pub struct Prepare {
    /// Text to ids.
    pub tokenizer: Tokenizer,
    /// Images to pixels.
    pub processor: ImageProcessor,
}

impl Prepare {
    /// Images, one after another: (batch, size, size, 3).
    pub fn pixels<'i>(&self, images: impl IntoIterator<Item = &'i RgbImage>) -> Result<Vec<u8>> {
        Ok(self.processor.bytes(images)?)
    }

    /// What [`Prepare::pixels`] gave, on the model's device in the model's type: (batch, 3, size, size).
    pub fn tensor(&self, params: &Params, pixels: &[u8]) -> Result<Tensor> {
        Ok(self.processor.tensor(pixels, params.device(), params.dtype())?)
    }

    /// A grey image: what is left to answer by when there is nothing to see.
    pub fn blank(&self) -> RgbImage {
        let size = self.processor.size as u32;
        RgbImage::from_pixel(size, size, image::Rgb([64; 3]))
    }

    /// Questions and answers about each image; independent ones do not see each other.
    pub fn text(&self, rows: &[Vec<(String, String)>], independent: bool) -> Result<TextBatch> {
        let row = |turns: &Vec<(String, String)>| match independent {
            true => turns
                .chunks(1)
                .map(|turn| Turn::conversation(&self.tokenizer, turn))
                .collect(),
            false => Turn::conversation(&self.tokenizer, turns).map(|whole| vec![whole]),
        };
        let rows: Vec<Vec<Turn>> = rows.iter().map(row).collect::<model::Result<_>>()?;
        Ok(TextBatch::pack(&rows, self.tokenizer.specials().pad, LENGTH_STEP)?)
    }
}
