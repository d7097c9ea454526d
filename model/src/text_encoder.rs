//! The text towers of CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023).

use crate::config::{DualKind, TextConfig};
use crate::encoder::{Block, BlockSpec};
use crate::error::shape;
use crate::norm::LayerNorm;
use crate::texts::Texts;
use engine::ops::Attend;
use engine::{Graph, Init, ParamBuilder, ParamId, Result, Tensor, Var, ops};

/// A transformer over tokens, under the names of Hugging Face's `text_model`.
#[derive(Debug, Clone)]
pub struct TextEncoder {
    config: TextConfig,
    kind: DualKind,
    words: ParamId,
    positions: ParamId,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl TextEncoder {
    /// Adds the encoder's parameters under `text_model`.
    pub fn new(builder: &mut ParamBuilder, config: &TextConfig, kind: DualKind) -> Result<TextEncoder> {
        builder.scope("text_model", |b| {
            let dim = config.hidden_size;
            let init = Init::Normal(1.0 / (dim as f64).sqrt());
            let words = b.add_embedding("embeddings.token_embedding.weight", [config.vocab_size, dim], init)?;
            let table = [config.max_position_embeddings, dim];
            let positions = b.add_embedding("embeddings.position_embedding.weight", table, Init::Normal(0.02))?;
            let spec = BlockSpec {
                dim,
                wide: config.intermediate_size,
                heads: config.num_attention_heads,
                layers: config.num_hidden_layers,
                act: config.hidden_act.into(),
                eps: config.layer_norm_eps,
                dropout: 0.0,
            };
            let block = |i| b.scope(format!("encoder.layers.{i}"), |b| Block::new(b, &spec, None));
            Ok(TextEncoder {
                config: config.clone(),
                kind,
                words,
                positions,
                blocks: (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?,
                norm: LayerNorm::new(b, "final_layer_norm", dim, config.layer_norm_eps)?,
            })
        })
    }

    /// Each text as one vector, (batch, dim): the output at CLIP's end-of-text token, which sees all before it, or at
    /// SigLIP's last. `seen` is shown what enters the first block and what leaves each.
    pub fn pooled(&self, g: &Graph<'_>, texts: &Texts, seen: &mut dyn FnMut(&Var)) -> Result<Var> {
        let (device, dim) = (g.params().device(), self.config.hidden_size);
        let limit = self.config.max_position_embeddings;
        if texts.tokens > limit || texts.tokens == 0 {
            let message = format!("texts of {} tokens, 1 to {limit} fit", texts.tokens);
            return shape("text encoder", message);
        }
        let ids = Tensor::from_slice(device, &texts.ids, [texts.batch, texts.tokens])?;
        let words = ops::embedding(&g.param(self.words), &ids)?;
        let table = ops::reshape(&g.param(self.positions), [1, limit, dim])?;
        let places = ops::reshape(&ops::slice(&table, 0, texts.tokens)?, [texts.tokens, dim])?;
        let mut x = ops::add_broadcast(&words, &places)?;
        seen(&x);
        let attend = match self.kind {
            DualKind::Clip => Attend::causal(),
            DualKind::Siglip => Attend::full(),
        };
        for block in &self.blocks {
            let (block, attend) = (block.clone(), attend.clone());
            x = g.block(&[&x], move |g, inputs| block.forward(g, &inputs[0], &attend))?;
            seen(&x);
        }
        let flat = ops::reshape(&x, [texts.batch * texts.tokens, dim])?;
        let ends = Tensor::from_slice(device, &self.ends(texts), [texts.batch])?;
        self.norm.forward(g, &ops::embedding(&flat, &ends)?)
    }

    /// Where each text is summed up, among all tokens of the batch.
    fn ends(&self, texts: &Texts) -> Vec<i32> {
        let end = |row: &[i32]| match (self.kind, self.config.eos_token_id) {
            (DualKind::Siglip, _) => row.len() - 1,
            // OpenAI's files say 2, but mean the largest id of all.
            (DualKind::Clip, 2) => {
                let largest = row.iter().copied().max();
                row.iter().position(|&id| Some(id) == largest).unwrap_or(0)
            }
            (DualKind::Clip, eos) => row.iter().position(|&id| id == eos as i32).unwrap_or(0),
        };
        let rows = texts.ids.chunks(texts.tokens).enumerate();
        rows.map(|(i, row)| (i * texts.tokens + end(row)) as i32).collect()
    }
}
