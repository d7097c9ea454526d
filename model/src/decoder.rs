//! A Llama decoder (Touvron et al. 2023): RMS norm, rotary positions, grouped queries, SwiGLU.

use crate::attention::{merge_heads, split_heads};
use crate::config::{DecoderConfig, LoraConfig};
use crate::error::shape;
use crate::kv_cache::{KvCache, LayerCache};
use crate::linear::{Linear, LinearSpec, dropout};
use crate::norm::RmsNorm;
use engine::ops::Attend;
use engine::{Graph, Init, ParamBuilder, ParamId, Result, Tensor, Var, ops};

/// The language model, under the names of Hugging Face's Llama.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    embed: ParamId,
    head: ParamId,
    blocks: Vec<Block>,
    norm: RmsNorm,
}

impl Decoder {
    /// Adds the decoder's parameters under `model` and, when the output layer is one of its own, `lm_head`.
    pub fn new(
        builder: &mut ParamBuilder,
        config: &DecoderConfig,
        vocab_size: usize,
        lora: Option<&LoraConfig>,
    ) -> Result<Decoder> {
        let dim = config.hidden_size;
        let table = [vocab_size, dim];
        // Logits start with variance 1: the last norm's output has a root mean square of 1.
        let init = Init::Normal(1.0 / (dim as f64).sqrt());
        let embed = builder.add("model.embed_tokens.weight", table, init)?;
        let block = |i| builder.scope(format!("model.layers.{i}"), |b| Block::new(b, config, lora));
        let blocks = (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?;
        let norm = RmsNorm::new(builder, "model.norm", dim, config.rms_norm_eps)?;
        let head = match config.tie_word_embeddings {
            true => embed,
            false => builder.add("lm_head.weight", table, init)?,
        };
        Ok(Decoder {
            config: config.clone(),
            embed,
            head,
            blocks,
            norm,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// The output layer's weight (vocab, dim).
    pub fn head(&self) -> ParamId {
        self.head
    }

    /// Embeddings of ids (…) I32 → (…, dim).
    pub fn embed(&self, g: &Graph<'_>, ids: &Tensor) -> Result<Var> {
        let x = ops::embedding(&g.param(self.embed), ids)?;
        match self.config.embedding_multiplier {
            1.0 => Ok(x),
            factor => ops::scale(&x, factor),
        }
    }

    /// All blocks and the last norm: x (batch, tokens, dim), positions (batch, tokens) I32 → (batch, tokens, dim).
    pub fn forward(&self, g: &Graph<'_>, x: &Var, positions: &Tensor, attend: &Attend) -> Result<Var> {
        let inv_freq = self.inv_freq(g)?;
        let mut x = dropout(g, x, self.config.dropout)?;
        for block in &self.blocks {
            let (block, positions) = (block.clone(), positions.clone());
            let (inv_freq, attend) = (inv_freq.clone(), attend.clone());
            x = g.block(&[&x], move |g, inputs| {
                let (q, k, v) = block.heads(g, &inputs[0], &positions, &inv_freq)?;
                let mixed = ops::attention(&q, &k, &v, attend.clone())?;
                block.finish(g, &mixed, &inputs[0])
            })?;
        }
        self.norm.forward(g, &x)
    }

    /// As [`Decoder::forward`] for tokens that follow those in `cache`, whose keys and values are added to it.
    /// A causal mask counts the cached tokens as seen; segments, if any, cover cached and new tokens.
    ///
    /// # Errors
    /// When the cache has no room, or a gradient is wanted.
    pub fn step(
        &self,
        g: &Graph<'_>,
        x: &Var,
        positions: &Tensor,
        attend: &Attend,
        cache: &mut KvCache,
    ) -> Result<Var> {
        let inv_freq = self.inv_freq(g)?;
        let mut x = x.clone();
        let tokens = match x.shape()[..] {
            [_, tokens, _] => tokens,
            _ => return shape("decoder", format!("{}, expected (batch, tokens, dim)", x.shape())),
        };
        let attend = Attend {
            keys: Some(cache.len() + tokens),
            ..attend.clone()
        };
        for (block, cached) in self.blocks.iter().zip(cache.reserve(tokens)?) {
            x = block.step(g, &x, (positions, &inv_freq), &attend, cached)?;
        }
        self.norm.forward(g, &x)
    }

    /// An empty cache for `batch` sequences of up to `capacity` tokens.
    pub fn cache(&self, g: &Graph<'_>, batch: usize, capacity: usize) -> Result<KvCache> {
        let (heads, head_dim) = (self.config.num_key_value_heads, self.config.head_size());
        KvCache::new(g.params(), self.blocks.len(), [batch, capacity, heads, head_dim])
    }

    /// Each block's attention weights of the last token, for pictures: (batch, heads, 1, tokens) per block.
    pub fn last_attention(&self, g: &Graph<'_>, x: &Var, positions: &Tensor, attend: &Attend) -> Result<Vec<Tensor>> {
        let inv_freq = self.inv_freq(g)?;
        let mut x = x.clone();
        let mut weights = Vec::with_capacity(self.blocks.len());
        for block in &self.blocks {
            let (q, k, v) = block.heads(g, &x, positions, &inv_freq)?;
            let merged = merge_heads(&q)?;
            let last = ops::slice(&merged, merged.shape()[1].saturating_sub(1), 1)?;
            let last = split_heads(&last, self.config.num_attention_heads)?;
            weights.push(ops::attention_weights(&last, &k, Attend::causal())?.tensor().clone());
            let mixed = ops::attention(&q, &k, &v, attend.clone())?;
            x = block.finish(g, &mixed, &x)?;
        }
        Ok(weights)
    }

    /// Rotary frequencies `theta^(−2i / head_dim)`: (head_dim/2) in the accumulator's type.
    fn inv_freq(&self, g: &Graph<'_>) -> Result<Tensor> {
        let head_dim = self.config.head_size();
        let frequency = |i: usize| self.config.rope_theta.powf(-(2.0 * i as f64) / head_dim as f64);
        let table: Vec<f64> = (0..head_dim / 2).map(frequency).collect();
        let params = g.params();
        Tensor::from_slice(params.device(), &table, [head_dim / 2])?.cast(params.dtype().accumulator())
    }
}

#[derive(Debug, Clone)]
struct Block {
    input_norm: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    post_norm: RmsNorm,
    gate: Linear,
    up: Linear,
    down: Linear,
    q_heads: usize,
    kv_heads: usize,
    dropout: f64,
}

impl Block {
    fn new(b: &mut ParamBuilder, config: &DecoderConfig, lora: Option<&LoraConfig>) -> Result<Block> {
        let (dim, wide, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
        let (q_heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (q_dim, kv_dim) = (q_heads * config.head_size(), kv_heads * config.head_size());
        let spec = |input, output| LinearSpec::new(input, output, lora).without_bias();
        let eps = config.rms_norm_eps;
        Ok(Block {
            input_norm: RmsNorm::new(b, "input_layernorm", dim, eps)?,
            q: Linear::new(b, "self_attn.q_proj", spec(dim, q_dim))?,
            k: Linear::new(b, "self_attn.k_proj", spec(dim, kv_dim))?,
            v: Linear::new(b, "self_attn.v_proj", spec(dim, kv_dim))?,
            o: Linear::new(b, "self_attn.o_proj", spec(q_dim, dim).residual(layers))?,
            post_norm: RmsNorm::new(b, "post_attention_layernorm", dim, eps)?,
            gate: Linear::new(b, "mlp.gate_proj", spec(dim, wide))?,
            up: Linear::new(b, "mlp.up_proj", spec(dim, wide))?,
            down: Linear::new(b, "mlp.down_proj", spec(wide, dim).residual(layers))?,
            q_heads,
            kv_heads,
            dropout: config.dropout,
        })
    }

    /// Queries and keys, turned by their positions, and values: (batch, tokens, heads, head_dim) each.
    fn heads(&self, g: &Graph<'_>, x: &Var, positions: &Tensor, inv_freq: &Tensor) -> Result<(Var, Var, Var)> {
        let h = self.input_norm.forward(g, x)?;
        let q = split_heads(&self.q.forward(g, &h)?, self.q_heads)?;
        let k = split_heads(&self.k.forward(g, &h)?, self.kv_heads)?;
        let v = split_heads(&self.v.forward(g, &h)?, self.kv_heads)?;
        let turn = |x: &Var| ops::rotary(x, positions, inv_freq);
        Ok((turn(&q)?, turn(&k)?, v))
    }

    /// What follows attention: output layer, residual, feed-forward.
    fn finish(&self, g: &Graph<'_>, mixed: &Var, x: &Var) -> Result<Var> {
        let x = self.o.add_to(g, &merge_heads(mixed)?, x, self.dropout)?;
        let h = self.post_norm.forward(g, &x)?;
        let h = ops::silu_mul(&self.gate.forward(g, &h)?, &self.up.forward(g, &h)?)?;
        self.down.add_to(g, &h, &x, self.dropout)
    }

    fn step(
        &self,
        g: &Graph<'_>,
        x: &Var,
        (positions, inv_freq): (&Tensor, &Tensor),
        attend: &Attend,
        cached: LayerCache<'_>,
    ) -> Result<Var> {
        let (q, k, v) = self.heads(g, x, positions, inv_freq)?;
        let (k, v) = cached.append(&k, &v)?;
        self.finish(g, &ops::attention(&q, &k, &v, attend.clone())?, x)
    }
}
