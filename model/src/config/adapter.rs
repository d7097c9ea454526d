//! Configuration of what connects encoder and decoder.

use super::{HiddenAct, above_zero, blocks, config, divides, positive, probability};
use crate::error::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A Q-Former (Li et al. 2023, "BLIP-2").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct QFormerConfig {
    /// Learned queries: what an image is summed up in.
    pub num_query_tokens: usize,
    /// Width of queries and text.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// Every so many blocks, from the first on, queries look at the image.
    pub cross_attention_frequency: usize,
    /// The longest text in tokens.
    pub max_position_embeddings: usize,
    /// The feed-forward layers' activation.
    pub hidden_act: HiddenAct,
    /// Takes texts, too, and has the heads that compare, match and caption; false: queries only, as in whole BLIP-2.
    pub text: bool,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout on embeddings and on what each sublayer adds.
    pub dropout: f64,
    /// Dropout on attention's weights.
    pub attention_dropout: f64,
    /// Width of the space in which images and texts are compared.
    pub projection: usize,
    /// Adds 2-D sinusoidal positions to the keys of cross-attention.
    pub positions_in_keys: bool,
    /// Norms in front of each sublayer and one at the end, which small models learn quicker with; false: behind each
    /// sublayer, as in BERT and BLIP-2.
    pub norm_first: bool,
}

impl Default for QFormerConfig {
    fn default() -> QFormerConfig {
        QFormerConfig {
            num_query_tokens: 8,
            hidden_size: 96,
            num_hidden_layers: 4,
            num_attention_heads: 4,
            intermediate_size: 288,
            cross_attention_frequency: 2,
            max_position_embeddings: 64,
            hidden_act: HiddenAct::Gelu,
            text: true,
            layer_norm_eps: 1e-5,
            dropout: 0.0,
            attention_dropout: 0.0,
            projection: 64,
            positions_in_keys: true,
            norm_first: false,
        }
    }
}

impl QFormerConfig {
    pub(crate) fn validate(&self, image_width: usize) -> Result<()> {
        positive("qformer.num_query_tokens", self.num_query_tokens)?;
        positive("qformer.hidden_size", self.hidden_size)?;
        blocks("qformer.num_hidden_layers", self.num_hidden_layers)?;
        positive("qformer.intermediate_size", self.intermediate_size)?;
        positive("qformer.cross_attention_frequency", self.cross_attention_frequency)?;
        positive("qformer.max_position_embeddings", self.max_position_embeddings)?;
        positive("qformer.projection", self.projection)?;
        let heads = self.num_attention_heads;
        divides("qformer.num_attention_heads", heads, self.hidden_size, "qformer.hidden_size")?;
        if self.positions_in_keys {
            divides("qformer.positions_in_keys", 4, image_width, "vision.hidden_size")?;
        }
        above_zero("qformer.layer_norm_eps", self.layer_norm_eps)?;
        probability("qformer.attention_dropout", self.attention_dropout)?;
        probability("qformer.dropout", self.dropout)
    }
}

/// What the decoder sees of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdapterKind {
    /// The Q-Former's query outputs.
    Qformer,
    /// Every patch token through an MLP (Liu et al. 2023, "LLaVA").
    #[default]
    Mlp,
    /// Query outputs, then all patch tokens, each through its projector.
    Both,
}

/// The adapter: which tokens, and the projectors they go through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdapterConfig {
    /// What the decoder sees of an image.
    pub kind: AdapterKind,
    /// Width between a projector's two layers; the decoder's when none.
    pub hidden_size: Option<usize>,
    /// Projectors are a single linear layer, as in BLIP-2.
    pub linear: bool,
    /// The activation between a projector's two layers.
    pub hidden_act: HiddenAct,
    /// Projectors have biases.
    pub bias: bool,
    /// The class token is among the patch tokens the decoder sees: LLaVA's `vision_feature_select_strategy = "full"`.
    pub class_token: bool,
    /// Adds 2-D sinusoidal positions to the projected patch tokens.
    pub positions: bool,
}

impl Default for AdapterConfig {
    fn default() -> AdapterConfig {
        AdapterConfig {
            kind: AdapterKind::Mlp,
            hidden_size: None,
            linear: false,
            hidden_act: HiddenAct::Gelu,
            bias: true,
            class_token: false,
            positions: true,
        }
    }
}

impl AdapterConfig {
    pub(crate) fn validate(&self, decoder_width: usize) -> Result<()> {
        if self.hidden_size == Some(0) {
            return config("adapter.hidden_size", "must be at least 1");
        }
        if self.positions && self.class_token {
            return config("adapter.positions", "the class token has no place: set one of the two to false");
        }
        if self.positions && self.kind != AdapterKind::Qformer {
            divides("adapter.positions", 4, decoder_width, "decoder.hidden_size")?;
        }
        Ok(())
    }
}
