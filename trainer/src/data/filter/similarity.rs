//! How well an image and a text go together, as a dual encoder sees it (Radford et al. 2021).

use anyhow::{Result, bail, ensure};
use engine::{DType, Device, Graph, Params, Var, ops};
use image::RgbImage;
use model::hf::{self, Model};
use model::{DualEncoder, ImageProcessor, Tokenizer};
use std::path::Path;

/// Pairs looked at at once.
pub(super) const BATCH: usize = 32;

/// CLIP or SigLIP, ready to compare.
pub struct Judge {
    model: Box<DualEncoder>,
    params: Params,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
}

impl Judge {
    /// Reads the dual encoder of a Hugging Face folder.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the folder holds a model of another kind.
    pub fn open(folder: &Path, device: &Device) -> Result<Judge> {
        let (model, params) = hf::load(folder, device, DType::F32, true)?;
        let Model::Dual(model) = model else {
            bail!("{}: not a dual encoder; CLIP and SigLIP compare images with texts", folder.display());
        };
        let processor = ImageProcessor::open(folder)?;
        let size = model.config.vision.image_size;
        ensure!(
            processor.size == size,
            "{}: images are processed to {}, but the encoder takes {size}",
            folder.display(),
            processor.size
        );
        Ok(Judge { tokenizer: Tokenizer::open(folder)?, model, params, processor })
    }

    pub fn cosines(&self, images: &[RgbImage], texts: &[String]) -> Result<Vec<f64>> {
        let graph = Graph::inference(&self.params);
        let pixels = self.processor.batch(images, self.params.device(), self.params.dtype())?;
        let image = self.model.image_features(&graph, &graph.input(pixels), &mut |_| ())?;
        let text = self.model.text_features(&graph, &self.model.texts(&self.tokenizer, texts)?, &mut |_| ())?;
        let unit = |x: &Var| -> Result<Vec<f64>> { Ok(ops::l2_normalize(x, 1e-12)?.tensor().to_f64()?) };
        let (image, text) = (unit(&image)?, unit(&text)?);
        let dim = self.model.config.projection_dim;
        let pairs = image.chunks(dim).zip(text.chunks(dim));
        Ok(pairs.map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum()).collect())
    }
}
