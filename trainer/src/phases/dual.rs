//! Contrastive training of two towers from pairs of image and caption: CLIP (Radford et al. 2021), SigLIP (Zhai et al. 2023).

use super::Phase;
use super::contrast::Contrast;
use super::fit::{Losses, Objective};
use crate::data::{Source, pixels};
use anyhow::{Context, Result};
use engine::{Graph, Var};
use image::RgbImage;
use model::{DualEncoder, ImageProcessor, Texts, Tokenizer};

/// What a dual encoder is trained for.
pub struct Dual<'a> {
    pub model: &'a DualEncoder,
    /// Where pairs come from.
    pub source: &'a dyn Source,
    /// Texts to ids.
    pub tokenizer: &'a Tokenizer,
    /// Images to pixels.
    pub processor: &'a ImageProcessor,
    /// Batches that are contrasted as one.
    pub accumulate: usize,
}

/// Pairs of image and caption.
pub struct Batch {
    pixels: Vec<u8>,
    texts: Texts,
}

impl Dual<'_> {
    /// Vectors of a part's images and texts.
    fn features(&self, graph: &Graph<'_>, batch: &Batch) -> Result<[Var; 2]> {
        let params = graph.params();
        let pixels = self.processor.tensor(&batch.pixels, params.device(), params.dtype())?;
        let image = self.model.image_features(graph, &graph.input(pixels), &mut |_| {})?;
        Ok([image, self.model.text_features(graph, &batch.texts, &mut |_| {})?])
    }

    /// The loss of a group of parts, after a first pass over them.
    fn group<'p>(&self, parts: &[Batch], graph: &dyn Fn(usize) -> Graph<'p>) -> Result<Contrast> {
        let (mut features, mut scalars) = (Vec::with_capacity(parts.len()), None);
        for (i, part) in parts.iter().enumerate() {
            let graph = graph(i).without_gradients();
            features.push(self.features(&graph, part)?.map(|x| x.tensor().clone()));
            let all = self.model.scalars(&graph);
            scalars = Some(all.iter().map(|x| x.tensor().clone()).collect::<Vec<_>>());
        }
        let scalars = scalars.context("no parts")?;
        Contrast::of(&features, &scalars, |image, text, scalars| Ok(self.model.loss(image, text, scalars)?))
    }
}

impl Objective for Dual<'_> {
    type Batch = Batch;
    type Together = Vec<Contrast>;

    fn batch(&self, start: u64, size: usize, _: f64) -> Result<Batch> {
        let pairs = (start..start + size as u64).map(|i| {
            let pair = self.source.pair(i)?;
            Ok((pair.image, pair.caption))
        });
        let (images, captions): (Vec<RgbImage>, Vec<String>) = pairs.collect::<Result<Vec<_>>>()?.into_iter().unzip();
        Ok(Batch { pixels: pixels(self.processor, &images)?, texts: self.model.texts(self.tokenizer, &captions)? })
    }

    fn weight(&self, batch: &Batch) -> f64 {
        batch.texts.batch as f64
    }

    fn together<'p>(&self, parts: &[Batch], graph: &dyn Fn(usize) -> Graph<'p>) -> Result<Option<Vec<Contrast>>> {
        if self.accumulate == 1 {
            return Ok(None);
        }
        let groups = parts.chunks(self.accumulate).enumerate();
        let group = |(n, parts): (usize, &[Batch])| self.group(parts, &|i| graph(n * self.accumulate + i));
        groups.map(group).collect::<Result<_>>().map(Some)
    }

    fn losses(&self, graph: &Graph<'_>, batch: &Batch, together: Option<(&Vec<Contrast>, usize)>) -> Result<Losses> {
        let [image, text] = self.features(graph, batch)?;
        let scalars = self.model.scalars(graph);
        let total = match together {
            None => self.model.loss(&image, &text, &scalars)?,
            Some((groups, part)) => {
                let group = &groups[part / self.accumulate];
                group.part(part % self.accumulate, [&image, &text], &scalars)?
            }
        };
        Ok(Losses { phase: Phase::Contrast, parts: Vec::new(), predictions: None, total })
    }
}
