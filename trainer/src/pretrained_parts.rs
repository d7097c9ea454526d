//! What a run starts from: trained parts, or nothing.

use crate::phases::Phase;
use crate::recipe::{self, Recipe, TokenizerKind};
use anyhow::{Context, Result, ensure};
use model::hf::{self, Part};
use model::{AdapterKind, Chat, ImageAttention, ImagePositions, ImageProcessor, PositionKind, Tokenizer, VisionConfig};
use std::path::{Path, PathBuf};

/// What stands for an image in texts, where the recipe does not say.
const IMAGE_TOKEN: &str = "<image>";

/// The pretrained parts of a recipe, found on this machine.
#[derive(Debug, Clone, Default)]
pub struct PretrainedParts {
    /// Which part lies where.
    pub parts: Vec<(Part, PathBuf)>,
}

impl PretrainedParts {
    /// Finds the parts that a recipe names, and fills in what they say of the model.
    ///
    /// # Errors
    /// When a part is not on this machine, is not what it should be, or the recipe says otherwise of it.
    pub fn find(recipe: &mut Recipe) -> Result<PretrainedParts> {
        let named = recipe.pretrained.clone();
        let mut parts = Vec::new();
        for (part, name) in [
            (Part::Whole, named.model),
            (Part::Vision, named.vision),
            (Part::Qformer, named.qformer),
            (Part::Decoder, named.decoder),
        ] {
            let (Some(name), key) = (name, key(part)) else { continue };
            let folder = hf::resolve(&name).with_context(|| format!("pretrained.{key}"))?;
            describe(recipe, part, &folder).with_context(|| format!("pretrained.{key}"))?;
            parts.push((part, folder));
        }
        Ok(PretrainedParts { parts })
    }

    /// The folder that gives tokenizer and chat template.
    fn text(&self) -> Option<&Path> {
        let found = self.parts.iter().find(|(part, _)| matches!(part, Part::Whole | Part::Decoder));
        found.map(|(_, folder)| folder.as_path())
    }

    /// The image processor that belongs to the image encoder, for images of the size that the model takes.
    ///
    /// # Errors
    /// When its file is missing or malformed, or not for the encoder beside it.
    pub fn processor(&self, vision: &VisionConfig) -> Result<Option<ImageProcessor>> {
        let found = self.parts.iter().find(|(part, _)| matches!(part, Part::Whole | Part::Vision));
        let Some((_, folder)) = found else { return Ok(None) };
        let (processor, stored) = (ImageProcessor::open(folder)?, hf::vision_config(folder)?.image_size);
        ensure!(
            processor.size == stored,
            "{}: the image processor makes images of {} pixels a side, the image encoder takes {stored}",
            folder.display(),
            processor.size
        );
        if vision.image_size != stored {
            let how = match vision.positions {
                PositionKind::Learned => "its positions are interpolated (bicubic)",
                PositionKind::Sinusoidal => "its positions are computed",
            };
            outln!("images      {} pixels a side, the encoder learned from {stored}: {how}", vision.image_size);
        }
        Ok(Some(processor.with_size(vision.image_size)))
    }

    /// The language model's tokenizer and conversations, with a token for images; its ids are filled in. A run that goes on
    /// takes those of its `checkpoint`.
    pub fn language(&self, recipe: &mut Recipe, checkpoint: Option<&Path>) -> Result<Option<(Tokenizer, Chat)>> {
        let Some(folder) = self.text() else { return Ok(None) };
        let folder = checkpoint.unwrap_or(folder);
        let mut tokenizer = Tokenizer::open(folder)?;
        let config = &mut recipe.model;
        let chat = match config.image_token {
            // A whole model has its token, or takes images in front of texts.
            _ if self.parts.iter().any(|(part, _)| *part == Part::Whole) => Chat::open(folder, &tokenizer)?,
            _ => {
                let token = recipe.pretrained.image_token.as_deref().unwrap_or(IMAGE_TOKEN);
                tokenizer = tokenizer.with_token(token)?;
                config.image_token = tokenizer.id(token);
                Chat::with_images(folder, &tokenizer, token)?
            }
        };
        config.vocab_size = config.vocab_size.max(tokenizer.vocab_size());
        recipe.tokenizer =
            recipe::Tokenizer { kind: TokenizerKind::Pretrained, size: tokenizer.vocab_size(), path: None };
        Ok(Some((tokenizer, chat)))
    }
}

/// A part's key in a recipe's `[pretrained]`.
pub fn key(part: Part) -> &'static str {
    match part {
        Part::Whole => "model",
        Part::Vision => "vision",
        Part::Qformer => "qformer",
        Part::Decoder => "decoder",
    }
}

/// Fills in what a part says of the model.
fn describe(recipe: &mut Recipe, part: Part, folder: &Path) -> Result<()> {
    let Recipe { model: config, given, .. } = recipe;
    // Images of another size are the recipe's to choose.
    let side = given.has("model.vision.image_size").then_some(config.vision.image_size);
    match part {
        Part::Whole => {
            let mut found = hf::vlm_config(folder)?;
            given.agree("model", (config, &found), folder, &["lora", "vocab_size", "vision.image_size"])?;
            // Adapters are the recipe's own, and its tokenizer may have more ids than the part.
            (found.lora, found.vocab_size) = (config.lora.clone(), found.vocab_size.max(config.vocab_size));
            found.vision.image_size = side.unwrap_or(found.vision.image_size);
            *config = found;
        }
        Part::Vision => {
            let mut found = hf::vision_config(folder)?;
            given.agree("model.vision", (&config.vision, &found), folder, &["image_size", "feature_layer"])?;
            // A recipe may take features from another block; LLaVA takes those before the last.
            let layer = config.vision.feature_layer.or(found.feature_layer);
            let patches = config.adapter.kind != AdapterKind::Qformer;
            found.feature_layer = layer.or(patches.then_some(-2));
            found.image_size = side.unwrap_or(found.image_size);
            config.vision = found;
        }
        Part::Qformer => {
            // A BERT leaves some of it to the recipe.
            let said = config.qformer.clone().unwrap_or_default();
            let mut found = hf::qformer_config(folder, &said)?;
            given.agree("model.qformer", (&said, &found), folder, &["text"])?;
            found.text &= recipe.phase1.is_some();
            config.qformer = Some(found);
        }
        Part::Decoder => {
            let (mut found, vocab_size) = hf::decoder_config(folder)?;
            found.image_attention = ImageAttention::Causal;
            found.image_positions = ImagePositions::Sequential;
            given.agree("model.decoder", (&config.decoder, &found), folder, &[])?;
            config.decoder = found;
            config.vocab_size = vocab_size;
        }
    }
    Ok(())
}

/// How the first phase of a recipe groups the parameters: rules, weight decay and Muon's factor.
pub fn grouping(recipe: &Recipe) -> (Vec<model::GroupRule>, f64, Option<f64>) {
    let training = Phase::of(recipe).find_map(|phase| phase.training(recipe));
    training.map_or((Vec::new(), 0.0, None), |t| {
        let muon = t.muon_lr.map(|lr| lr / t.lr);
        (t.rules, t.weight_decay, muon)
    })
}
