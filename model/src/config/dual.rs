//! Configuration of a dual encoder: a tower for images and one for texts.

use super::{HiddenAct, PositionKind, VisionConfig, above_zero, blocks, config, divides, positive};
use crate::error::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whose dual encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DualKind {
    /// Class token and end-of-text token, causal texts, projections without bias, softmax loss (Radford et al. 2021).
    #[default]
    Clip,
    /// Attention pooling of images, last token of texts that see all, a linear head, sigmoid loss (Zhai et al. 2023).
    Siglip,
}

/// A text tower; field names as in Hugging Face's CLIP and SigLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TextConfig {
    /// Ids of the tokenizer.
    pub vocab_size: usize,
    /// Width of the tokens.
    pub hidden_size: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// The longest text in tokens.
    pub max_position_embeddings: usize,
    /// The feed-forward layers' activation.
    pub hidden_act: HiddenAct,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// The token at which CLIP sums a text up; 2, as old files have it, stands for the largest id in a text.
    pub eos_token_id: u32,
}

/// A dual encoder.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DualConfig {
    /// Whose.
    pub kind: DualKind,
    /// The image tower; without this table a small one of CLIP's kind.
    pub vision: VisionConfig,
    /// The text tower.
    pub text: TextConfig,
    /// Width of the common space.
    pub projection_dim: usize,
}

impl Default for TextConfig {
    fn default() -> TextConfig {
        TextConfig {
            vocab_size: 0,
            hidden_size: 96,
            intermediate_size: 288,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            max_position_embeddings: 64,
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: 1e-5,
            eos_token_id: 0,
        }
    }
}

/// A small CLIP.
impl Default for DualConfig {
    fn default() -> DualConfig {
        DualConfig {
            kind: DualKind::Clip,
            vision: VisionConfig {
                class_token: true,
                patch_bias: false,
                pre_layernorm: true,
                positions: PositionKind::Learned,
                ..VisionConfig::default()
            },
            text: TextConfig::default(),
            projection_dim: 96,
        }
    }
}

impl DualConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`crate::Error::Config`] with the first field that makes no model.
    pub fn validate(&self) -> Result<()> {
        self.vision.validate()?;
        let text = &self.text;
        for (field, value) in [
            ("text.vocab_size", text.vocab_size),
            ("text.hidden_size", text.hidden_size),
            ("text.intermediate_size", text.intermediate_size),
            ("text.max_position_embeddings", text.max_position_embeddings),
            ("projection_dim", self.projection_dim),
        ] {
            positive(field, value)?;
        }
        blocks("text.num_hidden_layers", text.num_hidden_layers)?;
        divides("text.num_attention_heads", text.num_attention_heads, text.hidden_size, "text.hidden_size")?;
        above_zero("text.layer_norm_eps", text.layer_norm_eps)?;
        match self.kind {
            DualKind::Clip if !self.vision.class_token => {
                config("vision.class_token", "must be true: CLIP pools images there")
            }
            DualKind::Siglip if self.projection_dim != self.vision.hidden_size => {
                let message = format!("{}, but images come {} wide", self.projection_dim, self.vision.hidden_size);
                config("projection_dim", message)
            }
            _ => Ok(()),
        }
    }
}
