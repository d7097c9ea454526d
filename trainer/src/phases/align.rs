//! Phase 1: image and text meet in the Q-Former, as in BLIP-2's first stage (Li et al. 2023).
//!
//! Three losses on pairs of image and caption: contrastive (ITC), matching with hard negatives (ITM) and captioning
//! (ITG), weighted in the recipe.

use super::Phase;
use super::contrast::Contrast;
use super::fit::{Losses, Objective, Part};
use crate::data::{Pair, Prepare, Source};
use crate::recipe::Phase1;
use anyhow::{Context, Result};
use engine::{Graph, Pairs, Params, Tensor, Var, ops};
use image::RgbImage;
use model::{IGNORE, QFormer, Texts, Vlm};
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
    /// What the images show and are said to show; their pixels are above.
    pairs: Vec<Pair>,
    /// Factor on the similarity that wrong pairs are drawn by; 0 draws evenly.
    hard: f64,
    index: u64,
}

/// Parts of a step that are contrasted with each other, as one batch would be.
pub struct Group {
    contrast: Contrast,
    /// The texts of all parts.
    texts: Texts,
    /// Pairs to be told apart, for each part those of its images.
    matching: Vec<[Vec<i32>; 3]>,
}

/// What all parts of a step are to know of each other.
pub struct GlobalBatch {
    /// Those that are contrasted with each other; none where each is alone.
    groups: Vec<Group>,
    /// Tokens to predict in each part's captions.
    words: Vec<usize>,
}

impl Objective for Align<'_> {
    type Batch = Batch;
    type Together = GlobalBatch;

    fn batch(&self, start: u64, size: usize, progress: f64) -> Result<Batch> {
        let size = size as u64;
        let mut pairs = (start..start + size).map(|i| self.source.pair(i)).collect::<Result<Vec<Pair>>>()?;
        let captions: Vec<&str> = pairs.iter().map(|p| p.caption.as_str()).collect();
        let tokenizer = &self.prepare.tokenizer;
        let most = self.qformer()?.config().max_position_embeddings;
        let hard = self.phase.itm_hardness * ((progress - EASY) / (1.0 - EASY)).max(0.0);
        let (texts, captions) =
            (Texts::for_matching(tokenizer, &captions, most)?, Texts::for_captioning(tokenizer, &captions, most)?);
        let pixels = self.prepare.pixels(pairs.iter().map(|p| &p.image))?;
        pairs.iter_mut().for_each(|pair| pair.image = RgbImage::default());
        Ok(Batch { pixels, texts, captions, pairs, hard, index: start / size })
    }

    fn text_tokens(&self, batch: &Batch) -> usize {
        batch.texts.lens.iter().map(|&len| len as usize).sum()
    }

    fn together<'p>(&self, parts: &[Batch], graph: &dyn Fn(usize) -> Graph<'p>) -> Result<Option<GlobalBatch>> {
        self.global(&parts.iter().collect::<Vec<_>>(), self.phase.accumulate, graph)
    }

    fn losses(&self, graph: &Graph<'_>, batch: &Batch, together: Option<(&GlobalBatch, usize)>) -> Result<Losses> {
        let (image, features) = self.features(graph, batch)?;
        let mut weighted = match together {
            Some((global, number)) if !global.groups.is_empty() => {
                let members = global.words.len() / global.groups.len();
                let (group, number) = (&global.groups[number / members], number % members);
                self.among(graph, &image, &features, group, number)?
            }
            _ => self.alone(graph, batch, &image, &features)?,
        };
        if self.phase.itg > 0.0 {
            weighted.push(self.captioning(graph, batch, &image, together)?);
        }
        weighted.retain(|(_, _, weight)| *weight > 0.0);
        let part = |(name, loss, weight): &(&'static str, Var, f64)| Part {
            name,
            loss: loss.tensor().clone(),
            weight: *weight,
            terms: match *name {
                "itg" => batch.words(),
                _ => batch.pairs.len(),
            } as f64,
        };
        Ok(Losses {
            phase: Phase::Align,
            parts: weighted.iter().map(part).collect(),
            total: sum(&weighted)?,
            predictions: None,
        })
    }
}

impl Batch {
    /// Tokens to predict in its captions.
    fn words(&self) -> usize {
        self.captions.next_tokens().iter().filter(|&&t| t != IGNORE).count()
    }
}

/// Losses with their weights.
type Weighted = Vec<(&'static str, Var, f64)>;

impl Align<'_> {
    fn qformer(&self) -> Result<&QFormer> {
        let qformer = self.vlm.qformer.as_ref();
        qformer.context("phase 1 needs [model.qformer] in the recipe")
    }

    /// The encoder's tokens, and the vectors of images and texts that are contrasted.
    fn features(&self, graph: &Graph<'_>, batch: &Batch) -> Result<(Var, [Var; 2])> {
        let qformer = self.qformer()?;
        let pixels = self.prepare.tensor(graph.params(), &batch.pixels)?;
        let image = self.vlm.vision.forward(graph, &graph.input(pixels))?;
        let features = [qformer.itc_features(graph, &image)?, qformer.text_features(graph, &batch.texts)?];
        Ok((image, features))
    }

    /// The contrastive and the matching loss of a part that knows of no other.
    fn alone(&self, graph: &Graph<'_>, batch: &Batch, image: &Var, features: &[Var; 2]) -> Result<Weighted> {
        let (qformer, phase) = (self.qformer()?, self.phase);
        let scale = qformer.logit_scale(graph)?;
        let mut weighted = vec![("itc", ops::clip_loss(&features[0], &features[1], &scale)?, phase.itc)];
        if phase.itm > 0.0 {
            let pairs = self.pairs(graph.params(), features, scale.tensor(), &[batch])?;
            let matching = qformer.itm_loss(graph, image, &batch.texts, &pairs)?;
            weighted.push(("itm", matching.loss, phase.itm));
        }
        Ok(weighted)
    }

    /// The captioning loss of a part: of a step's parts one whose mean over them is that over all their tokens, as captions
    /// differ in length.
    fn captioning(
        &self,
        graph: &Graph<'_>,
        batch: &Batch,
        image: &Var,
        together: Option<(&GlobalBatch, usize)>,
    ) -> Result<(&'static str, Var, f64)> {
        let targets = batch.captions.next_tokens();
        let mut loss = self.qformer()?.caption_loss(graph, image, &batch.captions, &targets)?.loss;
        if let Some((GlobalBatch { words, .. }, number)) = together {
            let share = (words[number] * words.len()) as f64 / words.iter().sum::<usize>().max(1) as f64;
            loss = ops::scale(&loss, share)?;
        }
        Ok(("itg", loss, self.phase.itg))
    }

    /// The contrastive and the matching loss of a part of a group, of which the mean over the group's parts is that of the group
    /// as one batch.
    fn among(
        &self,
        graph: &Graph<'_>,
        image: &Var,
        features: &[Var; 2],
        group: &Group,
        number: usize,
    ) -> Result<Weighted> {
        let (qformer, phase) = (self.qformer()?, self.phase);
        let scale = qformer.logit_scale(graph)?;
        let itc = group.contrast.part(number, [&features[0], &features[1]], &[scale])?;
        let mut weighted = vec![("itc", itc, phase.itc)];
        if phase.itm > 0.0 {
            let mine = &group.matching[number];
            let list = |numbers: &Vec<i32>| Tensor::from_slice(graph.params().device(), numbers, [numbers.len()]);
            let pairs = Pairs { images: list(&mine[0])?, texts: list(&mine[1])?, labels: list(&mine[2])? };
            let matching = qformer.itm_loss(graph, image, &group.texts, &pairs)?;
            let share = (mine[0].len() * group.matching.len()) as f64 / (3 * group.texts.batch) as f64;
            weighted.push(("itm", ops::scale(&matching.loss, share)?, phase.itm));
        }
        Ok(weighted)
    }

    /// Every `members` parts one after another as a group, after a first pass over them; None for a part that is all.
    pub(super) fn global<'p>(
        &self,
        parts: &[&Batch],
        members: usize,
        graph: &dyn Fn(usize) -> Graph<'p>,
    ) -> Result<Option<GlobalBatch>> {
        if parts.len() == 1 {
            return Ok(None);
        }
        let group = |(number, parts): (usize, &[&Batch])| self.group(parts, &|i| graph(number * members + i));
        let groups = match members {
            1 => Vec::new(),
            _ => parts.chunks(members).enumerate().map(group).collect::<Result<_>>()?,
        };
        Ok(Some(GlobalBatch { groups, words: parts.iter().map(|part| part.words()).collect() }))
    }

    fn group<'p>(&self, parts: &[&Batch], graph: &dyn Fn(usize) -> Graph<'p>) -> Result<Group> {
        let (mut features, mut scale) = (Vec::with_capacity(parts.len()), None);
        for (i, part) in parts.iter().enumerate() {
            let graph = graph(i).without_gradients();
            let [image, text] = self.features(&graph, part)?.1;
            features.push([image.tensor().clone(), text.tensor().clone()]);
            scale = Some((self.qformer()?.logit_scale(&graph)?.tensor().clone(), graph.params()));
        }
        let (scale, params) = scale.context("no parts")?;
        let contrast = Contrast::of(&features, std::slice::from_ref(&scale), |image, text, others| {
            Ok(ops::clip_loss(image, text, &others[0])?)
        })?;
        let matching = match self.phase.itm > 0.0 {
            true => divided(&self.pairs(params, &contrast.features(), &scale, parts)?, parts)?,
            false => Vec::new(),
        };
        Ok(Group { contrast, texts: Texts::join(parts.iter().map(|part| &part.texts)), matching })
    }

    /// Each true pair, each image with a hard wrong caption, each caption with a hard wrong image, of all parts together.
    fn pairs(&self, params: &Params, features: &[Var; 2], log_scale: &Tensor, parts: &[&Batch]) -> Result<Pairs> {
        let (device, all) = (params.device(), || parts.iter().flat_map(|part| &part.pairs));
        let n = all().count();
        let truth: Vec<u8> = all().flat_map(|a| all().map(|b| u8::from(a.could_say(&b.caption)))).collect();
        // Parts of one batch draw what the batch would have drawn.
        let index = parts[0].index / parts.len() as u64;
        let mut rng = ChaCha8Rng::seed_from_u64(self.seed ^ index.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let uniform: Vec<f64> = (0..2 * n).map(|_| rng.random()).collect();
        Ok(Pairs::draw(
            &scores(&features[0], &features[1])?,
            log_scale,
            parts[0].hard,
            &Tensor::from_slice(device, &truth, [n, n])?,
            &Tensor::from_slice(device, &uniform, [2 * n])?,
        )?)
    }
}

/// Pairs of a group by the part that their image is in: images counted within it, texts within the group, labels.
fn divided(pairs: &Pairs, parts: &[&Batch]) -> Result<Vec<[Vec<i32>; 3]>> {
    let read = |list: &Tensor| list.to_vec::<i32>();
    let (images, texts, labels) = (read(&pairs.images)?, read(&pairs.texts)?, read(&pairs.labels)?);
    let mut divided = Vec::with_capacity(parts.len());
    let mut start = 0;
    for part in parts {
        let end = start + part.pairs.len() as i32;
        let mine = (0..images.len()).filter(|&i| (start..end).contains(&images[i]));
        let mine: Vec<usize> = mine.collect();
        divided.push([
            mine.iter().map(|&i| images[i] - start).collect(),
            mine.iter().map(|&i| texts[i]).collect(),
            mine.iter().map(|&i| labels[i]).collect(),
        ]);
        start = end;
    }
    Ok(divided)
}

/// Of each of an image's vectors (n, queries, dim) with each text (m, dim): (n, queries, m).
fn scores(image: &Var, text: &Var) -> Result<Tensor> {
    let [n, queries, dim] = image.shape()[..] else { anyhow::bail!("image features {}", image.shape()) };
    let flat = ops::reshape(&image.detach(), [n * queries, dim])?;
    let scores = ops::matmul(&flat, &text.detach(), true)?;
    Ok(ops::reshape(&scores, [n, queries, text.shape()[0]])?.tensor().clone())
}

/// Scores of every image (row) with every caption (column), as the contrastive loss sees them: (n, n).
pub fn similarity(qformer: &QFormer, graph: &Graph<'_>, image: &Var, text: &Var) -> Result<Vec<f64>> {
    let scale = qformer.logit_scale(graph)?.tensor().item()?.exp();
    let scores = scores(image, text)?;
    let [n, queries, columns] = scores.shape()[..] else { anyhow::bail!("scores {}", scores.shape()) };
    let scores = scores.to_f64()?;
    let best =
        |i: usize, j: usize| (0..queries).map(|q| scores[(i * queries + q) * columns + j]).fold(f64::MIN, f64::max);
    Ok((0..n * columns).map(|place| scale * best(place / columns, place % columns)).collect())
}

fn sum(weighted: &[(&'static str, Var, f64)]) -> Result<Var> {
    let mut total = ops::scale(&weighted[0].1, weighted[0].2)?;
    for (_, loss, weight) in &weighted[1..] {
        total = ops::add(&total, &ops::scale(loss, *weight)?)?;
    }
    Ok(total)
}
