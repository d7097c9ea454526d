//! The language model's configuration.

use super::{above_zero, config, divides, positive, probability};
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// How image slots see each other in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImageAttention {
    /// Each sees those before it, as text does: what pre-trained decoders know.
    Causal,
    /// Each sees all image slots.
    #[default]
    Full,
}

/// Rotary positions of image slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ImagePositions {
    /// One each, the text counting on from there: what pre-trained decoders know.
    Sequential,
    /// All slots at position 0, the text from 1: a patch is as far from a word as any other.
    #[default]
    Shared,
}

/// A Llama decoder (Touvron et al. 2023); field names as in Hugging Face's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DecoderConfig {
    /// Width of the tokens.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads, each shared by a group of query heads (Ainslie et al. 2023).
    pub num_key_value_heads: usize,
    /// Width of a head; `hidden_size / num_attention_heads` when none.
    pub head_dim: Option<usize>,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Added to the mean square in norms.
    pub rms_norm_eps: f64,
    /// The output layer is the embedding table.
    pub tie_word_embeddings: bool,
    /// The longest sequence, image slots included.
    pub max_position_embeddings: usize,
    /// Factor on token embeddings as they enter; 1 in Llama.
    pub embedding_multiplier: f64,
    /// Dropout on what each sublayer adds.
    pub dropout: f64,
    /// How image slots see each other.
    pub image_attention: ImageAttention,
    /// Where image slots stand.
    pub image_positions: ImagePositions,
}

impl Default for DecoderConfig {
    fn default() -> DecoderConfig {
        DecoderConfig {
            hidden_size: 96,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            num_key_value_heads: 4,
            head_dim: None,
            intermediate_size: 256,
            rope_theta: 1000.0,
            rms_norm_eps: 1e-5,
            tie_word_embeddings: true,
            max_position_embeddings: 512,
            embedding_multiplier: 1.0,
            dropout: 0.0,
            image_attention: ImageAttention::Full,
            image_positions: ImagePositions::Shared,
        }
    }
}

impl DecoderConfig {
    /// Width of a head.
    pub fn head_size(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    pub(super) fn validate(&self) -> Result<()> {
        positive("decoder.hidden_size", self.hidden_size)?;
        positive("decoder.num_hidden_layers", self.num_hidden_layers)?;
        positive("decoder.intermediate_size", self.intermediate_size)?;
        positive("decoder.max_position_embeddings", self.max_position_embeddings)?;
        let heads = self.num_attention_heads;
        positive("decoder.num_attention_heads", heads)?;
        if self.head_dim.is_none() {
            divides(
                "decoder.num_attention_heads",
                heads,
                self.hidden_size,
                "decoder.hidden_size",
            )?;
        }
        let groups = self.num_key_value_heads;
        divides(
            "decoder.num_key_value_heads",
            groups,
            heads,
            "decoder.num_attention_heads",
        )?;
        let head = self.head_size();
        if head == 0 || head % 2 == 1 {
            return config(
                "decoder.head_dim",
                format!("{head} is not an even number above 0, as rotary positions need"),
            );
        }
        above_zero("decoder.rope_theta", self.rope_theta)?;
        above_zero("decoder.rms_norm_eps", self.rms_norm_eps)?;
        above_zero("decoder.embedding_multiplier", self.embedding_multiplier)?;
        probability("decoder.dropout", self.dropout)
    }
}
