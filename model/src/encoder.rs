//! The pre-norm transformer block that CLIP's and SigLIP's towers for images and texts are made of.

use crate::attention::{MultiHead, MultiHeadSpec};
use crate::config::LoraConfig;
use crate::linear::{Linear, LinearSpec};
use crate::norm::LayerNorm;
use engine::ops::Attend;
use engine::{Activation, Graph, ParamBuilder, Result, Var};

/// How a [`Block`] is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockSpec {
    pub(crate) dim: usize,
    /// Width of the feed-forward layers.
    pub(crate) wide: usize,
    pub(crate) heads: usize,
    /// Blocks of the whole stack.
    pub(crate) layers: usize,
    pub(crate) act: Activation,
    pub(crate) eps: f64,
    pub(crate) dropout: f64,
}

/// A pre-norm transformer block.
#[derive(Debug, Clone)]
pub(crate) struct Block {
    norm1: LayerNorm,
    attention: MultiHead,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: Activation,
    dropout: f64,
}

impl Block {
    pub(crate) fn new(b: &mut ParamBuilder, spec: &BlockSpec, lora: Option<&LoraConfig>) -> Result<Block> {
        let BlockSpec { dim, wide, layers, eps, .. } = *spec;
        let attention = MultiHeadSpec {
            names: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"],
            query: LinearSpec::new(dim, dim, lora),
            key_dim: dim,
            out: LinearSpec::new(dim, dim, lora).residual(layers),
            heads: spec.heads,
            dropout: spec.dropout,
            attention_dropout: 0.0,
        };
        Ok(Block {
            norm1: LayerNorm::new(b, "layer_norm1", dim, eps)?,
            attention: MultiHead::new(b, attention)?,
            norm2: LayerNorm::new(b, "layer_norm2", dim, eps)?,
            fc1: Linear::new(b, "mlp.fc1", LinearSpec::new(dim, wide, lora))?,
            fc2: Linear::new(b, "mlp.fc2", LinearSpec::new(wide, dim, lora).residual(layers))?,
            act: spec.act,
            dropout: spec.dropout,
        })
    }

    /// x (batch, tokens, dim) → the same.
    pub(crate) fn forward(&self, g: &Graph<'_>, x: &Var, attend: &Attend) -> Result<Var> {
        let h = self.norm1.forward(g, x)?;
        let x = self.attention.forward(g, &h, &h, &h, x, attend.clone())?;
        let h = self.fc1.forward_act(g, &self.norm2.forward(g, &x)?, self.act)?;
        self.fc2.add_to(g, &h, &x, self.dropout)
    }
}
