//! The image encoder's configuration.

use super::{above_zero, blocks, config, divides, positive, probability};
use crate::error::Result;
use engine::Activation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An activation of feed-forward layers, by its Hugging Face name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// GELU with the error function.
    #[default]
    Gelu,
    /// `x · σ(1.702 x)`: OpenAI's CLIP.
    QuickGelu,
    /// GELU's tanh approximation: SigLIP.
    #[serde(alias = "gelu_new")]
    GeluPytorchTanh,
    /// `x · σ(x)`: Llama, as a gate.
    #[serde(alias = "swish")]
    Silu,
}

impl From<HiddenAct> for Activation {
    fn from(act: HiddenAct) -> Activation {
        match act {
            HiddenAct::Gelu => Activation::Gelu,
            HiddenAct::QuickGelu => Activation::QuickGelu,
            HiddenAct::GeluPytorchTanh => Activation::GeluTanh,
            HiddenAct::Silu => Activation::Silu,
        }
    }
}

/// How an encoder knows where a patch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PositionKind {
    /// A learned vector per token.
    Learned,
    /// Fixed sines and cosines of row and column.
    #[default]
    Sinusoidal,
}

/// A vision transformer (Dosovitskiy et al. 2021); field names as in Hugging Face's CLIP and SigLIP.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VisionConfig {
    /// Side of the square image in pixels.
    pub image_size: usize,
    /// Side of a patch in pixels.
    pub patch_size: usize,
    /// Pixels beyond each side of a patch that its token also sees: neighbours overlap.
    pub patch_margin: usize,
    /// Width of a hidden layer between a patch's pixels and its token; none: one linear map, as is usual.
    pub patch_hidden: Option<usize>,
    /// Width of the tokens.
    pub hidden_size: usize,
    /// Transformer blocks.
    pub num_hidden_layers: usize,
    /// Attention heads.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layers.
    pub intermediate_size: usize,
    /// A learned token in front of the patches, as in CLIP.
    pub class_token: bool,
    /// A bias in the patch embedding: SigLIP has one, CLIP has none.
    pub patch_bias: bool,
    /// A layer norm before the first block, as in CLIP.
    pub pre_layernorm: bool,
    /// How positions are encoded.
    pub positions: PositionKind,
    /// The feed-forward layers' activation.
    pub hidden_act: HiddenAct,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout on what each sublayer adds.
    pub dropout: f64,
    /// The block after which tokens leave the encoder, without the last norm: 0 is what enters the first block, negative
    /// numbers count from the end, as in LLaVA's `vision_feature_layer`. None: after the last block and the norm.
    pub feature_layer: Option<i64>,
}

impl Default for VisionConfig {
    fn default() -> VisionConfig {
        VisionConfig {
            image_size: 48,
            patch_size: 8,
            patch_margin: 0,
            patch_hidden: None,
            hidden_size: 96,
            num_hidden_layers: 3,
            num_attention_heads: 4,
            intermediate_size: 288,
            class_token: false,
            patch_bias: true,
            pre_layernorm: false,
            positions: PositionKind::Sinusoidal,
            hidden_act: HiddenAct::Gelu,
            layer_norm_eps: 1e-5,
            dropout: 0.0,
            feature_layer: None,
        }
    }
}

/// Largest side of an image in pixels.
const MAX_SIDE: usize = 16_384;

impl VisionConfig {
    /// Side of what a token sees, in pixels.
    pub fn window(&self) -> usize {
        self.patch_size + 2 * self.patch_margin
    }

    /// Patches along one side.
    pub fn grid(&self) -> usize {
        self.image_size / self.patch_size.max(1)
    }

    /// Patches of an image, the class token not among them.
    pub fn patches(&self) -> usize {
        self.grid() * self.grid()
    }

    /// Tokens the encoder gives.
    pub fn tokens(&self) -> usize {
        self.patches() + usize::from(self.class_token)
    }

    /// Blocks that tokens pass before they leave: [`VisionConfig::feature_layer`] counted from the start.
    pub fn feature_blocks(&self) -> usize {
        let blocks = self.num_hidden_layers as i64;
        let from_start = match self.feature_layer {
            None => blocks,
            Some(layer) if layer < 0 => blocks + 1 + layer,
            Some(layer) => layer,
        };
        from_start.clamp(0, blocks) as usize
    }

    pub(crate) fn validate(&self) -> Result<()> {
        if !(1..=MAX_SIDE).contains(&self.image_size) {
            return config("vision.image_size", format!("{} is not in 1..={MAX_SIDE}", self.image_size));
        }
        divides("vision.patch_size", self.patch_size, self.image_size, "vision.image_size")?;
        if self.patch_margin > self.image_size {
            return config("vision.patch_margin", "is wider than the image");
        }
        if let Some(hidden) = self.patch_hidden {
            positive("vision.patch_hidden", hidden)?;
        }
        positive("vision.hidden_size", self.hidden_size)?;
        blocks("vision.num_hidden_layers", self.num_hidden_layers)?;
        positive("vision.intermediate_size", self.intermediate_size)?;
        let heads = self.num_attention_heads;
        divides("vision.num_attention_heads", heads, self.hidden_size, "vision.hidden_size")?;
        if self.positions == PositionKind::Sinusoidal {
            divides("vision.hidden_size", 4, self.hidden_size, "the size, as sinusoidal positions need")?;
        }
        let blocks = self.num_hidden_layers as i64;
        if let Some(layer) = self.feature_layer.filter(|layer| !(-1 - blocks..=blocks).contains(layer)) {
            let message = format!("{layer} is not in {}..={blocks}, as {blocks} blocks allow", -1 - blocks);
            return config("vision.feature_layer", message);
        }
        above_zero("vision.layer_norm_eps", self.layer_norm_eps)?;
        probability("vision.dropout", self.dropout)
    }
}
