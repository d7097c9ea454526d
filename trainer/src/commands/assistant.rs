//! A model from a folder, ready to answer.

use crate::cli::{AnswerArgs, WeightType};
use crate::data::UnknownWords;
use crate::eval::subject::takes_images;
use crate::output::visible;
use anyhow::{Context, Result, bail};
use engine::{Device, Params, Tensor};
use model::hf::{self, Model};
use model::{
    Answer, Beams, Chat, Decoder, Generation, Generator, ImageProcessor, Listener, Prompt, Sampler, Tokenizer, Vlm,
    open_image,
};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// A language model or a vision-language model with all that goes around it.
pub(super) struct Assistant {
    network: Network,
    params: Params,
    pub(super) tokenizer: Tokenizer,
    folder: PathBuf,
}

enum Network {
    Text(Box<Decoder>),
    Vision(Box<Vlm>, ImageProcessor),
}

impl Assistant {
    /// Reads a folder, or a model of the hub that is in its cache.
    pub(super) fn open(name: &str, device: &Device, weights: WeightType) -> Result<Assistant> {
        let folder = hf::resolve(name)?;
        let failed = || format!("{}: not the folder of a trained model", folder.display());
        let (model, params) = hf::load(&folder, device, weights.into(), true).with_context(failed)?;
        let network = match model {
            Model::Decoder(decoder) => Network::Text(decoder),
            Model::Vlm(vlm) => Network::Vision(vlm, ImageProcessor::open(&folder)?),
            Model::Dual(_) | Model::Retrieval(..) => {
                let message = "holds a model that compares and writes nothing; expected one with a language model";
                bail!("{}: {message}", folder.display());
            }
        };
        let tokenizer = Tokenizer::open(&folder)?;
        Ok(Assistant { network, params, tokenizer, folder })
    }

    /// How the model is talked to.
    pub(super) fn chat(&self) -> Result<Chat> {
        Ok(Chat::open(&self.folder, &self.tokenizer)?)
    }

    pub(super) fn generator(&self) -> Generator<'_> {
        let generator = match &self.network {
            Network::Text(decoder) => Generator::of_decoder(decoder, &self.params),
            Network::Vision(vlm, _) => Generator::of_vlm(vlm, &self.params),
        };
        generator.with_tokenizer(&self.tokenizer)
    }

    /// Fails where a question shows more images than the model can have been trained on.
    pub(super) fn takes_images(&self, count: usize) -> Result<()> {
        match &self.network {
            Network::Vision(vlm, _) => takes_images(&vlm.config, count),
            Network::Text(_) => Ok(()),
        }
    }

    /// Whether images stand in front of everything that is said.
    pub(super) fn has_images_in_front(&self) -> bool {
        matches!(&self.network, Network::Vision(vlm, _) if vlm.config.image_token.is_none())
    }

    /// Names words of a prompt that the model cannot tell apart.
    pub(super) fn hint<'t>(&self, texts: impl IntoIterator<Item = &'t str>) -> Result<()> {
        if let Some(unknown) = UnknownWords::of(&self.tokenizer, texts)?.message() {
            errln!("of the prompt, {unknown}");
        }
        Ok(())
    }

    /// An image as the model takes it: (1, 3, size, size).
    pub(super) fn pixels(&self, file: &Path) -> Result<Tensor> {
        let Network::Vision(_, processor) = &self.network else {
            bail!("{} holds a language model, which sees no images", self.folder.display());
        };
        let image = open_image(file)?;
        Ok(processor.batch(std::slice::from_ref(&image), self.params.device(), self.params.dtype())?)
    }

    /// What the command line says of answers, for one that follows `prompt`.
    pub(super) fn settings(&self, args: &AnswerArgs, generator: &Generator<'_>, prompt: &Prompt) -> Result<Generation> {
        let room = generator.room(prompt)?;
        if room == 0 {
            bail!("the prompt leaves no room for an answer: it is as long as the model's longest text");
        }
        let limited = args.top_k.is_some() || args.top_p.is_some() || args.min_p.is_some();
        Ok(Generation {
            max_new: args.max_tokens.min(room),
            stop: self.tokenizer.ends().to_vec(),
            stop_strings: args.stop.clone(),
            sampler: Sampler {
                temperature: args.temperature.unwrap_or(if limited { 1.0 } else { 0.0 }),
                top_k: args.top_k.unwrap_or(0),
                top_p: args.top_p.unwrap_or(1.0),
                min_p: args.min_p.unwrap_or(0.0),
                repetition_penalty: args.repetition_penalty,
                seed: args.seed,
            },
            beams: Beams { num_beams: args.num_beams, length_penalty: args.length_penalty },
        })
    }
}

/// Writes an answer to standard output as it comes, then ends the line.
pub(super) fn say(generate: impl FnOnce(Listener<'_>) -> model::Result<Answer>) -> Result<Answer> {
    let mut out = std::io::stdout().lock();
    let mut failed = None;
    let answer = generate(&mut |piece| match write!(out, "{}", visible(piece.text)).and_then(|()| out.flush()) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            failed = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match failed {
        None => writeln!(out)?,
        Some(error) => return Err(error).context("the answer could not be written"),
    }
    Ok(answer)
}
