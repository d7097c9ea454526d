//! The model that is measured: whatever kind a folder holds.

use super::comparing::Comparer;
use anyhow::{Context, Result, bail};
use engine::{DType, Device, Params};
use model::hf::{self, Model};
use model::{Chat, Generator, ImageProcessor, Message, Part, Prompt, Role, Tokenizer};
use std::path::Path;

/// What a task asks of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ability {
    /// To answer questions about an image.
    Answer,
    /// To score images against texts.
    Compare,
    /// To tell whether an image and a text belong together.
    Match,
}

impl Ability {
    /// Which models have it.
    pub fn needs(self) -> &'static str {
        match self {
            Ability::Answer => "a vision-language model, which answers questions",
            Ability::Compare => {
                "a CLIP, a SigLIP, or a model whose Q-Former was trained on texts ([phase1] of a recipe)"
            }
            Ability::Match => {
                "a model whose Q-Former was trained on texts ([phase1] of a recipe), or BLIP-2's first stage"
            }
        }
    }
}

/// A model with all that goes around it.
pub struct Subject {
    model: Model,
    params: Params,
    tokenizer: Tokenizer,
    processor: ImageProcessor,
    /// Only where it has conversations.
    chat: Option<Chat>,
}

impl Subject {
    /// Reads a run's folder, one in Hugging Face's format, or `owner/name` in the hub's cache.
    ///
    /// # Errors
    /// When a file is missing or malformed, or the model sees no images.
    pub fn open(name: &str, device: &Device, dtype: DType) -> Result<Subject> {
        let folder = hf::resolve(name)?;
        let failed = || format!("{}: not the folder of a trained model", folder.display());
        let (model, params) = hf::load(&folder, device, dtype, true).with_context(failed)?;
        if let Model::Decoder(_) = model {
            bail!("{}: holds a language model, which sees no images", folder.display());
        }
        Subject::around(&folder, model, params)
    }

    fn around(folder: &Path, model: Model, params: Params) -> Result<Subject> {
        let tokenizer = Tokenizer::open(folder)?;
        let chat = match model {
            Model::Vlm(_) => Some(Chat::open(folder, &tokenizer)?),
            _ => None,
        };
        Ok(Subject {
            model,
            params,
            processor: ImageProcessor::open(folder)?,
            tokenizer,
            chat,
        })
    }

    /// Its image processor.
    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// Its tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Whether it can do what a task asks.
    pub fn can(&self, ability: Ability) -> bool {
        match ability {
            Ability::Answer => self.chat.is_some(),
            Ability::Compare => self.comparer().is_some(),
            Ability::Match => self.comparer().is_some_and(|comparer| comparer.matches_pairs()),
        }
    }

    /// It as a model that compares, if it does.
    pub fn comparer(&self) -> Option<Comparer<'_>> {
        let (params, tokenizer, processor) = (&self.params, &self.tokenizer, &self.processor);
        match &self.model {
            Model::Vlm(vlm) => {
                let qformer = vlm.qformer.as_ref().filter(|qformer| qformer.config().text)?;
                Some(Comparer::of_qformer(&vlm.vision, qformer, params, tokenizer, processor))
            }
            Model::Retrieval(vision, qformer) => {
                let comparer = Comparer::of_qformer(vision, qformer, params, tokenizer, processor);
                Some(comparer.with_texts_as_published())
            }
            Model::Dual(dual) => Some(Comparer::of_dual(dual, params, tokenizer, processor)),
            Model::Decoder(_) => None,
        }
    }

    /// It as a model that answers, if it does.
    pub fn generator(&self) -> Option<Generator<'_>> {
        match &self.model {
            Model::Vlm(vlm) => Some(Generator::of_vlm(vlm, &self.params).with_tokenizer(&self.tokenizer)),
            _ => None,
        }
    }

    /// A question about an image, or without one.
    ///
    /// # Errors
    /// When the model has no conversations, or its layout refuses the question.
    pub fn prompt(&self, question: &str, image: Option<usize>) -> Result<Prompt> {
        let chat = self.chat.as_ref().context(Ability::Answer.needs())?;
        let message = Message {
            role: Role::User,
            content: image
                .map(|_| Part::Image)
                .into_iter()
                .chain([Part::Text(question.into())])
                .collect(),
        };
        Ok(Prompt {
            ids: chat.prompt(&self.tokenizer, &[message])?,
            images: image.into_iter().collect(),
        })
    }
}
