//! A vision transformer (Dosovitskiy et al. 2021): patches of pixels in, one token per patch out.

use crate::config::{LoraConfig, PositionKind, VisionConfig};
use crate::encoder::{Block, BlockSpec};
use crate::error::shape;
use crate::linear::{Linear, LinearSpec, dropout};
use crate::norm::LayerNorm;
use crate::positions::GridPositions;
use engine::ops::Attend;
use engine::{Graph, Init, ParamBuilder, ParamId, Result, Var, ops};

/// The image encoder, under the names of Hugging Face's `vision_model`.
#[derive(Debug, Clone)]
pub struct Vit {
    config: VisionConfig,
    stem: Stem,
    class: Option<ParamId>,
    positions: Positions,
    pre_norm: Option<LayerNorm>,
    blocks: Vec<Block>,
    post_norm: LayerNorm,
}

#[derive(Debug, Clone)]
enum Positions {
    Learned(ParamId),
    Fixed(GridPositions),
}

impl Vit {
    /// The name of learned positions, one row a token.
    pub(crate) const POSITIONS: &'static str = "vision_model.embeddings.position_embedding.weight";

    /// Adds the encoder's parameters under `vision_model`.
    pub fn new(builder: &mut ParamBuilder, config: &VisionConfig, lora: Option<&LoraConfig>) -> Result<Vit> {
        builder.scope("vision_model", |b| {
            let dim = config.hidden_size;
            let stem = Stem::new(b, config, lora)?;
            let class =
                config.class_token.then(|| b.add_embedding("embeddings.class_embedding", [dim], Init::Normal(0.02)));
            let positions = match config.positions {
                PositionKind::Learned => {
                    let (name, shape) = ("embeddings.position_embedding.weight", [config.tokens(), dim]);
                    Positions::Learned(b.add_embedding(name, shape, Init::Normal(0.02))?)
                }
                PositionKind::Sinusoidal => {
                    Positions::Fixed(GridPositions::new(config.tokens() - config.patches(), config.grid(), dim))
                }
            };
            let eps = config.layer_norm_eps;
            // Spelled so in CLIP's weights.
            let pre_norm = config.pre_layernorm.then(|| LayerNorm::new(b, "pre_layrnorm", dim, eps)).transpose()?;
            let spec = BlockSpec {
                dim,
                wide: config.intermediate_size,
                heads: config.num_attention_heads,
                layers: config.num_hidden_layers,
                act: config.hidden_act.into(),
                eps,
                dropout: config.dropout,
            };
            let block = |i| b.scope(format!("encoder.layers.{i}"), |b| Block::new(b, &spec, lora));
            let blocks = (0..config.num_hidden_layers).map(block).collect::<Result<_>>()?;
            Ok(Vit {
                config: config.clone(),
                stem,
                class: class.transpose()?,
                positions,
                pre_norm,
                blocks,
                post_norm: LayerNorm::new(b, "post_layernorm", dim, eps)?,
            })
        })
    }

    /// Tokens of images: pixels (batch, 3, height, width) → (batch, tokens, dim), after the last norm or from the block
    /// that the configuration names; the class token, if there is one, comes first.
    pub fn forward(&self, g: &Graph<'_>, pixels: &Var) -> Result<Var> {
        let x = self.states(g, pixels, self.config.feature_blocks(), &mut |_| {})?;
        match self.config.feature_layer {
            None => self.norm(g, &x),
            Some(_) => Ok(x),
        }
    }

    /// Tokens after so many `blocks`, before the last norm; `seen` is shown what enters the first block and what leaves
    /// each.
    pub fn states(&self, g: &Graph<'_>, pixels: &Var, blocks: usize, seen: &mut dyn FnMut(&Var)) -> Result<Var> {
        let mut x = self.embed(g, pixels)?;
        if let Some(norm) = &self.pre_norm {
            x = norm.forward(g, &x)?;
        }
        seen(&x);
        for block in &self.blocks[..blocks] {
            let block = block.clone();
            x = g.block(&[&x], move |g, inputs| block.forward(g, &inputs[0], &Attend::full()))?;
            seen(&x);
        }
        Ok(x)
    }

    /// The last norm.
    pub fn norm(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        self.post_norm.forward(g, x)
    }

    /// The configuration.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// The patch tokens among an encoder's output: (batch, tokens, dim) → (batch, patches, dim).
    pub fn patches(&self, tokens: &Var) -> Result<Var> {
        match self.class {
            Some(_) => ops::slice(tokens, 1, self.config.patches()),
            None => Ok(tokens.clone()),
        }
    }

    fn embed(&self, g: &Graph<'_>, pixels: &Var) -> Result<Var> {
        let (size, dim) = (self.config.image_size, self.config.hidden_size);
        let batch = match pixels.shape()[..] {
            [batch, 3, height, width] if height == size && width == size => batch,
            _ => {
                return shape("vit", format!("pixels {}, expected (batch, 3, {size}, {size})", pixels.shape()));
            }
        };
        let mut x = self.stem.forward(g, pixels, &self.config)?;
        if let Some(class) = self.class {
            let class = ops::repeat(&ops::reshape(&g.param(class), [1, dim])?, batch)?;
            x = ops::concat(&[&class, &x])?;
        }
        let positions = match &self.positions {
            Positions::Learned(table) => g.param(*table),
            Positions::Fixed(grid) => grid.table(g)?,
        };
        dropout(g, &ops::add_broadcast(&x, &positions)?, self.config.dropout)
    }
}

/// From a patch's pixels to its token: one linear map, or two with an activation between.
#[derive(Debug, Clone)]
struct Stem {
    weight: ParamId,
    bias: Option<ParamId>,
    projection: Option<Linear>,
}

impl Stem {
    fn new(b: &mut ParamBuilder, config: &VisionConfig, lora: Option<&LoraConfig>) -> Result<Stem> {
        let (width, window) = (config.patch_hidden.unwrap_or(config.hidden_size), config.window());
        let init = Init::Normal(1.0 / ((3 * window * window) as f64).sqrt());
        let weight = b.add("embeddings.patch_embedding.weight", [width, 3, window, window], init)?;
        let bias = config.patch_bias.then(|| b.add("embeddings.patch_embedding.bias", [width], Init::Zeros));
        let projection = LinearSpec::new(width, config.hidden_size, lora);
        let projection = config.patch_hidden.map(|_| Linear::new(b, "embeddings.patch_projection", projection));
        Ok(Stem { weight, bias: bias.transpose()?, projection: projection.transpose()? })
    }

    /// Pixels (batch, 3, height, width) → (batch, patches, dim).
    fn forward(&self, g: &Graph<'_>, pixels: &Var, config: &VisionConfig) -> Result<Var> {
        let (weight, bias) = (g.param(self.weight), self.bias.map(|b| g.param(b)));
        let flat = ops::reshape(&weight, [weight.shape()[0], weight.shape()[1..].iter().product()])?;
        let x = ops::patch_embed(pixels, &flat, bias.as_ref(), config.patch_size, config.patch_margin)?;
        match &self.projection {
            Some(projection) => projection.forward(g, &ops::activate(&x, config.hidden_act.into())?),
            None => Ok(x),
        }
    }
}
