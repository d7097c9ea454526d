//! The model that is measured: whatever kind a folder holds.

use super::contrastive::Comparer;
use super::tasks::Item;
use crate::data::{Conversation, question};
use anyhow::{Context, Result, bail, ensure};
use engine::{DType, Device, Params};
use model::hf::{self, Model};
use model::{Chat, Generator, ImageProcessor, Part, Prompt, Tokenizer, VlmConfig};
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
        Ok(Subject { model, params, processor: ImageProcessor::open(folder)?, tokenizer, chat })
    }

    pub fn processor(&self) -> &ImageProcessor {
        &self.processor
    }

    /// Its weights.
    pub fn params(&self) -> &Params {
        &self.params
    }

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

    /// An item's question, laid out as training lays conversations out, about images of these numbers; without any, the
    /// words alone.
    ///
    /// # Errors
    /// When the model has no conversations, its layout refuses the question, or it takes fewer images.
    pub fn prompt(&self, item: &Item, images: &[usize]) -> Result<Prompt> {
        let chat = self.chat.as_ref().context(Ability::Answer.needs())?;
        let asked = (item.question.clone(), String::new());
        let turns = item.before.iter().cloned().chain([asked]).collect();
        let talk = Conversation { system: item.system.clone(), ..Conversation::about(Vec::new(), turns) };
        let mut messages = question(&talk, item.before.len(), false);
        let mut shown = 0;
        for message in &mut messages {
            message.content.retain(|part| *part != Part::Image || !images.is_empty());
            shown += message.content.iter().filter(|part| **part == Part::Image).count();
        }
        let images = images.get(..shown).context("the question shows more images than it has")?;
        if let Model::Vlm(vlm) = &self.model {
            takes_images(&vlm.config, images.len())?;
            // A model without an image token has the image in front of all text.
            ensure!(!item.shown_later || vlm.config.image_token.is_none(), "asked before the record shows an image");
        }
        Ok(Prompt { ids: chat.prompt(&self.tokenizer, &messages)?, images: images.to_vec() })
    }

    /// How many tokens an answer to an item may have.
    pub fn room(&self, item: &Item) -> Result<usize> {
        let numbers: Vec<usize> = (0..item.images().count()).collect();
        let Prompt { ids, images } = self.prompt(item, &numbers)?;
        let Model::Vlm(vlm) = &self.model else {
            bail!("{}", Ability::Answer.needs());
        };
        let slots = vlm.config.image_tokens() - usize::from(vlm.config.image_token.is_some());
        let most = vlm.config.decoder.max_position_embeddings;
        Ok(most.saturating_sub(ids.len() + images.len() * slots))
    }
}

/// Fails where a question shows more images than a model can have been trained on: in front of texts it takes one.
///
/// # Errors
/// Says how many there are.
pub fn takes_images(config: &VlmConfig, count: usize) -> Result<()> {
    ensure!(
        count < 2 || config.image_token.is_some(),
        "{count} images; this model takes one, in front of the first question (several take a model with an image token)"
    );
    Ok(())
}
