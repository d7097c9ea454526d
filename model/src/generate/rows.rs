//! Several answers in progress over one cache.

use super::generator::{Generator, Kept};
use super::prompt::{Expanded, Token};
use crate::error::{Result, input};
use crate::kv_cache::KvCache;
use engine::ops::{self, Attend};
use engine::{Graph, Tensor};
use std::collections::BTreeMap;

/// Each row's cache ends where the others' do: padding stands in front of the shorter ones, where a sliding window does not
/// meet it.
pub(super) struct Rows<'g> {
    generator: &'g Generator<'g>,
    /// Slots of the images in front of each row's text.
    slots: usize,
    cache: KvCache,
    /// Per row: the tokens in the cache behind those slots.
    fed: Vec<Vec<Token>>,
    /// Per row: logits of the next token.
    pub(super) logits: Vec<Vec<f64>>,
}

impl<'g> Rows<'g> {
    /// Feeds the prompts, which have as many images in front; up to `room` tokens follow each.
    pub(super) fn start(generator: &'g Generator<'g>, prompts: &[&Expanded<'_>], room: usize) -> Result<Rows<'g>> {
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(0);
        let leading: Vec<&[usize]> = prompts.iter().map(|prompt| prompt.leading).collect();
        let slots = leading.first().map_or(0, |images| images.len()) * generator.slots();
        let mut rows = Rows {
            generator,
            slots,
            cache: leading_cache(generator, &leading, longest + room)?,
            fed: vec![Vec::new(); prompts.len()],
            logits: Vec::new(),
        };
        rows.feed(&prompts.iter().map(|prompt| &prompt.tokens[..]).collect::<Vec<_>>())?;
        Ok(rows)
    }

    /// As [`Rows::start`] for one prompt, where `kept` has seen the same images in front and perhaps more.
    pub(super) fn resume(
        generator: &'g Generator<'g>,
        kept: Kept,
        prompt: &Expanded<'_>,
        room: usize,
    ) -> Result<Rows<'g>> {
        let Kept { mut tokens, mut cache, .. } = kept;
        let slots = prompt.leading.len() * generator.slots();
        let shared = shared_prefix(&tokens, &prompt.tokens);
        tokens.truncate(shared);
        cache.truncate(slots + shared);
        cache.grow(slots + prompt.tokens.len() + room)?;
        let mut rows = Rows { generator, slots, cache, fed: vec![tokens], logits: Vec::new() };
        rows.feed(&[&prompt.tokens[shared..]])?;
        Ok(rows)
    }

    /// What a later prompt may share with the first row.
    pub(super) fn into_kept(mut self, leading: &[usize]) -> Result<Kept> {
        self.rearrange(&[0])?;
        Ok(Kept { leading: leading.to_vec(), tokens: self.fed.swap_remove(0), cache: self.cache })
    }

    /// Goes on with these rows; one may be there several times.
    pub(super) fn rearrange(&mut self, parents: &[usize]) -> Result<()> {
        if parents.iter().copied().eq(0..self.fed.len()) {
            return Ok(());
        }
        let entries: Vec<i32> = parents.iter().map(|&row| row as i32).collect();
        self.cache = self.cache.gather(&entries)?;
        self.fed = parents.iter().map(|&row| self.fed[row].clone()).collect();
        Ok(())
    }

    /// Takes more tokens per row, at least one each, and computes the logits behind each row's last.
    pub(super) fn feed(&mut self, new: &[&[Token]]) -> Result<()> {
        let tokens = new.iter().map(|row| row.len()).max().unwrap_or(0);
        let generator = self.generator;
        let (device, decoder) = (generator.params().device(), generator.decoder());
        let filler = Token::word(u32::from(generator.image_token() == Some(0)));
        let first = generator.text_start(self.slots);
        let (mut grid, mut positions, mut last) = (Vec::new(), Vec::new(), Vec::new());
        for (r, row) in new.iter().enumerate() {
            last.push((r * tokens + row.len()) as i32 - 1);
            let next = first + self.fed[r].len() as i32;
            positions.extend((0..tokens as i32).map(|token| next + token));
            grid.extend_from_slice(row);
            grid.resize((r + 1) * tokens, filler);
        }
        let attend = Attend { segments: self.segments(new, tokens)?, ..Attend::causal() };
        let size = [new.len(), tokens];
        let g = Graph::inference(generator.params());
        let x = generator.embedded(&g, &grid, tokens)?;
        let positions = Tensor::from_slice(device, &positions, size)?;
        let out = decoder.step(&g, &x, &positions, &attend, &mut self.cache)?;
        let flat = ops::reshape(&out, [grid.len(), decoder.config().hidden_size])?;
        let ends = ops::embedding(&flat, &Tensor::from_slice(device, &last, [new.len()])?)?;
        self.read_logits(decoder.logits(&g, &ends)?.tensor())?;
        self.align(new, tokens)
    }

    /// What is padding, if anything: in front of a row's images and text, and behind its new tokens.
    fn segments(&self, new: &[&[Token]], tokens: usize) -> Result<Option<Tensor>> {
        let keys = self.cache.len() + tokens;
        let mut segments = Vec::with_capacity(new.len() * keys);
        for (row, fed) in new.iter().zip(&self.fed) {
            let held = self.slots + fed.len();
            segments.extend(std::iter::repeat_n(-1, self.cache.len() - held));
            segments.extend(std::iter::repeat_n(0, held + row.len()));
            segments.extend(std::iter::repeat_n(-1, tokens - row.len()));
        }
        if segments.iter().all(|&segment| segment == 0) {
            return Ok(None);
        }
        let device = self.generator.params().device();
        Ok(Some(Tensor::from_slice(device, &segments, [new.len(), keys])?))
    }

    fn read_logits(&mut self, logits: &Tensor) -> Result<()> {
        let vocab = logits.shape().last();
        self.logits = logits.to_f64()?.chunks(vocab).map(<[f64]>::to_vec).collect();
        if self.logits.iter().flatten().any(|logit| logit.is_nan()) {
            let message = "are not numbers: the weights are damaged, or too large for the type they were read in";
            return input("logits", message);
        }
        Ok(())
    }

    /// Moves padding from behind the new tokens to the front.
    fn align(&mut self, new: &[&[Token]], tokens: usize) -> Result<()> {
        for (fed, row) in self.fed.iter_mut().zip(new) {
            fed.extend_from_slice(row);
        }
        let padding: Vec<usize> = new.iter().map(|row| tokens - row.len()).collect();
        if padding.iter().any(|&tokens| tokens > 0) {
            self.cache.shift(&padding)?;
        }
        Ok(())
    }
}

/// A cache that holds, per row, the images in front of its text: rows about the same images share the work.
fn leading_cache(generator: &Generator<'_>, leading: &[&[usize]], room: usize) -> Result<KvCache> {
    let g = Graph::inference(generator.params());
    let mut places = BTreeMap::new();
    let mut lists = Vec::new();
    let entry = |images| {
        *places.entry(images).or_insert_with(|| {
            lists.push(images);
            lists.len() as i32 - 1
        })
    };
    let entries: Vec<i32> = leading.iter().copied().map(entry).collect();
    match generator.leading_slots(&lists)? {
        Some((vlm, visual)) => {
            let cache = vlm.image_cache(&g, &visual, room)?;
            let same = entries.iter().copied().eq(0..lists.len() as i32);
            Ok(if same { cache } else { cache.gather(&entries)? })
        }
        None => Ok(generator.decoder().cache(&g, leading.len(), room)?),
    }
}

/// How many of the new prompt's tokens are in the cache: not its last, whose logits are wanted, and no part of an image.
fn shared_prefix(held: &[Token], prompt: &[Token]) -> usize {
    let same = held.iter().zip(prompt).take_while(|(held, new)| held == new).count();
    let mut shared = same.min(prompt.len() - 1);
    while shared > 0 && prompt[shared].image.is_some() && prompt[shared - 1].image == prompt[shared].image {
        shared -= 1;
    }
    shared
}
