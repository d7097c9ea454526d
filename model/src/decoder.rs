//! A Llama decoder (Touvron et al. 2023): RMS norm, rotary positions, grouped queries, SwiGLU; with biases Qwen2, with a
//! sliding window Mistral.

use crate::attention::{merge_heads, split_heads};
use crate::config::{DecoderConfig, LoraConfig};
use crate::error::shape;
use crate::kv_cache::{KvCache, LayerCache};
use crate::linear::{Linear, LinearSpec, dropout};
use crate::norm::RmsNorm;
use engine::ops::Attend;
use engine::{Activation, Graph, Init, Mask, ParamBuilder, ParamId, Result, Tensor, Var, ops};

/// The language model, under the names of Hugging Face's Llama.
#[derive(Debug, Clone)]
pub struct Decoder {
    config: DecoderConfig,
    vocab_size: usize,
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
        let embed = builder.add_embedding("model.embed_tokens.weight", table, init)?;
        let block = |i| builder.scope(format!("model.layers.{i}"), |b| Block::new(b, config, i, lora));
        let blocks = (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?;
        let norm = RmsNorm::new(builder, "model.norm", dim, config.rms_norm_eps)?;
        let head = match config.tie_word_embeddings {
            true => embed,
            false => builder.add("lm_head.weight", table, init)?,
        };
        Ok(Decoder { config: config.clone(), vocab_size, embed, head, blocks, norm })
    }

    /// The configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Ids it knows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
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
        self.states(g, x, positions, attend, &mut |_| {})
    }

    /// As [`Decoder::forward`]; `seen` is shown what enters the first block, what leaves each but the last, and the
    /// result: the hidden states as the reference counts them.
    pub fn states(
        &self,
        g: &Graph<'_>,
        x: &Var,
        positions: &Tensor,
        attend: &Attend,
        seen: &mut dyn FnMut(&Var),
    ) -> Result<Var> {
        let inv_freq = self.inv_freq(g)?;
        let mut x = dropout(g, x, self.config.dropout)?;
        for block in &self.blocks {
            seen(&x);
            let (positions, inv_freq) = (positions.clone(), inv_freq.clone());
            let (block, attend) = (block.clone(), block.windowed(attend));
            x = g.block(&[&x], move |g, inputs| {
                let (q, k, v) = block.heads(g, &inputs[0], &positions, &inv_freq)?;
                let attended = ops::attention(&q, &k, &v, attend.clone())?;
                block.finish(g, &attended, &inputs[0])
            })?;
        }
        let x = self.norm.forward(g, &x)?;
        seen(&x);
        Ok(x)
    }

    /// Logits of what the last norm gives: (…, dim) → (…, vocab).
    pub fn logits(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        ops::linear(x, &g.param(self.head), None)
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
        let attend = Attend { keys: Some(cache.len() + tokens), ..attend.clone() };
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
            let attended = ops::attention(&q, &k, &v, block.windowed(attend))?;
            x = block.finish(g, &attended, &x)?;
        }
        Ok(weights)
    }

    /// Rotary frequencies `theta^(−2i / head_dim)`, scaled: (head_dim/2) in the accumulator's type.
    fn inv_freq(&self, g: &Graph<'_>) -> Result<Tensor> {
        let head_dim = self.config.head_size();
        let frequency = |i: usize| {
            let plain = self.config.rope_theta.powf(-(2.0 * i as f64) / head_dim as f64);
            self.config.rope_scaling.map_or(plain, |scaling| scaling.scale(plain))
        };
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
    act: Activation,
    window: Option<usize>,
    dropout: f64,
}

impl Block {
    fn new(b: &mut ParamBuilder, config: &DecoderConfig, index: usize, lora: Option<&LoraConfig>) -> Result<Block> {
        let (dim, wide, layers) = (config.hidden_size, config.intermediate_size, config.num_hidden_layers);
        let (q_heads, kv_heads) = (config.num_attention_heads, config.num_key_value_heads);
        let (q_dim, kv_dim) = (q_heads * config.head_size(), kv_heads * config.head_size());
        let spec = |input, output, bias| LinearSpec { bias, ..LinearSpec::new(input, output, lora) };
        let eps = config.rms_norm_eps;
        Ok(Block {
            input_norm: RmsNorm::new(b, "input_layernorm", dim, eps)?,
            q: Linear::new(b, "self_attn.q_proj", spec(dim, q_dim, config.qkv_bias))?,
            k: Linear::new(b, "self_attn.k_proj", spec(dim, kv_dim, config.qkv_bias))?,
            v: Linear::new(b, "self_attn.v_proj", spec(dim, kv_dim, config.qkv_bias))?,
            o: Linear::new(b, "self_attn.o_proj", spec(q_dim, dim, config.o_bias).residual(layers))?,
            post_norm: RmsNorm::new(b, "post_attention_layernorm", dim, eps)?,
            gate: Linear::new(b, "mlp.gate_proj", spec(dim, wide, config.mlp_bias))?,
            up: Linear::new(b, "mlp.up_proj", spec(dim, wide, config.mlp_bias))?,
            down: Linear::new(b, "mlp.down_proj", spec(wide, dim, config.mlp_bias).residual(layers))?,
            q_heads,
            kv_heads,
            act: config.hidden_act.into(),
            window: config.sliding_window.filter(|_| index >= config.full_attention_layers),
            dropout: config.dropout,
        })
    }

    /// What this block's tokens see, where others see `attend`.
    fn windowed(&self, attend: &Attend) -> Attend {
        match (self.window, attend.mask) {
            (Some(window), Mask::Causal) => Attend { mask: Mask::Window(window), ..attend.clone() },
            _ => attend.clone(),
        }
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
    fn finish(&self, g: &Graph<'_>, attended: &Var, x: &Var) -> Result<Var> {
        let x = self.o.add_to(g, &merge_heads(attended)?, x, self.dropout)?;
        let h = self.post_norm.forward(g, &x)?;
        let up = self.up.forward(g, &h)?;
        let h = match self.act {
            Activation::Silu => ops::silu_mul(&self.gate.forward(g, &h)?, &up)?,
            act => ops::mul(&self.gate.forward_act(g, &h, act)?, &up)?,
        };
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
        self.finish(g, &ops::attention(&q, &k, &v, self.windowed(attend))?, x)
    }
}
