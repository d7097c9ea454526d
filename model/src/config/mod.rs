//! What a model is made of: serialised as the model folder's `config.json` and as the `[model]` table of a recipe.

mod adapter;
mod decoder;
mod dual;
mod lora;
mod vision;

pub use adapter::{AdapterConfig, AdapterKind, QFormerConfig};
pub use decoder::{DecoderConfig, ImageAttention, ImagePositions, RopeScaling};
pub use dual::{DualConfig, DualKind, TextConfig};
pub use lora::{LoraConfig, LoraConfigs};
pub use vision::{HiddenAct, PositionKind, VisionConfig};

use crate::error::{Result, config};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A vision-language model: encoder, adapter, decoder.
///
/// ```
/// use model::{AdapterKind, VlmConfig};
/// let mut config = VlmConfig { vocab_size: 100, ..VlmConfig::default() };
/// config.validate()?;
/// config.adapter.kind = AdapterKind::Qformer; // but there is no `qformer` table
/// assert!(config.validate().unwrap_err().to_string().contains("qformer"));
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VlmConfig {
    /// The image encoder.
    pub vision: VisionConfig,
    /// The Q-Former; needed when the adapter or a contrastive phase uses it.
    pub qformer: Option<QFormerConfig>,
    /// What connects encoder and decoder.
    pub adapter: AdapterConfig,
    /// The language model.
    pub decoder: DecoderConfig,
    /// Ids of the tokenizer, specials included.
    pub vocab_size: usize,
    /// The id that stands for an image in the ids of a text, once for each of its slots: how pre-trained models take
    /// images anywhere in a text, and several of them. None: an image's slots come in front of the text about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_token: Option<u32>,
    /// Low-rank adapters per part.
    pub lora: LoraConfigs,
}

impl VlmConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the first field that makes no model.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        self.decoder.validate()?;
        if let Some(qformer) = &self.qformer {
            qformer.validate(self.vision.hidden_size)?;
        }
        if self.adapter.kind != AdapterKind::Mlp && self.qformer.is_none() {
            return config("qformer", "the adapter uses a Q-Former, but there is no such table");
        }
        self.adapter.validate(self.decoder.hidden_size)?;
        positive("vocab_size", self.vocab_size)?;
        self.validate_image_token()?;
        self.lora.validate()?;
        let slots = self.image_tokens();
        if slots >= self.decoder.max_position_embeddings {
            let limit = self.decoder.max_position_embeddings;
            return config(
                "decoder.max_position_embeddings",
                format!("{limit} leaves no room for text after {slots} image slots"),
            );
        }
        Ok(())
    }

    fn validate_image_token(&self) -> Result<()> {
        let (decoder, vocab) = (&self.decoder, self.vocab_size);
        match self.image_token {
            None => Ok(()),
            Some(id) if id as usize >= vocab => {
                config("image_token", format!("{id} is not below vocab_size ({vocab})"))
            }
            Some(_) if decoder.image_attention == ImageAttention::Full => {
                config("decoder.image_attention", "must be `causal` where images stand within the text (`image_token`)")
            }
            Some(_) if decoder.image_positions == ImagePositions::Shared => config(
                "decoder.image_positions",
                "must be `sequential` where images stand within the text (`image_token`)",
            ),
            Some(_) => Ok(()),
        }
    }

    /// Slots an image takes.
    pub fn image_tokens(&self) -> usize {
        let queries = self.qformer.as_ref().map_or(0, |q| q.num_query_tokens);
        match self.adapter.kind {
            AdapterKind::Qformer => queries,
            AdapterKind::Mlp => self.patch_tokens(),
            AdapterKind::Both => queries + self.patch_tokens(),
        }
    }

    /// Tokens of the encoder that the decoder sees, where it sees any.
    fn patch_tokens(&self) -> usize {
        match self.adapter.class_token {
            true => self.vision.tokens(),
            false => self.vision.patches(),
        }
    }
}

/// The largest size of anything, far above any model's, so that products of sizes can be counted.
const MAX_SIZE: usize = 1 << 24;

/// Fails when `value` is 0, or above [`MAX_SIZE`].
fn positive(field: &str, value: usize) -> Result<()> {
    match value {
        0 => config(field, "must be at least 1"),
        1..=MAX_SIZE => Ok(()),
        _ => config(field, format!("{value} is more than {MAX_SIZE}")),
    }
}

/// The most blocks of any part, so that a file cannot ask for more than there is memory for.
const MAX_BLOCKS: usize = 4096;

/// Fails unless there are 1 to [`MAX_BLOCKS`] blocks.
fn blocks(field: &str, value: usize) -> Result<()> {
    if !(1..=MAX_BLOCKS).contains(&value) {
        return config(field, format!("{value} is not in 1..={MAX_BLOCKS}"));
    }
    Ok(())
}

/// Fails unless `divisor` divides `value`.
fn divides(field: &str, divisor: usize, value: usize, what: &str) -> Result<()> {
    if divisor == 0 || !value.is_multiple_of(divisor) {
        return config(field, format!("{divisor} does not divide {what} ({value})"));
    }
    Ok(())
}

/// Fails unless `0 ≤ p < 1`.
fn probability(field: &str, p: f64) -> Result<()> {
    if !(0.0..1.0).contains(&p) {
        return config(field, format!("{p} is not in 0 ≤ p < 1"));
    }
    Ok(())
}

/// Fails unless the number is finite and above 0.
fn above_zero(field: &str, x: f64) -> Result<()> {
    if !(x.is_finite() && x > 0.0) {
        return config(field, format!("{x} is not a finite number above 0"));
    }
    Ok(())
}
