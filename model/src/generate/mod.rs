//! Answers, one token at a time: greedy, drawn or by beam search, many prompts together.

mod beam;
mod generator;
mod prompt;
mod rows;
mod single;
mod stop;

pub use generator::{Generator, Kept};
pub use prompt::Prompt;

use crate::error::{Result, input};
use crate::sampler::Sampler;
use crate::vlm::Vlm;
use beam::BeamSearch;
use engine::ops::embedding;
use engine::{Params, Tensor, Var};
use single::Single;
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// How long an answer may be, how its tokens are chosen and what ends it.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// The most tokens.
    pub max_new: usize,
    /// Tokens that end the answer; they are not part of it.
    pub stop: Vec<u32>,
    /// Texts that end the answer, which stops before them.
    pub stop_strings: Vec<String>,
    /// How tokens are chosen from the logits.
    pub sampler: Sampler,
    /// How many answers are followed at a time.
    pub beams: Beams,
}

impl Default for Generation {
    fn default() -> Generation {
        Generation {
            max_new: 64,
            stop: Vec::new(),
            stop_strings: Vec::new(),
            sampler: Sampler::default(),
            beams: Beams::default(),
        }
    }
}

/// Beam search, with the scores and the end of the search as in `transformers`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Beams {
    /// Answers followed at a time; with 1, each token is chosen by itself.
    pub num_beams: usize,
    /// An answer's score is its log-probability divided by its length to this power: higher values favour long answers.
    pub length_penalty: f64,
}

impl Default for Beams {
    fn default() -> Beams {
        Beams { num_beams: 1, length_penalty: 1.0 }
    }
}

impl Generation {
    fn validate(&self) -> Result<()> {
        self.sampler.validate()?;
        let Beams { num_beams, length_penalty } = self.beams;
        if num_beams == 0 {
            return input("num_beams", "0, expected at least 1");
        }
        if num_beams > 1 && self.sampler.temperature != 0.0 {
            let message = format!(
                "{num_beams} with temperature {}: beam search draws nothing, set it to 0",
                self.sampler.temperature
            );
            return input("num_beams", message);
        }
        if !length_penalty.is_finite() {
            return input("length_penalty", format!("{length_penalty}, expected a finite number"));
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return input("stop", "a stop string is empty: it would end every answer before its start");
        }
        Ok(())
    }
}

/// A prompt and how to continue it.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// What to continue.
    pub prompt: Prompt,
    /// How.
    pub settings: Generation,
}

/// What has just become known of an answer. Beam search knows nothing before its end.
#[derive(Debug, Clone, Copy)]
pub struct Piece<'a> {
    /// Which request's.
    pub request: usize,
    /// The token; none where only text is left to be said.
    pub token: Option<u32>,
    /// The text that is sure by now: whole letters that are no part of a stop string. Empty without a tokenizer.
    pub text: &'a str,
}

/// Takes pieces of answers as they come; may stop the answer.
pub type Listener<'a> = &'a mut dyn FnMut(Piece<'_>) -> ControlFlow<()>;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Finish {
    /// By a stop token.
    Token(u32),
    /// By a stop string.
    Text,
    /// It is as long as it may be.
    #[default]
    Length,
    /// The listener stopped it.
    Listener,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// Its tokens, without the stop token and with those that hold the stop string.
    pub ids: Vec<u32>,
    /// Its text, without the stop string. Empty without a tokenizer.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
}

/// A way of choosing tokens, which follows one answer or several, each in a row of logits.
enum Search<'r> {
    Single(Box<Single<'r>>),
    Beam(BeamSearch<'r>),
}

/// The next token of a row, and the row it continues.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Next {
    parent: usize,
    token: u32,
}

impl Search<'_> {
    /// The rows of the next step, given the logits of this one's: none when the answer has ended.
    fn advance(&mut self, logits: &[Vec<f64>], listener: Listener<'_>) -> Result<Vec<Next>> {
        match self {
            Search::Single(single) => {
                let token = single.advance(&logits[0], listener)?;
                Ok(token.map(|token| Next { parent: 0, token }).into_iter().collect())
            }
            Search::Beam(beams) => beams.advance(logits),
        }
    }

    fn finish(self, listener: Listener<'_>) -> Result<Answer> {
        match self {
            Search::Single(single) => Ok(single.finish()),
            Search::Beam(beams) => beams.finish(listener),
        }
    }
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
        let mut generator = Generator::of_vlm(self, params);
        generator.see(pixels)?;
        let request = Request { prompt: Prompt::about(prompt, 0), settings: settings.clone() };
        let listener: Listener<'_> = &mut |piece| piece.token.map_or(ControlFlow::Continue(()), &mut on_token);
        let answers = generator.run(&[request], listener)?;
        Ok(answers.into_iter().flat_map(|answer| answer.ids).collect())
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
        let settings = Generation { max_new, stop: stop.to_vec(), ..Generation::default() };
        let mut answers = Vec::with_capacity(prompts.len());
        for batch in prompts.chunks(generator::BATCH) {
            let (generator, places) = self.seeing(params, pixels, batch)?;
            let request = |(image, ids): &(usize, Vec<u32>)| Request {
                prompt: Prompt::about(ids, places[image]),
                settings: settings.clone(),
            };
            let requests: Vec<Request> = batch.iter().map(request).collect();
            let found = generator.run(&requests, &mut |_| ControlFlow::Continue(()))?;
            answers.extend(found.into_iter().map(|answer| answer.ids));
        }
        Ok(answers)
    }

    /// A generator that has seen the images some prompts are about, and where each of them is there.
    fn seeing<'m>(
        &'m self,
        params: &'m Params,
        pixels: &Tensor,
        prompts: &[(usize, Vec<u32>)],
    ) -> Result<(Generator<'m>, BTreeMap<usize, usize>)> {
        let mut places = BTreeMap::new();
        let mut chosen = Vec::new();
        for (image, _) in prompts {
            places.entry(*image).or_insert_with(|| {
                chosen.push(*image as i32);
                chosen.len() - 1
            });
        }
        let chosen = Tensor::from_slice(params.device(), &chosen, [chosen.len()])?;
        let pixels = embedding(&Var::constant(pixels.clone()), &chosen)?;
        let mut generator = Generator::of_vlm(self, params);
        generator.see(pixels.tensor())?;
        Ok((generator, places))
    }
}
