//! Answers, one token at a time.

use crate::error::{Result, input};
use crate::kv_cache::KvCache;
use crate::sampler::{Sampler, likeliest};
use crate::vlm::Vlm;
use engine::ops::{self, Attend};
use engine::{Graph, Params, Tensor};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Prompts decoded together by [`Vlm::answer`].
const BATCH: usize = 64;

/// How long an answer may be and how its tokens are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The most tokens.
    pub max_new: usize,
    /// Tokens that end the answer; they are not part of it.
    pub stop: Vec<u32>,
    /// How tokens are drawn.
    pub sampler: Sampler,
}

impl Vlm {
    /// Continues `prompt` about one image: pixels (1, 3, size, size). Each token goes to `on_token` as soon as it is
    /// drawn, which may stop there.
    ///
    /// # Errors
    /// When there is not exactly one image, the prompt is empty, or image, prompt and answer do not fit the decoder.
    pub fn generate(
        &self,
        params: &Params,
        pixels: &Tensor,
        prompt: &[u32],
        settings: &Generation,
        mut on_token: impl FnMut(u32) -> ControlFlow<()>,
    ) -> Result<Vec<u32>> {
        if pixels.shape().first() != Some(&1) {
            return input("image", format!("{}, expected (1, 3, height, width)", pixels.shape()));
        }
        let mut draws = settings.sampler.start()?;
        let mut rows = Rows::start(self, params, pixels, vec![Row::new(0, prompt)], settings.max_new)?;
        let mut answer = Vec::new();
        while answer.len() < settings.max_new {
            let token = draws.draw(&rows.logits);
            if settings.stop.contains(&token) {
                break;
            }
            answer.push(token);
            if on_token(token).is_break() || answer.len() == settings.max_new {
                break;
            }
            rows.advance(&[token])?;
        }
        Ok(answer)
    }

    /// The likeliest answers to many prompts at once, for evaluation: pixels (images, 3, size, size), each prompt with
    /// the index of its image. Images are encoded once per run of prompts about them, prompts of different lengths
    /// decoded together; answers are the same as [`Vlm::generate`]'s at temperature 0.
    ///
    /// # Errors
    /// When a prompt is empty, names no image, or does not fit the decoder with its image and answer.
    pub fn answer(
        &self,
        params: &Params,
        pixels: &Tensor,
        prompts: &[(usize, Vec<u32>)],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        let images = pixels.shape().first().copied().unwrap_or(0);
        if let Some((image, _)) = prompts.iter().find(|(image, _)| *image >= images) {
            return input("prompt", format!("is about image {image} of {images}"));
        }
        let mut answers = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(BATCH) {
            answers.extend(self.answer_batch(params, pixels, batch, max_new, stop)?);
        }
        Ok(answers)
    }

    fn answer_batch(
        &self,
        params: &Params,
        pixels: &Tensor,
        prompts: &[(usize, Vec<u32>)],
        max_new: usize,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        let mut answers = vec![Vec::new(); prompts.len()];
        let mut places = BTreeMap::new();
        for (image, _) in prompts {
            let next = places.len();
            places.entry(*image).or_insert(next);
        }
        let mut chosen = vec![0; places.len()];
        for (image, place) in &places {
            chosen[*place] = *image as i32;
        }
        let chosen = Tensor::from_slice(params.device(), &chosen, [chosen.len()])?;
        let pixels = ops::embedding(&engine::Var::constant(pixels.clone()), &chosen)?;
        let rows = prompts.iter().map(|(image, prompt)| Row::new(places[image], prompt));
        let mut rows = Rows::start(self, params, pixels.tensor(), rows.collect(), max_new)?;
        // Which answer each row of the cache is about; rows leave when their answer ends.
        let mut open: Vec<usize> = (0..prompts.len()).collect();
        for step in 0..max_new {
            let tokens: Vec<u32> = rows.logits.chunks(rows.vocab).map(likeliest).collect();
            let going: Vec<usize> = (0..open.len()).filter(|&r| !stop.contains(&tokens[r])).collect();
            for &r in &going {
                answers[open[r]].push(tokens[r]);
            }
            if going.is_empty() || step + 1 == max_new {
                break;
            }
            if going.len() < open.len() {
                rows.keep(&going)?;
                open = going.iter().map(|&r| open[r]).collect();
            }
            let tokens: Vec<u32> = going.iter().map(|&r| tokens[r]).collect();
            rows.advance(&tokens)?;
        }
        Ok(answers)
    }
}

/// One prompt on its way.
struct Row<'p> {
    /// Which of the images it is about.
    image: usize,
    prompt: &'p [u32],
}

impl<'p> Row<'p> {
    fn new(image: usize, prompt: &'p [u32]) -> Row<'p> {
        Row { image, prompt }
    }
}

/// Several answers in progress over one cache.
struct Rows<'v> {
    vlm: &'v Vlm,
    params: &'v Params,
    cache: KvCache,
    /// Per row and cached token: 0 where it counts, −1 in the padding between a short prompt and its answer.
    segments: Vec<Vec<i32>>,
    /// Per row: the position of the next token.
    next: Vec<i32>,
    /// Row after row: logits of the next token, one for each of `vocab` ids.
    logits: Vec<f64>,
    vocab: usize,
}

impl<'v> Rows<'v> {
    /// Encodes the images, then the prompts behind them.
    fn start(
        vlm: &'v Vlm,
        params: &'v Params,
        pixels: &Tensor,
        rows: Vec<Row<'_>>,
        max_new: usize,
    ) -> Result<Rows<'v>> {
        let longest = rows.iter().map(|row| row.prompt.len()).max().unwrap_or(0);
        if rows.iter().any(|row| row.prompt.is_empty()) {
            return input("prompt", "is empty");
        }
        let (slots, limit) = (vlm.config.image_tokens(), vlm.config.decoder.max_position_embeddings);
        if slots + longest + max_new > limit {
            let message =
                format!("{slots} image slots, {longest} tokens and an answer of {max_new}: more than {limit}");
            return input("prompt", message);
        }
        let g = Graph::inference(params);
        let visual = vlm.visual_tokens(&g, &g.input(pixels.clone()))?;
        let images: Vec<i32> = rows.iter().map(|row| row.image as i32).collect();
        let cache = vlm.image_cache(&g, &visual, longest + max_new)?;
        let cache = if rows.len() == 1 { cache } else { cache.gather(&images)? };
        let first = vlm.text_start(slots);
        let mut started = Rows {
            vlm,
            params,
            cache,
            segments: vec![vec![0; slots]; rows.len()],
            next: vec![first; rows.len()],
            logits: Vec::new(),
            vocab: 0,
        };
        let prompts: Vec<&[u32]> = rows.iter().map(|row| row.prompt).collect();
        started.feed(&prompts)?;
        Ok(started)
    }

    /// Takes one more token per row.
    fn advance(&mut self, tokens: &[u32]) -> Result<()> {
        self.feed(&tokens.chunks(1).collect::<Vec<_>>())
    }

    /// Takes more tokens per row, at least one each, and computes the logits behind each row's last.
    fn feed(&mut self, rows: &[&[u32]]) -> Result<()> {
        let (batch, tokens) = (rows.len(), rows.iter().map(|row| row.len()).max().unwrap_or(0));
        let size = batch * tokens;
        let (mut ids, mut positions, mut last) = (Vec::with_capacity(size), Vec::with_capacity(size), Vec::new());
        for (r, row) in rows.iter().enumerate() {
            let padding = tokens - row.len();
            ids.extend(row.iter().map(|&id| id as i32));
            ids.extend(std::iter::repeat_n(0, padding));
            positions.extend((0..tokens as i32).map(|t| self.next[r] + t));
            self.segments[r].extend(std::iter::repeat_n(0, row.len()));
            self.segments[r].extend(std::iter::repeat_n(-1, padding));
            self.next[r] += row.len() as i32;
            last.push((r * tokens + row.len() - 1) as i32);
        }
        let device = self.params.device();
        let all = [batch, self.cache.len() + tokens];
        let attend = Attend {
            segments: Some(Tensor::from_slice(device, &self.segments.concat(), all)?),
            ..Attend::causal()
        };
        let g = Graph::inference(self.params);
        let decoder = &self.vlm.decoder;
        let x = decoder.embed(&g, &Tensor::from_slice(device, &ids, [batch, tokens])?)?;
        let positions = Tensor::from_slice(device, &positions, [batch, tokens])?;
        let out = decoder.step(&g, &x, &positions, &attend, &mut self.cache)?;
        let flat = ops::reshape(&out, [size, decoder.config().hidden_size])?;
        let ends = ops::embedding(&flat, &Tensor::from_slice(device, &last, [batch])?)?;
        let logits = decoder.logits(&g, &ends)?;
        (self.logits, self.vocab) = (logits.tensor().to_f64()?, logits.shape().last());
        Ok(())
    }

    /// Drops all rows but these.
    fn keep(&mut self, rows: &[usize]) -> Result<()> {
        let entries: Vec<i32> = rows.iter().map(|&r| r as i32).collect();
        self.cache = self.cache.gather(&entries)?;
        self.segments = rows.iter().map(|&r| self.segments[r].clone()).collect();
        self.next = rows.iter().map(|&r| self.next[r]).collect();
        Ok(())
    }
}
