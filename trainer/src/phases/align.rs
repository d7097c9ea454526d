//! Phase 1: image and text meet in the Q-Former, as in BLIP-2's first stage (Li et al. 2023).
//!
//! Three losses on pairs of image and caption: contrastive (ITC), matching with hard negatives (ITM) and captioning
//! (ITG), weighted in the recipe.

use super::Phase;
use super::fit::{Losses, Objective};
use crate::data::{Pair, Prepare, Source};
use crate::recipe::Phase1;
use anyhow::{Context, Result};
use engine::{Graph, Pairs, Tensor, Var, ops};
use model::{QFormer, Texts, Vlm};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The share of the phase in which wrong pairs are drawn evenly: hard ones from the start teach nothing.
const EASY: f64 = 0.3;

/// What phase 1 trains.
pub struct Align<'a> {
    /// The model; it has a Q-Former.
    pub vlm: &'a Vlm,
    /// Where pairs come from.
    pub source: &'a dyn Source,
    /// Tokenizer and image processor.
    pub prepare: &'a Prepare,
    /// Weights of the losses and the batch size.
    pub phase: &'a Phase1,
    /// Drives the choice of hard negatives.
    pub seed: u64,
}

/// Pairs of image and caption.
pub struct Batch {
    pixels: Vec<u8>,
    /// `[CLS] caption`.
    texts: Texts,
    /// `[DEC] caption [EOS]`.
    captions: Texts,
    /// (batch, batch): 1 where caption j would be true of image i, else 0.
    truth: Vec<u8>,
    /// Factor on the similarity that wrong pairs are drawn by; 0 draws evenly.
    hard: f64,
    index: u64,
}

impl Objective for Align<'_> {
    type Batch = Batch;

    fn batch(&self, index: u64, size: usize, progress: f64) -> Result<Batch> {
        let size = size as u64;
        let pairs = (index * size..(index + 1) * size)
            .map(|i| self.source.pair(i))
            .collect::<Result<Vec<Pair>>>()?;
        let captions: Vec<&str> = pairs.iter().map(|p| p.caption.as_str()).collect();
        let tokenizer = &self.prepare.tokenizer;
        let hard = self.phase.itm_hardness * ((progress - EASY) / (1.0 - EASY)).max(0.0);
        Ok(Batch {
            pixels: self.prepare.pixels(pairs.iter().map(|p| &p.image))?,
            texts: Texts::for_matching(tokenizer, &captions)?,
            captions: Texts::for_captioning(tokenizer, &captions)?,
            truth: pairs
                .iter()
                .flat_map(|a| captions.iter().map(|b| u8::from(a.could_say(b))))
                .collect(),
            hard,
            index,
        })
    }

    fn text_tokens(&self, batch: &Batch) -> usize {
        batch.texts.lens.iter().map(|&len| len as usize).sum()
    }

    fn losses(&self, graph: &Graph<'_>, batch: &Batch) -> Result<Losses> {
        let qformer = self
            .vlm
            .qformer
            .as_ref()
            .context("phase 1 needs [model.qformer] in the recipe")?;
        let pixels = self.prepare.tensor(graph.params(), &batch.pixels)?;
        let image = self.vlm.vision.forward(graph, &graph.input(pixels))?;
        let image_features = qformer.itc_features(graph, &image)?;
        let text_features = qformer.text_features(graph, &batch.texts)?;
        let itc = ops::clip_loss(&image_features, &text_features, &qformer.logit_scale(graph)?)?;
        let mut weighted = vec![("itc", itc, self.phase.itc)];
        if self.phase.itm > 0.0 {
            let pairs = self.pairs(qformer, graph, &image_features, &text_features, batch)?;
            let matching = qformer.itm_loss(graph, &image, &batch.texts, &pairs)?;
            weighted.push(("itm", matching.loss, self.phase.itm));
        }
        if self.phase.itg > 0.0 {
            let caption = qformer.caption_loss(graph, &image, &batch.captions, &batch.captions.next_tokens())?;
            weighted.push(("itg", caption.loss, self.phase.itg));
        }
        let parts = weighted
            .iter()
            .map(|(name, loss, _)| (*name, loss.tensor().clone()))
            .collect();
        Ok(Losses {
            phase: Phase::Align,
            total: sum(&weighted)?,
            parts,
            predictions: None,
        })
    }
}

impl Align<'_> {
    /// Each true pair, each image with a hard wrong caption, each caption with a hard wrong image.
    fn pairs(&self, qformer: &QFormer, graph: &Graph<'_>, image: &Var, text: &Var, batch: &Batch) -> Result<Pairs> {
        let (device, n) = (graph.params().device(), batch.texts.batch);
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ batch.index.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let uniform: Vec<f64> = (0..2 * n).map(|_| rng.random()).collect();
        Ok(Pairs::draw(
            &scores(image, text)?,
            qformer.logit_scale(graph)?.tensor(),
            batch.hard,
            &Tensor::from_slice(device, &batch.truth, [n, n])?,
            &Tensor::from_slice(device, &uniform, [2 * n])?,
        )?)
    }
}

/// Of each of an image's vectors (n, queries, dim) with each text (m, dim): (n, queries, m).
fn scores(image: &Var, text: &Var) -> Result<Tensor> {
    let [n, queries, dim] = image.shape()[..] else {
        anyhow::bail!("image features {}", image.shape())
    };
    let flat = ops::reshape(&image.detach(), [n * queries, dim])?;
    let scores = ops::matmul(&flat, &text.detach(), true)?;
    Ok(ops::reshape(&scores, [n, queries, text.shape()[0]])?.tensor().clone())
}

/// Scores of every image (row) with every caption (column), as the contrastive loss sees them: (n, n).
pub fn similarity(qformer: &QFormer, graph: &Graph<'_>, image: &Var, text: &Var) -> Result<Vec<f64>> {
    let scale = qformer.logit_scale(graph)?.tensor().item()?.exp().min(100.0);
    let scores = scores(image, text)?;
    let [n, queries, columns] = scores.shape()[..] else {
        anyhow::bail!("scores {}", scores.shape())
    };
    let scores = scores.to_f64()?;
    let best = |i: usize, j: usize| {
        (0..queries)
            .map(|q| scores[(i * queries + q) * columns + j])
            .fold(f64::MIN, f64::max)
    };
    Ok((0..n * columns)
        .map(|place| scale * best(place / columns, place % columns))
        .collect())
}

fn sum(weighted: &[(&'static str, Var, f64)]) -> Result<Var> {
    let mut total = ops::scale(&weighted[0].1, weighted[0].2)?;
    for (_, loss, weight) in &weighted[1..] {
        total = ops::add(&total, &ops::scale(loss, *weight)?)?;
    }
    Ok(total)
}
