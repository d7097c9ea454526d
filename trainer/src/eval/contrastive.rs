//! Comparing images with texts: by a Q-Former's contrastive features, or by a dual encoder's.

use super::metrics::retrieval::{Scored, Ties, distinct, share_among_equal};
use crate::data::{Pair, Prepare, pixels};
use crate::eval::{Figures, figures};
use crate::interrupt;
use crate::phases::align::similarity;
use anyhow::{Context, Result, bail};
use engine::{Graph, Params, Tensor, Var};
use image::RgbImage;
use model::{DualEncoder, ImageProcessor, QFormer, Texts, Tokenizer, Vit, Vlm};
use std::collections::HashMap;

/// Images or texts computed at once.
pub const BATCH: usize = 64;

/// A model that compares images with texts.
pub struct Comparer<'m> {
    kind: Kind<'m>,
    params: &'m Params,
    tokenizer: &'m Tokenizer,
    processor: &'m ImageProcessor,
    /// Texts get the special tokens that the tokenizer's file says, not Lenslet's own.
    as_published: bool,
}

enum Kind<'m> {
    QFormer(&'m Vit, &'m QFormer),
    Dual(&'m DualEncoder),
}

/// Vectors of images or texts, one after another.
#[derive(Debug, Clone, Default)]
pub struct Features {
    values: Vec<f32>,
    /// What one of them is: (queries, dim) or (dim).
    shape: Vec<usize>,
}

impl Features {
    pub fn len(&self) -> usize {
        self.values.len() / self.width()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    fn width(&self) -> usize {
        self.shape.iter().product::<usize>().max(1)
    }

    fn extend(&mut self, batch: &Var) -> Result<()> {
        self.shape = batch.shape()[1..].to_vec();
        self.values.extend(batch.tensor().to_f64()?.into_iter().map(|x| x as f32));
        Ok(())
    }

    /// Those with these numbers, some perhaps twice.
    pub fn select(&self, numbers: &[usize]) -> Features {
        let width = self.width();
        let one = |&number: &usize| self.values[number * width..(number + 1) * width].iter().copied();
        Features { values: numbers.iter().flat_map(one).collect(), shape: self.shape.clone() }
    }

    /// The mean of every `size` in a row, each brought to unit length before: an ensemble of prompts (Radford et al. 2021).
    pub fn means(&self, size: usize) -> Features {
        let width = self.width();
        let unit = |vector: &[f32]| {
            let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt().max(1e-12);
            vector.iter().map(|x| x / norm).collect::<Vec<f32>>()
        };
        let mean = |group: &[f32]| {
            let units: Vec<Vec<f32>> = group.chunks(width).map(unit).collect();
            let sum: Vec<f32> = (0..width).map(|i| units.iter().map(|u| u[i]).sum()).collect();
            unit(&sum)
        };
        Features { values: self.values.chunks(width * size.max(1)).flat_map(mean).collect(), shape: self.shape.clone() }
    }

    fn var(&self, params: &Params, from: usize, to: usize) -> Result<Var> {
        let width = self.width();
        let shape: Vec<usize> = [to - from].into_iter().chain(self.shape.iter().copied()).collect();
        let values = Tensor::from_slice(params.device(), &self.values[from * width..to * width], &shape[..])?;
        Ok(Var::constant(values))
    }
}

impl<'m> Comparer<'m> {
    /// By a Q-Former over an image encoder.
    pub fn of_qformer(
        vision: &'m Vit,
        qformer: &'m QFormer,
        params: &'m Params,
        tokenizer: &'m Tokenizer,
        processor: &'m ImageProcessor,
    ) -> Comparer<'m> {
        Comparer { kind: Kind::QFormer(vision, qformer), params, tokenizer, processor, as_published: false }
    }

    /// By a dual encoder.
    pub fn of_dual(
        dual: &'m DualEncoder,
        params: &'m Params,
        tokenizer: &'m Tokenizer,
        processor: &'m ImageProcessor,
    ) -> Comparer<'m> {
        Comparer { kind: Kind::Dual(dual), params, tokenizer, processor, as_published: true }
    }

    /// With texts as the model's own tokenizer lays them out.
    pub fn with_texts_as_published(self) -> Comparer<'m> {
        Comparer { as_published: true, ..self }
    }

    /// Whether it can tell if a pair belongs together, without others to compare with.
    pub fn matches_pairs(&self) -> bool {
        matches!(self.kind, Kind::QFormer(..))
    }

    /// Adds the features of images to `features`, one batch at a time: pixels (batch, size, size, 3).
    pub fn add_images(&self, pixels: &[u8], features: &mut Features) -> Result<()> {
        let graph = Graph::inference(self.params);
        let pixels = self.pixels(&graph, pixels)?;
        features.extend(&match self.kind {
            Kind::QFormer(vision, qformer) => qformer.itc_features(&graph, &vision.forward(&graph, &pixels)?)?,
            Kind::Dual(dual) => dual.image_features(&graph, &pixels, &mut |_| {})?,
        })
    }

    /// Images of a source as [`Comparer::add_images`] takes them.
    pub fn pixels_of<'i>(&self, images: impl IntoIterator<Item = &'i RgbImage>) -> Result<Vec<u8>> {
        pixels(self.processor, images)
    }

    pub fn texts<S: AsRef<str>>(&self, texts: &[S]) -> Result<Features> {
        let mut features = Features::default();
        for batch in texts.chunks(BATCH) {
            let graph = Graph::inference(self.params);
            let rows = self.rows(batch)?;
            features.extend(&match self.kind {
                Kind::QFormer(_, qformer) => qformer.text_features(&graph, &rows)?,
                Kind::Dual(dual) => dual.text_features(&graph, &rows, &mut |_| {})?,
            })?;
        }
        Ok(features)
    }

    /// Scores of all images with all texts, one row per image.
    pub fn scores(&self, images: &Features, texts: &Features) -> Result<Vec<Vec<f32>>> {
        // Every query of an image with every text: a few images at a time.
        const AT_ONCE: usize = 16;
        let graph = Graph::inference(self.params);
        let columns = texts.var(self.params, 0, texts.len())?;
        let mut rows = Vec::with_capacity(images.len());
        for from in (0..images.len()).step_by(AT_ONCE) {
            let some = images.var(self.params, from, images.len().min(from + AT_ONCE))?;
            let scores = match self.kind {
                Kind::QFormer(_, qformer) => similarity(qformer, &graph, &some, &columns)?,
                Kind::Dual(dual) => dual.scores(&graph, &some, &columns)?.concat(),
            };
            rows.extend(scores.chunks(texts.len()).map(|row| row.iter().map(|x| *x as f32).collect::<Vec<f32>>()));
        }
        Ok(rows)
    }

    /// For each image, pixels (size, size, 3), and text, whether the matching head takes them for a pair.
    pub fn matches(&self, pairs: &[(&[u8], &str)]) -> Result<Vec<bool>> {
        let Kind::QFormer(vision, qformer) = self.kind else {
            bail!("a dual encoder has no matching head");
        };
        let mut found = Vec::with_capacity(pairs.len());
        for batch in pairs.chunks(BATCH) {
            let graph = Graph::inference(self.params);
            let pixels = batch.iter().map(|(pixels, _)| *pixels).collect::<Vec<_>>().concat();
            let pixels = self.pixels(&graph, &pixels)?;
            let texts: Vec<&str> = batch.iter().map(|(_, text)| *text).collect();
            let image = vision.forward(&graph, &pixels)?;
            let logits = qformer.itm_logits(&graph, &image, &self.rows(&texts)?)?.tensor().to_f64()?;
            found.extend(logits.chunks(2).map(|pair| pair[1] > pair[0]));
        }
        Ok(found)
    }

    fn pixels(&self, graph: &Graph<'_>, pixels: &[u8]) -> Result<Var> {
        let (device, dtype) = (self.params.device(), self.params.dtype());
        Ok(graph.input(self.processor.tensor(pixels, device, dtype)?))
    }

    /// How many of some texts are longer than the model reads: they are cut.
    pub fn cut<S: AsRef<str>>(&self, texts: &[S]) -> Result<usize> {
        let most = match self.kind {
            Kind::Dual(dual) => dual.config.text.max_position_embeddings,
            Kind::QFormer(_, qformer) => qformer.config().max_position_embeddings,
        };
        let mut cut = 0;
        for text in texts {
            let length = match self.as_published {
                true => self.tokenizer.tokenize(text.as_ref(), true)?.len(),
                // Behind the token that starts it.
                false => 1 + self.tokenizer.encode(text.as_ref())?.len(),
            };
            cut += usize::from(length > most);
        }
        Ok(cut)
    }

    /// Texts as ids, the longest cut to what fits.
    fn rows<S: AsRef<str>>(&self, texts: &[S]) -> Result<Texts> {
        let qformer = match self.kind {
            Kind::Dual(dual) => return Ok(dual.texts(self.tokenizer, texts)?),
            Kind::QFormer(_, qformer) => qformer,
        };
        let most = qformer.config().max_position_embeddings;
        if !self.as_published {
            return Ok(Texts::for_matching(self.tokenizer, texts, most)?);
        }
        let row = |text: &S| {
            let mut ids = self.tokenizer.tokenize(text.as_ref(), true)?;
            let last = ids.last().copied().context("a text without a token")?;
            if ids.len() > most {
                ids.truncate(most);
                // What ends a text stays at its end.
                ids[most - 1] = last;
            }
            Ok(ids)
        };
        let rows = texts.iter().map(row).collect::<Result<Vec<_>>>()?;
        Ok(Texts::pad(&rows, self.tokenizer.specials().pad))
    }
}

/// R@1, R@5 and R@10 both ways among `pairs`. Equal captions are one, true of the images of all; equal images are, too. In the
/// scenes' few words many captions are equal: there each counts for its own image alone.
pub fn retrieval(comparer: &Comparer<'_>, pairs: &[Pair]) -> Result<Figures> {
    let mut images = Features::default();
    for batch in pairs.chunks(BATCH) {
        interrupt::heed()?;
        let pixels = comparer.pixels_of(batch.iter().map(|pair| &pair.image))?;
        comparer.add_images(&pixels, &mut images)?;
    }
    let own = pairs.iter().enumerate().map(|(i, pair)| (i, pair.caption.as_str()));
    let (captions, images_of, ties) = if pairs.iter().any(|pair| pair.scene.is_some()) {
        let (each, captions): (Vec<usize>, Vec<&str>) = own.unzip();
        (captions, each.into_iter().map(|i| vec![i]).collect(), Ties::Against)
    } else {
        let (captions, mut images_of) = distinct(own);
        for (caption, images) in captions.iter().zip(&mut images_of) {
            *images = (0..pairs.len()).filter(|&i| pairs[i].could_say(caption) || images.contains(&i)).collect();
        }
        let mut numbers = HashMap::new();
        let same = pairs.iter().enumerate().map(|(i, pair)| *numbers.entry(pair.image.as_raw()).or_insert(i));
        share_among_equal(&mut images_of, &same.collect::<Vec<_>>());
        (captions, images_of, Ties::Even)
    };
    let scored = Scored { scores: comparer.scores(&images, &comparer.texts(&captions)?)?, images_of, ties };
    let mut found = figures("retrieval.", &scored.measures(&[1, 5, 10]));
    if ties == Ties::Even {
        found.insert("items.cut_captions".into(), comparer.cut(&captions)? as f64);
    }
    Ok(found)
}

/// A run's model as one that compares; None without a Q-Former that takes texts.
pub fn comparer<'m>(vlm: &'m Vlm, params: &'m Params, prepare: &'m Prepare) -> Option<Comparer<'m>> {
    let qformer = vlm.qformer.as_ref()?;
    Some(Comparer::of_qformer(&vlm.vision, qformer, params, &prepare.tokenizer, &prepare.processor))
}
