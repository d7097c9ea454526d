//! The language model's configuration.

use super::{HiddenAct, above_zero, blocks, config, divides, positive, probability};
use crate::error::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How image slots see each other in the decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImageAttention {
    /// Each sees those before it, as text does: what pre-trained decoders know.
    Causal,
    /// Each sees all image slots.
    #[default]
    Full,
}

/// Rotary positions of image slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ImagePositions {
    /// One each, the text counting on from there: what pre-trained decoders know.
    Sequential,
    /// All slots at position 0, the text from 1: a patch is as far from a word as any other.
    #[default]
    Shared,
}

/// How rotary frequencies change for texts longer than a model was first trained on.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rope_type", rename_all = "snake_case", deny_unknown_fields)]
pub enum RopeScaling {
    /// All are divided by `factor` (Chen et al. 2023).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Wavelengths beyond `original / low_freq_factor` are stretched by `factor`, those within
    /// `original / high_freq_factor` stay, those between go over smoothly (Llama 3.1, Dubey et al. 2024).
    Llama3 {
        /// The divisor of the lowest frequencies.
        factor: f64,
        /// Turns within the original length below which a frequency is divided.
        low_freq_factor: f64,
        /// Turns within the original length above which a frequency stays.
        high_freq_factor: f64,
        /// The original length in tokens.
        original_max_position_embeddings: usize,
    },
}

impl RopeScaling {
    /// What becomes of a frequency in radians per token.
    pub fn scale(self, frequency: f64) -> f64 {
        match self {
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_max_position_embeddings: original,
            } => {
                let turns = original as f64 * frequency / std::f64::consts::TAU;
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                frequency * (kept + (1.0 - kept) / factor)
            }
        }
    }

    fn validate(self) -> Result<()> {
        match self {
            RopeScaling::Linear { factor } => above_zero("decoder.rope_scaling.factor", factor),
            RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => {
                above_zero("decoder.rope_scaling.factor", factor)?;
                above_zero("decoder.rope_scaling.low_freq_factor", low_freq_factor)?;
                above_zero("decoder.rope_scaling.high_freq_factor", high_freq_factor - low_freq_factor)?;
                let field = "decoder.rope_scaling.original_max_position_embeddings";
                positive(field, original_max_position_embeddings)
            }
        }
    }
}

/// A Llama decoder (Touvron et al. 2023), or one of its relatives Mistral and Qwen2; field names as in Hugging Face's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// The feed-forward layers' gate.
    pub hidden_act: HiddenAct,
    /// Biases of the query, key and value layers: Qwen2.
    pub qkv_bias: bool,
    /// Bias of attention's output layer.
    pub o_bias: bool,
    /// Biases of the feed-forward layers.
    pub mlp_bias: bool,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Change of the rotary frequencies for long texts.
    pub rope_scaling: Option<RopeScaling>,
    /// Tokens a token sees, itself included; none: all before it (Mistral, Jiang et al. 2023).
    pub sliding_window: Option<usize>,
    /// The first so many blocks see all tokens in spite of a sliding window: Qwen2's `max_window_layers`.
    pub full_attention_layers: usize,
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
            hidden_act: HiddenAct::Silu,
            qkv_bias: false,
            o_bias: false,
            mlp_bias: false,
            rope_theta: 1000.0,
            rope_scaling: None,
            sliding_window: None,
            full_attention_layers: 0,
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
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    pub(crate) fn validate(&self) -> Result<()> {
        positive("decoder.hidden_size", self.hidden_size)?;
        blocks("decoder.num_hidden_layers", self.num_hidden_layers)?;
        positive("decoder.intermediate_size", self.intermediate_size)?;
        positive("decoder.max_position_embeddings", self.max_position_embeddings)?;
        let heads = self.num_attention_heads;
        positive("decoder.num_attention_heads", heads)?;
        positive("decoder.head_dim", self.head_dim.unwrap_or(1))?;
        if self.head_dim.is_none() {
            divides("decoder.num_attention_heads", heads, self.hidden_size, "decoder.hidden_size")?;
        }
        let groups = self.num_key_value_heads;
        divides("decoder.num_key_value_heads", groups, heads, "decoder.num_attention_heads")?;
        let head = self.head_size();
        if head == 0 || head % 2 == 1 {
            return config(
                "decoder.head_dim",
                format!("{head} is not an even number above 0, as rotary positions need"),
            );
        }
        above_zero("decoder.rope_theta", self.rope_theta)?;
        self.rope_scaling.map_or(Ok(()), RopeScaling::validate)?;
        positive("decoder.sliding_window", self.sliding_window.unwrap_or(1))?;
        if self.sliding_window.is_some() && self.image_attention == ImageAttention::Full {
            return config("decoder.image_attention", "must be `causal` where a sliding window is used");
        }
        above_zero("decoder.rms_norm_eps", self.rms_norm_eps)?;
        above_zero("decoder.embedding_multiplier", self.embedding_multiplier)?;
        probability("decoder.dropout", self.dropout)
    }
}
