//! The vision-language model: encoder, adapter and decoder in a row.

use crate::config::{AdapterKind, ImageAttention, ImagePositions, VlmConfig};
use crate::decoder::Decoder;
use crate::error::{Result, shape};
use crate::kv_cache::KvCache;
use crate::positions::GridPositions;
use crate::projector::Projector;
use crate::qformer::QFormer;
use crate::texts::TextBatch;
use crate::vit::Vit;
use engine::ops::{Attend, CrossEntropy};
use engine::{DType, Device, Graph, Mask, ParamBuilder, Params, Tensor, Var, ops};

/// The whole model. Names: `vision_model.*`, `query_tokens`, `embeddings.*`, `qformer.*` and the Q-Former's heads,
/// `language_projection.*` (queries), `multi_modal_projector.*` (patches), `language_model.*`.
#[derive(Debug, Clone)]
pub struct Vlm {
    /// What it is made of.
    pub config: VlmConfig,
    /// The image encoder.
    pub vision: Vit,
    /// The Q-Former, if the configuration has one.
    pub qformer: Option<QFormer>,
    /// The language model.
    pub decoder: Decoder,
    for_queries: Option<Projector>,
    for_patches: Option<Projector>,
    patch_positions: Option<GridPositions>,
}

/// A batch on its way into the decoder.
pub(crate) struct Joined {
    /// (batch, tokens, dim).
    pub(crate) x: Var,
    /// (batch, tokens) I32.
    pub(crate) positions: Tensor,
    /// What sees what.
    pub(crate) attend: Attend,
}

impl Vlm {
    /// Adds the whole model's parameters.
    pub fn new(builder: &mut ParamBuilder, config: &VlmConfig) -> Result<Vlm> {
        config.validate()?;
        let (vision, decoder, adapter) = (&config.vision, &config.decoder, &config.adapter);
        let lora = config.lora.adapter.as_ref();
        let (image_dim, dim) = (vision.hidden_size, decoder.hidden_size);
        let vit = Vit::new(builder, vision, config.lora.vision.as_ref())?;
        let qformer = config.qformer.as_ref();
        let qformer = qformer.map(|q| QFormer::new(builder, q, vision, config.vocab_size, lora));
        let query_dim = config.qformer.as_ref().map_or(0, |q| q.hidden_size);
        let mut projector = |wanted: bool, name: &str, from| {
            wanted.then(|| Projector::new(builder, name, adapter, [from, dim], lora)).transpose()
        };
        let uses_patches = adapter.kind != AdapterKind::Qformer;
        let patch_positions = GridPositions::new(0, vision.grid(), dim);
        Ok(Vlm {
            vision: vit,
            qformer: qformer.transpose()?,
            for_queries: projector(adapter.kind != AdapterKind::Mlp, "language_projection", query_dim)?,
            for_patches: projector(uses_patches, "multi_modal_projector", image_dim)?,
            patch_positions: (uses_patches && adapter.positions).then_some(patch_positions),
            decoder: builder.scope("language_model", |b| {
                Decoder::new(b, decoder, config.vocab_size, config.lora.decoder.as_ref())
            })?,
            config: config.clone(),
        })
    }

    /// A freshly initialised model with its parameters.
    ///
    /// ```
    /// use engine::{DType, Device};
    /// use model::{Vlm, VlmConfig};
    /// let config = VlmConfig { vocab_size: 100, ..VlmConfig::default() };
    /// let (vlm, params) = Vlm::build(&config, &Device::cpu(), DType::F32, 0)?;
    /// assert_eq!(vlm.config.image_tokens(), 36);
    /// assert!(params.find("language_model.model.layers.0.self_attn.q_proj.weight").is_some());
    /// # Ok::<(), model::Error>(())
    /// ```
    pub fn build(config: &VlmConfig, device: &Device, dtype: DType, seed: u64) -> Result<(Vlm, Params)> {
        let mut builder = ParamBuilder::new();
        let vlm = Vlm::new(&mut builder, config)?;
        Ok((vlm, builder.build(device, dtype, seed)?))
    }

    /// What the decoder sees of images: pixels (batch, 3, size, size) → (batch, slots, dim).
    pub fn visual_tokens(&self, g: &Graph<'_>, pixels: &Var) -> Result<Var> {
        self.adapt(g, &self.vision.forward(g, pixels)?)
    }

    /// The same from the encoder's output (batch, tokens, image dim), which may have been kept from before.
    pub fn adapt(&self, g: &Graph<'_>, features: &Var) -> Result<Var> {
        let mut parts = Vec::with_capacity(2);
        if let (Some(qformer), Some(projector)) = (&self.qformer, &self.for_queries) {
            parts.push(projector.forward(g, &qformer.queries(g, features)?)?);
        }
        if let Some(projector) = &self.for_patches {
            let tokens = match self.config.adapter.class_token {
                true => features.clone(),
                false => self.vision.patches(features)?,
            };
            let patches = projector.forward(g, &tokens)?;
            parts.push(match &self.patch_positions {
                Some(positions) => ops::add_broadcast(&patches, &positions.table(g)?)?,
                None => patches,
            });
        }
        match &parts[..] {
            [single] => Ok(single.clone()),
            parts => Ok(ops::concat(&parts.iter().collect::<Vec<_>>())?),
        }
    }

    /// The language-modelling loss of texts about images: pixels (images, 3, size, size).
    pub fn loss(&self, g: &Graph<'_>, pixels: &Var, text: &TextBatch) -> Result<CrossEntropy> {
        self.text_loss(g, &self.visual_tokens(g, pixels)?, text)
    }

    /// The same from what [`Vlm::visual_tokens`] gives.
    pub fn text_loss(&self, g: &Graph<'_>, visual: &Var, text: &TextBatch) -> Result<CrossEntropy> {
        let hidden = self.text_states(g, visual, text)?;
        let rows = text.batch * text.tokens;
        let hidden = ops::reshape(&hidden, [rows, self.config.decoder.hidden_size])?;
        let targets = Tensor::from_slice(g.params().device(), &text.targets, [rows])?;
        Ok(ops::linear_cross_entropy(&hidden, &g.param(self.decoder.head()), &targets)?)
    }

    /// The decoder's output at the text: (batch, tokens, dim).
    pub fn text_states(&self, g: &Graph<'_>, visual: &Var, text: &TextBatch) -> Result<Var> {
        let joined = self.joined(g, visual, text)?;
        let out = self.decoder.forward(g, &joined.x, &joined.positions, &joined.attend)?;
        match self.config.image_token {
            Some(_) => Ok(out),
            None => Ok(ops::slice(&out, visual.shape()[1], text.tokens)?),
        }
    }

    /// Images and texts as the decoder takes them: visual (images, slots, dim).
    pub(crate) fn joined(&self, g: &Graph<'_>, visual: &Var, text: &TextBatch) -> Result<Joined> {
        match self.config.image_token {
            Some(image) => self.merge_image_tokens(g, visual, text, image as i32),
            None => self.prepend_images(g, visual, text),
        }
    }

    /// Image slots followed by embedded text: (batch, slots + tokens, …).
    fn prepend_images(&self, g: &Graph<'_>, visual: &Var, text: &TextBatch) -> Result<Joined> {
        let slots = match visual.shape()[..] {
            [batch, slots, _] if batch == text.batch => slots,
            _ => {
                return Ok(shape("vlm", format!("{} images for {} rows of text", visual.shape(), text.batch))?);
            }
        };
        let device = g.params().device();
        let ids = Tensor::from_slice(device, &text.ids, [text.batch, text.tokens])?;
        let first = self.text_start(slots);
        let (mut positions, mut segments) = (Vec::new(), Vec::new());
        for row in 0..text.batch {
            let range = row * text.tokens..(row + 1) * text.tokens;
            positions.extend(self.slot_positions(slots));
            positions.extend(text.positions[range.clone()].iter().map(|p| p + first));
            segments.extend(std::iter::repeat_n(0, slots));
            segments.extend(&text.segments[range]);
        }
        let all = [text.batch, slots + text.tokens];
        Ok(Joined {
            x: ops::concat(&[visual, &self.decoder.embed(g, &ids)?])?,
            positions: Tensor::from_slice(device, &positions, all)?,
            attend: Attend {
                mask: match self.config.decoder.image_attention {
                    ImageAttention::Causal => Mask::Causal,
                    ImageAttention::Full => Mask::PrefixCausal(slots),
                },
                segments: Some(Tensor::from_slice(device, &segments, all)?),
                ..Attend::default()
            },
        })
    }

    /// Texts with image slots where their ids say so: (batch, tokens, …).
    fn merge_image_tokens(&self, g: &Graph<'_>, visual: &Var, text: &TextBatch, image: i32) -> Result<Joined> {
        let device = g.params().device();
        let in_order = text.images.iter().enumerate().all(|(i, &image)| i as i32 == image);
        let shown = match in_order && text.images.len() == visual.shape()[0] {
            true => visual.clone(),
            false => ops::embedding(visual, &Tensor::from_slice(device, &text.images, [text.images.len()])?)?,
        };
        let all = [text.batch, text.tokens];
        Ok(Joined {
            x: self.interleave(g, &text.ids, text.tokens, image, &shown)?,
            positions: Tensor::from_slice(device, &text.positions, all)?,
            attend: Attend { segments: Some(Tensor::from_slice(device, &text.segments, all)?), ..Attend::causal() },
        })
    }

    /// Embedded ids (batch, tokens) in which the image slots, visual (images, slots, dim), stand in their order in place of
    /// the tokens `image`: (batch, tokens, dim).
    ///
    /// # Errors
    /// When there are not as many places as slots.
    pub fn interleave(&self, g: &Graph<'_>, ids: &[i32], tokens: usize, image: i32, visual: &Var) -> Result<Var> {
        let dim = self.config.decoder.hidden_size;
        let slots = visual.shape().elements() / dim;
        let words: Vec<i32> = ids.iter().copied().filter(|&id| id != image).collect();
        if ids.len() - words.len() != slots || tokens == 0 || !ids.len().is_multiple_of(tokens) {
            let places = ids.len() - words.len();
            let message = format!("{places} places for images in {} tokens, {slots} slots to put there", ids.len());
            return Ok(shape("vlm", message)?);
        }
        let (mut slot, mut word) = (0..slots as i32, slots as i32..);
        let sources = ids.iter().map(|&id| if id == image { slot.next() } else { word.next() });
        let sources: Vec<i32> = sources.flatten().collect();
        let device = g.params().device();
        let words = Tensor::from_slice(device, &words, [1, words.len()])?;
        let all = ops::concat(&[&ops::reshape(visual, [1, slots, dim])?, &self.decoder.embed(g, &words)?])?;
        let all = ops::reshape(&all, [sources.len(), dim])?;
        let sources = Tensor::from_slice(device, &sources, [sources.len() / tokens, tokens])?;
        Ok(ops::embedding(&all, &sources)?)
    }

    /// The position of the text's first token after `slots` image slots.
    pub(crate) fn text_start(&self, slots: usize) -> i32 {
        match self.config.decoder.image_positions {
            ImagePositions::Sequential => slots as i32,
            ImagePositions::Shared => 1,
        }
    }

    fn slot_positions(&self, slots: usize) -> impl Iterator<Item = i32> + use<> {
        let step = match self.config.decoder.image_positions {
            ImagePositions::Sequential => 1,
            ImagePositions::Shared => 0,
        };
        (0..slots as i32).map(move |slot| slot * step)
    }

    /// A cache that holds images, with room for `room` tokens of text behind each: visual (batch, slots, dim).
    pub fn image_cache(&self, g: &Graph<'_>, visual: &Var, room: usize) -> Result<KvCache> {
        let [batch, slots, _] = visual.shape()[..] else {
            return Ok(shape("vlm", format!("{}, expected (batch, slots, dim)", visual.shape()))?);
        };
        let positions: Vec<i32> = (0..batch).flat_map(|_| self.slot_positions(slots)).collect();
        let positions = Tensor::from_slice(g.params().device(), &positions, [batch, slots])?;
        let attend = match self.config.decoder.image_attention {
            ImageAttention::Causal => Attend::causal(),
            ImageAttention::Full => Attend::full(),
        };
        let mut cache = self.decoder.cache(g, batch, slots + room)?;
        self.decoder.step(g, visual, &positions, &attend, &mut cache)?;
        Ok(cache)
    }
}
