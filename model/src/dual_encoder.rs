//! Two towers, images and texts, in one space: CLIP (Radford et al. 2021) and SigLIP (Zhai et al. 2023).

use crate::attention::{MultiHead, MultiHeadSpec};
use crate::config::{DualConfig, DualKind, VisionConfig};
use crate::linear::{Linear, LinearSpec};
use crate::norm::LayerNorm;
use crate::text_encoder::TextEncoder;
use crate::texts::Texts;
use crate::tokenizer::Tokenizer;
use crate::vit::Vit;
use engine::ops::Attend;
use engine::{Activation, Graph, Init, ParamBuilder, ParamId, Result, Var, ops};

/// Of the logarithm of the factor on scores, in training: a factor of 1 to 100, as OpenCLIP keeps it.
pub(crate) fn log_scale_bounds() -> [f64; 2] {
    [0.0, 100.0f64.ln()]
}

/// Both towers and their heads, under the names of Hugging Face's `CLIPModel` and `SiglipModel`.
#[derive(Debug, Clone)]
pub struct DualEncoder {
    /// What it is made of.
    pub config: DualConfig,
    /// The image tower.
    pub vision: Vit,
    /// The text tower.
    pub text: TextEncoder,
    pool: Option<AttentionPool>,
    visual_projection: Option<Linear>,
    text_projection: Linear,
    logit_scale: ParamId,
    logit_bias: Option<ParamId>,
}

impl DualEncoder {
    /// Adds both towers and the heads.
    pub fn new(builder: &mut ParamBuilder, config: &DualConfig) -> Result<DualEncoder> {
        let (image, text, out) = (config.vision.hidden_size, config.text.hidden_size, config.projection_dim);
        let plain = |input| LinearSpec { bias: false, ..LinearSpec::new(input, out, None) };
        let vision = Vit::new(builder, &config.vision, None)?;
        let text_tower = TextEncoder::new(builder, &config.text, config.kind)?;
        let clip = config.kind == DualKind::Clip;
        let (scale, head) = match config.kind {
            DualKind::Clip => ((1.0f64 / 0.07).ln(), ("text_projection", plain(text))),
            DualKind::Siglip => (10.0f64.ln(), ("text_model.head", LinearSpec::new(text, out, None))),
        };
        Ok(DualEncoder {
            config: config.clone(),
            vision,
            text: text_tower,
            logit_scale: builder.add_bounded("logit_scale", scale, log_scale_bounds())?,
            logit_bias: (!clip).then(|| builder.add("logit_bias", [1], Init::Constant(-10.0))).transpose()?,
            pool: (!clip).then(|| AttentionPool::new(builder, &config.vision)).transpose()?,
            visual_projection: clip.then(|| Linear::new(builder, "visual_projection", plain(image))).transpose()?,
            text_projection: Linear::new(builder, head.0, head.1)?,
        })
    }

    /// Each image as one vector, before it is brought to unit length: pixels (batch, 3, size, size) → (batch, projection).
    /// `seen` is shown the tokens that enter the image tower's first block and those that leave each.
    pub fn image_features(&self, g: &Graph<'_>, pixels: &Var, seen: &mut dyn FnMut(&Var)) -> Result<Var> {
        let x = self.vision.states(g, pixels, self.config.vision.num_hidden_layers, seen)?;
        match (&self.pool, &self.visual_projection) {
            (Some(pool), _) => pool.forward(g, &self.vision.norm(g, &x)?),
            (None, projection) => {
                let class = self.vision.norm(g, &ops::slice(&x, 0, 1)?)?;
                let class = ops::reshape(&class, [class.shape()[0], class.shape()[2]])?;
                projection.as_ref().map_or(Ok(class.clone()), |layer| layer.forward(g, &class))
            }
        }
    }

    /// Each text as one vector, before it is brought to unit length: (batch, projection). `seen` is shown the tokens that
    /// enter the text tower's first block and those that leave each.
    pub fn text_features(&self, g: &Graph<'_>, texts: &Texts, seen: &mut dyn FnMut(&Var)) -> Result<Var> {
        self.text_projection.forward(g, &self.text.pooled(g, texts, seen)?)
    }

    /// Scores of all images with all texts, from their features: (images, texts).
    pub fn scores(&self, g: &Graph<'_>, image: &Var, text: &Var) -> Result<Vec<Vec<f64>>> {
        let unit = |x: &Var| ops::l2_normalize(x, 1e-12);
        let cosines = ops::linear(&unit(image)?, &unit(text)?, None)?;
        let number = |id| g.param(id).tensor().item();
        let (scale, bias) = (number(self.logit_scale)?.exp(), self.logit_bias.map_or(Ok(0.0), number)?);
        let rows = cosines.tensor().to_f64()?;
        let rows = rows.chunks(cosines.shape().last().max(1));
        Ok(rows.map(|row| row.iter().map(|x| x * scale + bias).collect()).collect())
    }

    /// What the loss depends on beside features: the temperature's logarithm and, for SigLIP, the bias, (1) each.
    pub fn scalars(&self, g: &Graph<'_>) -> Vec<Var> {
        let both = [Some(self.logit_scale), self.logit_bias];
        both.into_iter().flatten().map(|id| g.param(id)).collect()
    }

    /// The contrastive loss of pairs, from their features and [`DualEncoder::scalars`]: softmax over each row and column for
    /// CLIP, a sigmoid of each pair for SigLIP.
    pub fn loss(&self, image: &Var, text: &Var, scalars: &[Var]) -> Result<Var> {
        let unit = |x: &Var| ops::l2_normalize(x, 1e-12);
        let (image, text) = (unit(image)?, unit(text)?);
        match scalars {
            [scale, bias] => ops::siglip_loss(&image, &text, scale, bias),
            [scale, ..] => ops::clip_loss(&image, &text, scale),
            [] => Err(engine::Error::Shape { op: "contrastive loss", message: "no temperature".into() }),
        }
    }

    /// Texts as the encoder reads them: with the tokens that its tokenizer puts around them, cut to what fits with the last
    /// token kept, SigLIP's filled up to their full length.
    pub fn texts<S: AsRef<str>>(&self, tokenizer: &Tokenizer, texts: &[S]) -> crate::Result<Texts> {
        let (most, pad) = (self.config.text.max_position_embeddings, tokenizer.specials().pad);
        let row = |text: &S| {
            let mut ids = tokenizer.tokenize(text.as_ref(), true)?;
            if let (Some(&last), true) = (ids.last(), ids.len() > most) {
                ids.truncate(most);
                ids[most - 1] = last;
            }
            if self.config.kind == DualKind::Siglip || ids.is_empty() {
                ids.resize(most, pad);
            }
            Ok(ids)
        };
        let rows = texts.iter().map(row).collect::<crate::Result<Vec<_>>>()?;
        Ok(Texts::pad(&rows, pad))
    }
}

/// One learned query that attends to all tokens, and a feed-forward layer (SigLIP's `head`).
#[derive(Debug, Clone)]
struct AttentionPool {
    probe: ParamId,
    attention: MultiHead,
    norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    act: Activation,
}

impl AttentionPool {
    fn new(builder: &mut ParamBuilder, config: &VisionConfig) -> Result<AttentionPool> {
        let (dim, wide) = (config.hidden_size, config.intermediate_size);
        let spec = MultiHeadSpec {
            names: ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"],
            query: LinearSpec::new(dim, dim, None),
            key_dim: dim,
            out: LinearSpec::new(dim, dim, None),
            heads: config.num_attention_heads,
            dropout: 0.0,
            attention_dropout: 0.0,
        };
        builder.scope("vision_model.head", |b| {
            Ok(AttentionPool {
                probe: b.add_embedding("probe", [1, dim], Init::Normal(1.0))?,
                attention: MultiHead::new(b, spec)?,
                norm: LayerNorm::new(b, "layernorm", dim, config.layer_norm_eps)?,
                fc1: Linear::new(b, "mlp.fc1", LinearSpec::new(dim, wide, None))?,
                fc2: Linear::new(b, "mlp.fc2", LinearSpec::new(wide, dim, None))?,
                act: config.hidden_act.into(),
            })
        })
    }

    /// (batch, tokens, dim) → (batch, dim).
    fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        let (batch, dim) = (x.shape()[0], x.shape().last());
        let probe = ops::repeat(&g.param(self.probe), batch)?;
        let pooled = self.attention.attend(g, &probe, x, x, Attend::full())?;
        let h = self.fc1.forward_act(g, &self.norm.forward(g, &pooled)?, self.act)?;
        ops::reshape(&self.fc2.forward_residual(g, &h, &pooled)?, [batch, dim])
    }
}
