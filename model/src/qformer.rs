//! The Q-Former of BLIP-2 (Li et al. 2023): learned queries that look at an image, and text, in one transformer.
//!
//! Queries and text share self-attention and have feed-forward layers of their own; every second block queries look
//! at the image. The mask decides what the transformer does: compare, match or caption.

use crate::attention::{MultiHead, MultiHeadSpec};
use crate::config::{LoraConfig, QFormerConfig, VisionConfig};
use crate::dual_encoder::log_scale_bounds;
use crate::error::shape;
use crate::linear::{Linear, LinearSpec, dropout};
use crate::norm::LayerNorm;
use crate::positions::GridPositions;
use crate::texts::{PlacedTexts, Texts};
use engine::ops::{Attend, CrossEntropy};
use engine::{Activation, Graph, Init, Mask, Pairs, ParamBuilder, ParamId, Result, Tensor, Var, ops};

/// The Q-Former with its heads, under the names of Hugging Face's BLIP-2.
#[derive(Debug, Clone)]
pub struct QFormer {
    config: QFormerConfig,
    vocab_size: usize,
    queries: ParamId,
    norm: LayerNorm,
    blocks: Vec<Block>,
    key_positions: Option<GridPositions>,
    text: Option<TextParts>,
}

/// What a Q-Former needs for texts: embeddings and the heads that compare and match.
#[derive(Debug, Clone)]
struct TextParts {
    words: ParamId,
    positions: ParamId,
    vision_projection: Linear,
    text_projection: Linear,
    itm_head: Linear,
    logit_scale: ParamId,
}

impl TextParts {
    fn new(builder: &mut ParamBuilder, config: &QFormerConfig, vocab_size: usize) -> Result<TextParts> {
        let dim = config.hidden_size;
        let embedding = Init::Normal(1.0 / (dim as f64).sqrt());
        let words = builder.add_embedding("embeddings.word_embeddings.weight", [vocab_size, dim], embedding)?;
        let table = [config.max_position_embeddings, dim];
        let positions = builder.add_embedding("embeddings.position_embeddings.weight", table, embedding)?;
        let mut head = |name, out| Linear::new(builder, name, LinearSpec::new(dim, out, None));
        Ok(TextParts {
            words,
            positions,
            vision_projection: head("vision_projection", config.projection)?,
            text_projection: head("text_projection", config.projection)?,
            itm_head: head("itm_head", 2)?,
            logit_scale: builder.add_bounded("logit_scale", (1.0f64 / 0.07).ln(), log_scale_bounds())?,
        })
    }
}

impl QFormer {
    /// Adds the Q-Former's parameters: `query_tokens`, `embeddings.*`, `qformer.*` and the heads.
    pub fn new(
        builder: &mut ParamBuilder,
        config: &QFormerConfig,
        vision: &VisionConfig,
        vocab_size: usize,
        lora: Option<&LoraConfig>,
    ) -> Result<QFormer> {
        let dim = config.hidden_size;
        let queries = builder.add_embedding("query_tokens", [1, config.num_query_tokens, dim], Init::Normal(0.02))?;
        let text = match config.text {
            true => Some(TextParts::new(builder, config, vocab_size)?),
            false => None,
        };
        let norm = LayerNorm::new(builder, "qformer.layernorm", dim, config.layer_norm_eps)?;
        let block = |i: usize| {
            let cross_attention_dim = i.is_multiple_of(config.cross_attention_frequency).then_some(vision.hidden_size);
            builder.scope(format!("qformer.encoder.layer.{i}"), |b| Block::new(b, config, cross_attention_dim, lora))
        };
        let blocks = (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?;
        let leading = vision.tokens() - vision.patches();
        let key_positions = GridPositions::new(leading, vision.grid(), vision.hidden_size);
        Ok(QFormer {
            config: config.clone(),
            vocab_size,
            queries,
            norm,
            blocks,
            key_positions: config.positions_in_keys.then_some(key_positions),
            text,
        })
    }

    /// Whether a parameter of a whole model is the Q-Former's.
    pub(crate) fn owns(name: &str) -> bool {
        let heads = ["vision_projection.", "text_projection.", "itm_head."];
        let parts = ["qformer.", "embeddings."].into_iter().chain(heads);
        name == "query_tokens" || name == "logit_scale" || parts.into_iter().any(|part| name.starts_with(part))
    }

    /// The configuration.
    pub fn config(&self) -> &QFormerConfig {
        &self.config
    }

    /// Ids of texts it knows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The parts for texts.
    fn texts(&self) -> Result<&TextParts> {
        match &self.text {
            Some(parts) => Ok(parts),
            None => shape("qformer", "this one takes no texts: `qformer.text` is false"),
        }
    }

    /// Queries that look at images alone: image tokens (batch, tokens, image dim) → (batch, queries, dim).
    pub fn queries(&self, g: &Graph<'_>, image: &Var) -> Result<Var> {
        self.query_states(g, image, &mut |_| {})
    }

    /// As [`QFormer::queries`]; `seen` is shown what enters the first block and what leaves each.
    pub fn query_states(&self, g: &Graph<'_>, image: &Var, seen: &mut dyn FnMut(&Var)) -> Result<Var> {
        let queries = self.query_tokens(g, image)?;
        let x = self.entering(g, &queries)?;
        let count = self.config.num_query_tokens;
        self.run(g, x, count, Some(image), &Attend::full(), seen)
    }

    /// Texts alone, each token seeing the whole text: (batch, tokens, dim).
    pub fn text(&self, g: &Graph<'_>, texts: &Texts) -> Result<Var> {
        let texts = texts.place(g, 0)?;
        let x = self.entering(g, &self.word_embeddings(g, &texts)?)?;
        let attend = Attend { k_lens: Some(texts.lens), ..Attend::full() };
        self.run(g, x, 0, None, &attend, &mut |_| {})
    }

    /// Queries and texts that see each other: outputs of the queries (batch, queries, dim) and the text
    /// (batch, tokens, dim).
    pub fn both(&self, g: &Graph<'_>, image: &Var, texts: &Texts) -> Result<(Var, Var)> {
        self.both_placed(g, image, &texts.place(g, self.config.num_query_tokens)?)
    }

    fn both_placed(&self, g: &Graph<'_>, image: &Var, texts: &PlacedTexts) -> Result<(Var, Var)> {
        let queries = self.config.num_query_tokens;
        let attend = Attend { k_lens: Some(texts.lens.clone()), ..Attend::full() };
        let out = self.run_joint(g, image, texts, &attend)?;
        Ok((ops::slice(&out, 0, queries)?, ops::slice(&out, queries, texts.tokens)?))
    }

    /// Texts whose tokens see the queries and the text so far, while queries see no text: (batch, tokens, dim).
    pub fn caption(&self, g: &Graph<'_>, image: &Var, texts: &Texts) -> Result<Var> {
        let queries = self.config.num_query_tokens;
        let attend = Attend { mask: Mask::PrefixCausal(queries), ..Attend::full() };
        let joint = self.run_joint(g, image, &texts.place(g, queries)?, &attend)?;
        ops::slice(&joint, queries, texts.tokens)
    }

    /// Images as unit vectors, one per query, for comparison with texts: (batch, queries, projection).
    pub fn itc_features(&self, g: &Graph<'_>, image: &Var) -> Result<Var> {
        self.project_queries(g, &self.queries(g, image)?)
    }

    /// As [`QFormer::itc_features`], from the output of [`QFormer::queries`].
    pub fn project_queries(&self, g: &Graph<'_>, queries: &Var) -> Result<Var> {
        ops::l2_normalize(&self.texts()?.vision_projection.forward(g, queries)?, 1e-12)
    }

    /// Texts as unit vectors, from their first token: (batch, projection).
    pub fn text_features(&self, g: &Graph<'_>, texts: &Texts) -> Result<Var> {
        let first = ops::slice(&self.text(g, texts)?, 0, 1)?;
        let first = ops::reshape(&first, [texts.batch, self.config.hidden_size])?;
        ops::l2_normalize(&self.texts()?.text_projection.forward(g, &first)?, 1e-12)
    }

    /// The logarithm of the factor on image–text scores: (1).
    pub fn logit_scale(&self, g: &Graph<'_>) -> Result<Var> {
        Ok(g.param(self.texts()?.logit_scale))
    }

    /// Whether image and text belong together: logits of no and yes (batch, 2), the mean over queries.
    pub fn itm_logits(&self, g: &Graph<'_>, image: &Var, texts: &Texts) -> Result<Var> {
        self.itm_head(g, &self.both(g, image, texts)?.0)
    }

    /// Output of the queries (batch, queries, dim) → (batch, 2).
    fn itm_head(&self, g: &Graph<'_>, queries: &Var) -> Result<Var> {
        ops::mean_axis(&self.texts()?.itm_head.forward(g, queries)?, 1)
    }

    /// Cross-entropy of [`QFormer::itm_logits`] of pairs from a batch against their labels.
    pub fn itm_loss(&self, g: &Graph<'_>, image: &Var, texts: &Texts, pairs: &Pairs) -> Result<CrossEntropy> {
        let texts = texts.place(g, self.config.num_query_tokens)?.select(&pairs.texts)?;
        let image = ops::embedding(image, &pairs.images)?;
        let logits = self.itm_head(g, &self.both_placed(g, &image, &texts)?.0)?;
        let identity = Tensor::from_slice(g.params().device(), &[1.0, 0.0, 0.0, 1.0f64], [2, 2])?;
        let identity = g.input(identity.cast(g.params().dtype())?);
        ops::linear_cross_entropy(&logits, &identity, &pairs.labels)
    }

    /// Cross-entropy of each next word: `targets` (batch·tokens), −100 where nothing is asked. The output layer is
    /// the table of word embeddings.
    pub fn caption_loss(&self, g: &Graph<'_>, image: &Var, texts: &Texts, targets: &[i32]) -> Result<CrossEntropy> {
        let out = self.caption(g, image, texts)?;
        let rows = texts.batch * texts.tokens;
        let out = ops::reshape(&out, [rows, self.config.hidden_size])?;
        let targets = Tensor::from_slice(g.params().device(), targets, [rows])?;
        ops::linear_cross_entropy(&out, &g.param(self.texts()?.words), &targets)
    }

    fn run_joint(&self, g: &Graph<'_>, image: &Var, texts: &PlacedTexts, attend: &Attend) -> Result<Var> {
        let joint = ops::concat(&[&self.query_tokens(g, image)?, &self.word_embeddings(g, texts)?])?;
        let x = self.entering(g, &joint)?;
        self.run(g, x, self.config.num_query_tokens, Some(image), attend, &mut |_| {})
    }

    /// All blocks over `queries` queries followed by text.
    fn run(
        &self,
        g: &Graph<'_>,
        mut x: Var,
        queries: usize,
        image: Option<&Var>,
        attend: &Attend,
        seen: &mut dyn FnMut(&Var),
    ) -> Result<Var> {
        let keys = match (image, &self.key_positions) {
            (Some(image), Some(positions)) => Some(ops::add_broadcast(image, &positions.table(g)?)?),
            (image, _) => image.cloned(),
        };
        seen(&x);
        for block in &self.blocks {
            let (block, attend) = (block.clone(), attend.clone());
            let inputs: Vec<&Var> = [Some(&x), keys.as_ref(), image].into_iter().flatten().collect();
            x = g.block(&inputs, move |g, inputs| block.forward(g, inputs, queries, &attend))?;
            seen(&x);
        }
        if self.config.norm_first { self.norm.forward(g, &x) } else { Ok(x) }
    }

    fn query_tokens(&self, g: &Graph<'_>, image: &Var) -> Result<Var> {
        let batch = match image.shape()[..] {
            [batch, _, _] => batch,
            _ => {
                return shape("qformer", format!("image {}, expected (batch, tokens, dim)", image.shape()));
            }
        };
        let single = [self.config.num_query_tokens, self.config.hidden_size];
        ops::repeat(&ops::reshape(&g.param(self.queries), single)?, batch)
    }

    fn word_embeddings(&self, g: &Graph<'_>, texts: &PlacedTexts) -> Result<Var> {
        let limit = self.config.max_position_embeddings;
        if texts.tokens > limit {
            return shape("qformer", format!("texts of {} tokens, at most {limit} fit", texts.tokens));
        }
        let parts = self.texts()?;
        let words = ops::embedding(&g.param(parts.words), &texts.ids)?;
        let table = ops::reshape(&g.param(parts.positions), [1, limit, self.config.hidden_size])?;
        let positions = ops::slice(&table, 0, texts.tokens)?;
        let positions = ops::reshape(&positions, [texts.tokens, self.config.hidden_size])?;
        ops::add_broadcast(&words, &positions)
    }

    /// What the blocks start from; with `norm_first` the norm comes at their end instead.
    fn entering(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        let x = if self.config.norm_first { x.clone() } else { self.norm.forward(g, x)? };
        dropout(g, &x, self.config.dropout)
    }
}

/// A block as in BERT (Devlin et al. 2019), or with its norms first.
#[derive(Debug, Clone)]
struct Block {
    attention: Attention,
    cross: Option<Attention>,
    for_queries: FeedForward,
    for_text: Option<FeedForward>,
}

impl Block {
    /// A block that also looks at images of width `cross_attention_dim`, if any.
    fn new(
        b: &mut ParamBuilder,
        config: &QFormerConfig,
        cross_attention_dim: Option<usize>,
        lora: Option<&LoraConfig>,
    ) -> Result<Block> {
        Ok(Block {
            attention: Attention::new(b, "attention", config, config.hidden_size, lora)?,
            cross: cross_attention_dim
                .map(|width| Attention::new(b, "crossattention", config, width, lora))
                .transpose()?,
            for_queries: FeedForward::new(b, ["intermediate_query", "output_query"], config, lora)?,
            for_text: match config.text {
                true => Some(FeedForward::new(b, ["intermediate", "output"], config, lora)?),
                false => None,
            },
        })
    }

    /// `inputs`: queries and text (batch, queries + tokens, dim), then, if there are queries, the image's keys and values.
    fn forward(&self, g: &Graph<'_>, inputs: &[Var], queries: usize, attend: &Attend) -> Result<Var> {
        let x = self.attention.forward(g, &inputs[0], None, attend.clone())?;
        let text = x.shape()[1] - queries;
        let for_text = |x: &Var| match &self.for_text {
            Some(layers) => layers.forward(g, x),
            None => shape("qformer", "this one takes no texts: `qformer.text` is false"),
        };
        if queries == 0 {
            return for_text(&x);
        }
        let mut q = if text == 0 { x.clone() } else { ops::slice(&x, 0, queries)? };
        if let (Some(cross), [_, keys, values]) = (&self.cross, inputs) {
            q = cross.forward(g, &q, Some((keys, values)), Attend::full())?;
        }
        q = self.for_queries.forward(g, &q)?;
        if text == 0 {
            return Ok(q);
        }
        let t = for_text(&ops::slice(&x, queries, text)?)?;
        ops::concat(&[&q, &t])
    }
}

/// `norm(x + attention(x))`, or `x + attention(norm(x))`.
#[derive(Debug, Clone)]
struct Attention {
    heads: MultiHead,
    norm: LayerNorm,
    norm_first: bool,
}

impl Attention {
    fn new(
        b: &mut ParamBuilder,
        name: &str,
        config: &QFormerConfig,
        key_dim: usize,
        lora: Option<&LoraConfig>,
    ) -> Result<Attention> {
        let dim = config.hidden_size;
        let spec = MultiHeadSpec {
            names: ["attention.query", "attention.key", "attention.value", "output.dense"],
            query: LinearSpec::new(dim, dim, lora),
            key_dim,
            out: LinearSpec::new(dim, dim, lora).residual(config.num_hidden_layers),
            heads: config.num_attention_heads,
            dropout: config.dropout,
            attention_dropout: config.attention_dropout,
        };
        b.scope(name, |b| {
            Ok(Attention {
                heads: MultiHead::new(b, spec)?,
                norm: LayerNorm::new(b, "output.LayerNorm", dim, config.layer_norm_eps)?,
                norm_first: config.norm_first,
            })
        })
    }

    fn forward(&self, g: &Graph<'_>, x: &Var, image: Option<(&Var, &Var)>, attend: Attend) -> Result<Var> {
        if self.norm_first {
            let normed = self.norm.forward(g, x)?;
            let (keys, values) = image.unwrap_or((&normed, &normed));
            return self.heads.forward(g, &normed, keys, values, x, attend);
        }
        let (keys, values) = image.unwrap_or((x, x));
        self.norm.forward(g, &self.heads.forward(g, x, keys, values, x, attend)?)
    }
}

/// `norm(x + output(act(intermediate(x))))`, or `x + output(act(intermediate(norm(x))))`.
#[derive(Debug, Clone)]
struct FeedForward {
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
    norm_first: bool,
    act: Activation,
    dropout: f64,
}

impl FeedForward {
    fn new(
        b: &mut ParamBuilder,
        [inner, outer]: [&str; 2],
        config: &QFormerConfig,
        lora: Option<&LoraConfig>,
    ) -> Result<FeedForward> {
        let (dim, wide) = (config.hidden_size, config.intermediate_size);
        let output = LinearSpec::new(wide, dim, lora).residual(config.num_hidden_layers);
        Ok(FeedForward {
            intermediate: Linear::new(b, &format!("{inner}.dense"), LinearSpec::new(dim, wide, lora))?,
            output: Linear::new(b, &format!("{outer}.dense"), output)?,
            norm: LayerNorm::new(b, &format!("{outer}.LayerNorm"), dim, config.layer_norm_eps)?,
            norm_first: config.norm_first,
            act: config.hidden_act.into(),
            dropout: config.dropout,
        })
    }

    fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        if self.norm_first {
            let h = self.intermediate.forward_act(g, &self.norm.forward(g, x)?, self.act)?;
            return self.output.add_to(g, &h, x, self.dropout);
        }
        let h = self.intermediate.forward_act(g, x, self.act)?;
        self.norm.forward(g, &self.output.add_to(g, &h, x, self.dropout)?)
    }
}
