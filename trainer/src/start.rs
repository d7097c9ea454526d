//! What a run starts from: trained parts, or nothing.

use crate::phases::Phase;
use crate::recipe::Recipe;
use anyhow::{Context, Result, bail};
use model::hf::{self, Part};
use model::{AdapterKind, Chat, ImageAttention, ImagePositions, ImageProcessor, QFormerConfig, Tokenizer, VlmConfig};
use std::path::{Path, PathBuf};

/// What stands for an image in texts, where the recipe does not say.
const IMAGE_TOKEN: &str = "<image>";

/// The pretrained parts of a recipe, found on this machine.
#[derive(Debug, Clone, Default)]
pub struct Start {
    /// Which part lies where.
    pub parts: Vec<(Part, PathBuf)>,
}

impl Start {
    /// Finds the parts that a recipe names, and fills in what they say of the model.
    ///
    /// # Errors
    /// When a part is not on this machine, is not what it should be, or the recipe says otherwise of it.
    pub fn find(recipe: &mut Recipe) -> Result<Start> {
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
            let texts = recipe.phase1.is_some();
            describe(&mut recipe.model, part, &folder, texts).with_context(|| format!("pretrained.{key}"))?;
            parts.push((part, folder));
        }
        Ok(Start { parts })
    }

    /// The folder that gives tokenizer and chat template.
    fn text(&self) -> Option<&Path> {
        let found = self
            .parts
            .iter()
            .find(|(part, _)| matches!(part, Part::Whole | Part::Decoder));
        found.map(|(_, folder)| folder.as_path())
    }

    /// The image processor that belongs to the image encoder.
    ///
    /// # Errors
    /// When its file is missing or malformed.
    pub fn processor(&self) -> Result<Option<ImageProcessor>> {
        let found = self
            .parts
            .iter()
            .find(|(part, _)| matches!(part, Part::Whole | Part::Vision));
        Ok(found.map(|(_, folder)| ImageProcessor::open(folder)).transpose()?)
    }

    /// The language model's tokenizer and conversations, with a token for images; its ids are filled in. A run that goes on
    /// takes those of its `checkpoint`.
    ///
    /// # Errors
    /// When a file is missing or malformed.
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

/// Fills in what a part says of the model; `texts`: a Q-Former is to take texts, too.
fn describe(config: &mut VlmConfig, part: Part, folder: &Path, texts: bool) -> Result<()> {
    match part {
        Part::Whole => {
            let mut found = hf::vlm_config(folder)?;
            // Adapters are the recipe's own, and its tokenizer may have more ids than the part.
            (found.lora, found.vocab_size) = (config.lora.clone(), found.vocab_size.max(config.vocab_size));
            let unsaid = VlmConfig {
                lora: config.lora.clone(),
                vocab_size: config.vocab_size,
                ..VlmConfig::default()
            };
            agree("[model]", config, &unsaid, &found)?;
            *config = found;
        }
        Part::Vision => {
            let mut found = hf::vision_config(folder)?;
            // A recipe may take features from another block; LLaVA takes those before the last.
            let layer = config.vision.feature_layer.take().or(found.feature_layer);
            let patches = config.adapter.kind != AdapterKind::Qformer;
            found.feature_layer = None;
            agree("[model.vision]", &config.vision, &Default::default(), &found)?;
            found.feature_layer = layer.or(patches.then_some(-2));
            config.vision = found;
        }
        Part::Qformer => {
            let said = config.qformer.clone().unwrap_or_default();
            let mut found = hf::qformer_config(folder, &said)?;
            found.text &= texts;
            // A BERT leaves these to the recipe, which may then say no more.
            let free = |of: &QFormerConfig, rest: QFormerConfig| QFormerConfig {
                num_query_tokens: of.num_query_tokens,
                cross_attention_frequency: of.cross_attention_frequency,
                projection: of.projection,
                ..rest
            };
            let unsaid = match free(&found, said.clone()) == said {
                true => free(&said, QFormerConfig::default()),
                false => QFormerConfig::default(),
            };
            agree("[model.qformer]", &said, &unsaid, &found)?;
            config.qformer = Some(found);
        }
        Part::Decoder => {
            let (found, vocab_size) = hf::decoder_config(folder)?;
            let unsaid = model::DecoderConfig {
                image_attention: config.decoder.image_attention,
                image_positions: config.decoder.image_positions,
                ..Default::default()
            };
            agree("[model.decoder]", &config.decoder, &unsaid, &found)?;
            config.decoder = found;
            config.decoder.image_attention = ImageAttention::Causal;
            config.decoder.image_positions = ImagePositions::Sequential;
            config.vocab_size = vocab_size;
        }
    }
    Ok(())
}

/// Fails where a recipe says of a pretrained part what is not so.
fn agree<T: PartialEq + std::fmt::Debug>(table: &str, said: &T, unsaid: &T, found: &T) -> Result<()> {
    if said != unsaid && said != found {
        bail!("{table} says {said:?}, but the pretrained part is {found:?}; leave the table out");
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
