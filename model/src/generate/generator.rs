//! A model that continues prompts, and the images it has seen.

use super::beam::BeamSearch;
use super::prompt::{Expanded, Prompt, Token};
use super::rows::Rows;
use super::single::Single;
use super::{Answer, Listener, Request, Search};
use crate::decoder::Decoder;
use crate::error::{Result, input};
use crate::kv_cache::KvCache;
use crate::tokenizer::Tokenizer;
use crate::vlm::Vlm;
use engine::{Graph, Params, Tensor, Var, ops};
use std::collections::BTreeMap;
use std::ops::Range;

/// Rows decoded together.
pub(super) const BATCH: usize = 64;

/// Continues prompts, many at a time, with a language model or a vision-language model.
///
/// ```
/// use engine::{DType, Device};
/// use model::{Generation, Generator, Prompt, Request, Vlm, VlmConfig};
/// use std::ops::ControlFlow;
/// let config = VlmConfig { vocab_size: 100, ..VlmConfig::default() };
/// let (vlm, params) = Vlm::build(&config, &Device::cpu(), DType::F32, 0)?;
/// let generator = Generator::of_decoder(&vlm.decoder, &params);
/// let request = |ids: &[u32]| Request {
///     prompt: Prompt::text(ids),
///     settings: Generation { max_new: 3, ..Generation::default() },
/// };
/// let mut seen = 0;
/// let answers = generator.run(&[request(&[1, 5]), request(&[7])], &mut |_| {
///     seen += 1;
///     ControlFlow::Continue(())
/// })?;
/// assert_eq!((answers[0].ids.len(), answers[1].ids.len(), seen), (3, 3, 6));
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Generator<'m> {
    params: &'m Params,
    decoder: &'m Decoder,
    vlm: Option<&'m Vlm>,
    tokenizer: Option<&'m Tokenizer>,
    /// What the decoder sees of the images so far: (images, slots, dim).
    visual: Option<Tensor>,
}

/// The tokens of a prompt and its answer with the cache that holds them, for prompts that start alike.
#[derive(Debug)]
pub struct Kept {
    pub(super) leading: Vec<usize>,
    pub(super) tokens: Vec<Token>,
    pub(super) cache: KvCache,
}

impl<'m> Generator<'m> {
    /// Of a language model.
    pub fn of_decoder(decoder: &'m Decoder, params: &'m Params) -> Generator<'m> {
        Generator { params, decoder, vlm: None, tokenizer: None, visual: None }
    }

    /// Of a vision-language model, which has seen no image yet.
    pub fn of_vlm(vlm: &'m Vlm, params: &'m Params) -> Generator<'m> {
        Generator { vlm: Some(vlm), ..Generator::of_decoder(&vlm.decoder, params) }
    }

    /// With a tokenizer, for answers as text and stop strings.
    pub fn with_tokenizer(self, tokenizer: &'m Tokenizer) -> Generator<'m> {
        Generator { tokenizer: Some(tokenizer), ..self }
    }

    /// Looks at images, pixels (images, 3, size, size); returns the numbers by which prompts refer to them.
    ///
    /// # Errors
    /// When the model is text only, or the pixels do not fit its encoder.
    pub fn see(&mut self, pixels: &Tensor) -> Result<Range<usize>> {
        let Some(vlm) = self.vlm else {
            return input("image", "given to a language model, which sees none; expected a vision-language model");
        };
        let g = Graph::inference(self.params);
        let new = vlm.visual_tokens(&g, &g.input(pixels.clone()))?;
        let (before, [count, slots, dim]) = (self.images(), dimensions(&new)?);
        let all = before + count;
        let joined = match self.visual.take() {
            None => new,
            Some(old) => {
                let old = Var::constant(old.reshape([1, before * slots, dim])?);
                ops::concat(&[&old, &ops::reshape(&new, [1, count * slots, dim])?])?
            }
        };
        self.visual = Some(joined.tensor().reshape([all, slots, dim])?);
        Ok(before..all)
    }

    /// Images seen so far.
    pub fn images(&self) -> usize {
        self.visual.as_ref().map_or(0, |visual| visual.shape()[0])
    }

    /// Forgets all images; answers kept with [`Generator::resume`] must be forgotten with them.
    pub fn forget_images(&mut self) {
        self.visual = None;
    }

    /// The id that prompts hold once for each of their images; none where images stand in front of the text.
    pub fn image_token(&self) -> Option<u32> {
        self.vlm.and_then(|vlm| vlm.config.image_token)
    }

    /// How many tokens an answer to `prompt` may have.
    ///
    /// # Errors
    /// When the prompt is none for this model.
    pub fn room(&self, prompt: &Prompt) -> Result<usize> {
        let expanded = Expanded::new(self, prompt)?;
        let taken = expanded.leading.len() * self.slots() + expanded.tokens.len();
        Ok(self.decoder.config().max_position_embeddings.saturating_sub(taken))
    }

    /// Answers all requests, together as far as they fit. Each row draws, stops and leaves by its own settings: an answer is
    /// what it would be alone.
    ///
    /// # Errors
    /// When a prompt is empty, its images and image tokens do not agree, it does not fit the decoder with its answer, or a
    /// setting is out of its range.
    pub fn run(&self, requests: &[Request], listener: Listener<'_>) -> Result<Vec<Answer>> {
        let prompts = requests.iter().map(|request| self.expanded(request));
        let prompts: Vec<Expanded<'_>> = prompts.collect::<Result<_>>()?;
        let mut answers = vec![Answer::default(); requests.len()];
        for batch in batches(requests, &prompts) {
            let room = batch.iter().map(|&i| requests[i].settings.max_new).max().unwrap_or(0);
            let together: Vec<&Expanded<'_>> = batch.iter().map(|&i| &prompts[i]).collect();
            let mut rows = Rows::start(self, &together, room)?;
            let searches = batch.iter().map(|&i| self.search(i, &requests[i])).collect();
            let found = follow(&mut rows, searches, listener)?;
            for (&i, answer) in batch.iter().zip(found) {
                answers[i] = answer;
            }
        }
        Ok(answers)
    }

    /// Answers one request, computing only what `kept` does not hold, and keeps prompt and answer there: the turns of a
    /// conversation. After an error nothing is kept.
    pub fn resume(&self, kept: &mut Option<Kept>, request: &Request, listener: Listener<'_>) -> Result<Answer> {
        let prompt = self.expanded(request)?;
        let room = request.settings.max_new;
        if room == 0 {
            return Ok(Answer::default());
        }
        let mut rows = match kept.take().filter(|kept| kept.leading == prompt.leading) {
            Some(kept) => Rows::resume(self, kept, &prompt, room)?,
            None => Rows::start(self, &[&prompt], room)?,
        };
        let mut answers = follow(&mut rows, vec![self.search(0, request)], listener)?;
        *kept = Some(rows.into_kept(prompt.leading)?);
        Ok(answers.pop().unwrap_or_default())
    }

    fn expanded<'r>(&self, request: &'r Request) -> Result<Expanded<'r>> {
        let Request { prompt, settings } = request;
        settings.validate()?;
        if self.tokenizer.is_none() && !settings.stop_strings.is_empty() {
            return input("stop", "stop strings are compared with text: the generator needs its tokenizer");
        }
        let expanded = Expanded::new(self, prompt)?;
        expanded.fits(self, settings.max_new)?;
        Ok(expanded)
    }

    fn search<'r>(&'r self, number: usize, request: &'r Request) -> Search<'r> {
        match request.settings.beams.num_beams {
            0 | 1 => Search::Single(Box::new(Single::new(number, request, self.tokenizer))),
            _ => Search::Beam(BeamSearch::new(number, request, self.tokenizer)),
        }
    }

    pub(super) fn params(&self) -> &'m Params {
        self.params
    }

    pub(super) fn decoder(&self) -> &'m Decoder {
        self.decoder
    }

    pub(super) fn vocab_size(&self) -> usize {
        self.params.shape(self.decoder.head())[0]
    }

    /// Slots of an image.
    pub(super) fn slots(&self) -> usize {
        self.vlm.map_or(0, |vlm| vlm.config.image_tokens())
    }

    /// The position of the text's first token behind `slots` slots.
    pub(super) fn text_start(&self, slots: usize) -> i32 {
        self.vlm.map_or(0, |vlm| vlm.text_start(slots))
    }

    /// Embedded tokens (batch, tokens), whole images among them: (batch, tokens, dim).
    pub(super) fn embedded(&self, g: &Graph<'_>, grid: &[Token], tokens: usize) -> Result<Var> {
        let ids: Vec<i32> = grid.iter().map(|token| token.id as i32).collect();
        let slots = grid.iter().filter_map(|token| token.image);
        let images: Vec<usize> = slots.step_by(self.slots().max(1)).collect();
        match (self.vlm, self.image_token(), self.chosen(&images)?) {
            (Some(vlm), Some(image), Some(visual)) => vlm.interleave(g, &ids, tokens, image as i32, &visual),
            _ => {
                let ids = Tensor::from_slice(self.params.device(), &ids, [ids.len() / tokens, tokens])?;
                Ok(self.decoder.embed(g, &ids)?)
            }
        }
    }

    /// The slots in front of texts about these images, as many per list: (lists, images·slots, dim).
    pub(super) fn leading_slots(&self, lists: &[&[usize]]) -> Result<Option<(&'m Vlm, Var)>> {
        let Some((vlm, visual)) = self.vlm.zip(self.chosen(&lists.concat())?) else {
            return Ok(None);
        };
        let [images, slots, dim] = dimensions(&visual)?;
        let visual = ops::reshape(&visual, [lists.len(), images / lists.len() * slots, dim])?;
        Ok(Some((vlm, visual)))
    }

    /// Slots of some images (images, slots, dim).
    fn chosen(&self, images: &[usize]) -> Result<Option<Var>> {
        let Some(visual) = self.visual.as_ref().filter(|_| !images.is_empty()) else {
            return Ok(None);
        };
        let ids: Vec<i32> = images.iter().map(|&image| image as i32).collect();
        let ids = Tensor::from_slice(self.params.device(), &ids, [ids.len()])?;
        Ok(Some(Var::constant(visual.select(&ids)?)))
    }
}

fn dimensions(visual: &Var) -> Result<[usize; 3]> {
    match visual.shape()[..] {
        [images, slots, dim] => Ok([images, slots, dim]),
        _ => input("image", format!("{}, expected (images, slots, dim)", visual.shape())),
    }
}

/// Which requests are decoded together: those with as many images in front, up to [`BATCH`] rows.
fn batches(requests: &[Request], prompts: &[Expanded<'_>]) -> Vec<Vec<usize>> {
    let width = |i: usize| requests[i].settings.beams.num_beams;
    let mut batches = BTreeMap::<usize, Vec<Vec<usize>>>::new();
    for (i, prompt) in prompts.iter().enumerate() {
        if requests[i].settings.max_new == 0 {
            continue;
        }
        let alike = batches.entry(prompt.leading.len()).or_default();
        match alike.last_mut() {
            Some(batch) if batch.iter().map(|&i| width(i)).sum::<usize>() + width(i) <= BATCH => batch.push(i),
            _ => alike.push(vec![i]),
        }
    }
    batches.into_values().flatten().collect()
}

/// Takes steps until every search has ended; each owns as many rows as its last step asked for.
fn follow(rows: &mut Rows<'_>, mut searches: Vec<Search<'_>>, listener: Listener<'_>) -> Result<Vec<Answer>> {
    let mut widths = vec![1; searches.len()];
    loop {
        let (mut parents, mut tokens, mut start) = (Vec::new(), Vec::new(), 0);
        for (search, width) in searches.iter_mut().zip(&mut widths).filter(|(_, width)| **width > 0) {
            let next = search.advance(&rows.logits[start..start + *width], listener)?;
            parents.extend(next.iter().map(|next| start + next.parent));
            tokens.extend(next.iter().map(|next| Token::word(next.token)));
            start += std::mem::replace(width, next.len());
        }
        if tokens.is_empty() {
            break;
        }
        rows.rearrange(&parents)?;
        rows.feed(&tokens.chunks(1).collect::<Vec<_>>())?;
    }
    searches.into_iter().map(|search| search.finish(listener)).collect()
}
