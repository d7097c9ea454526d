//! How much arithmetic a model's training needs, from its configuration: two operations per weight and token in each
//! matrix product, and attention's products of queries, keys and values over what each token sees.
//!
//! Backward, a part whose weights are trained takes as much again for them, and a part behind trained weights as much
//! again to hand gradients on to them: 6 N per token for what is trained, 2 N for a frozen encoder, 4 N for a frozen
//! decoder behind a trained adapter (Kaplan et al. 2020). Norms, activations, embeddings and recomputation do not count.

use crate::phases::Phase;
use crate::recipe::Recipe;
use engine::Params;
use model::{AdapterKind, DecoderConfig, QFormerConfig, VisionConfig, VlmConfig};

/// What a recipe's model needs, as its parameters are frozen now.
#[derive(Debug, Clone)]
pub struct Flops {
    config: VlmConfig,
    /// Phase 1 matches pairs; phase 1 captions.
    aligns: (bool, bool),
    /// Phase 2 does not run the encoder.
    cached: bool,
    /// Forward and backward as multiples of forward: encoder, adapter and Q-Former, decoder.
    times: [f64; 3],
}

impl Flops {
    /// Of a recipe's model with these parameters.
    pub fn of(recipe: &Recipe, config: &VlmConfig, params: &Params) -> Flops {
        let shares = [Part::Vision, Part::Adapter, Part::Decoder].map(|part| trained(params, part));
        let mut above = false;
        let times = shares.map(|share| {
            above |= share > 0.0;
            1.0 + share + f64::from(u8::from(above))
        });
        let phase1 = recipe.phase1.as_ref();
        Flops {
            config: config.clone(),
            aligns: phase1.map_or((false, false), |phase| (phase.itm > 0.0, phase.itg > 0.0)),
            cached: recipe.phase2.as_ref().is_some_and(|phase| phase.cache_features),
            times,
        }
    }

    /// Of a model that is trained as a whole on conversations.
    pub fn of_training(config: &VlmConfig) -> Flops {
        Flops { config: config.clone(), aligns: (false, false), cached: false, times: [3.0; 3] }
    }

    /// Floating-point operations of a step on `images` images with `text` tokens of text in all.
    pub fn step(&self, phase: Phase, images: usize, text: usize) -> f64 {
        let t = text as f64 / images.max(1) as f64;
        let [vision, adapter, decoder] = match phase {
            Phase::Align => self.align(t),
            Phase::Instruct => self.instruct(t),
            Phase::Contrast => [0.0; 3],
        };
        let [v, a, d] = self.times;
        images as f64 * (v * vision + a * adapter + d * decoder)
    }

    /// Tokens of an image that the last part of the model sees.
    pub fn image_tokens(&self, phase: Phase) -> usize {
        match phase {
            Phase::Align => self.config.qformer.as_ref().map_or(0, |q| q.num_query_tokens),
            Phase::Instruct => self.config.image_tokens(),
            Phase::Contrast => 0,
        }
    }

    /// Forward on one image and its caption of `t` tokens, for the losses that phase 1 has.
    fn align(&self, t: f64) -> [f64; 3] {
        let Some(qformer) = &self.config.qformer else {
            return [0.0; 3];
        };
        let (q, (itm, itg)) = (qformer.num_query_tokens as f64, self.aligns);
        let see = |queries: f64, text: f64, seen: f64| qformer_pass(qformer, &self.config.vision, queries, text, seen);
        let project = 2.0 * (q + 1.0) * (qformer.hidden_size * qformer.projection) as f64;
        let mut losses = see(q, 0.0, q) + see(0.0, t, t) + project;
        if itm {
            // The true pair, a wrong caption and a wrong image.
            losses += 3.0 * see(q, t, q + t);
        }
        if itg {
            losses += see(q, t, q + t / 2.0) + 2.0 * t * (qformer.hidden_size * self.config.vocab_size) as f64;
        }
        [vision_pass(&self.config.vision), losses, 0.0]
    }

    /// Forward on one image and `t` tokens of conversation about it.
    fn instruct(&self, t: f64) -> [f64; 3] {
        let VlmConfig { vision, adapter, decoder, .. } = &self.config;
        let encoder = if self.cached { 0.0 } else { vision_pass(vision) };
        let wide = adapter.hidden_size.unwrap_or(decoder.hidden_size);
        let project = |tokens: usize, from: usize| {
            let weights = match adapter.linear {
                true => from * decoder.hidden_size,
                false => from * wide + wide * decoder.hidden_size,
            };
            2.0 * (tokens * weights) as f64
        };
        let mut adapting = 0.0;
        let slots = self.config.image_tokens();
        let queries = match (&self.config.qformer, adapter.kind) {
            (Some(qformer), AdapterKind::Qformer | AdapterKind::Both) => {
                let q = qformer.num_query_tokens;
                adapting += qformer_pass(qformer, vision, q as f64, 0.0, q as f64) + project(q, qformer.hidden_size);
                q
            }
            _ => 0,
        };
        adapting += project(slots - queries.min(slots), vision.hidden_size);
        let tokens = slots as f64 + t;
        let head = 2.0 * t * (decoder.hidden_size * self.config.vocab_size) as f64;
        [encoder, adapting, decoder_pass(decoder, tokens) + head]
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Vision,
    Adapter,
    Decoder,
}

/// The share of a part's weights that are trained.
fn trained(params: &Params, part: Part) -> f64 {
    let of = |name: &str| match name.split('.').next() {
        Some("vision_model") => Part::Vision,
        Some("language_model") => Part::Decoder,
        _ => Part::Adapter,
    };
    let (mut all, mut moving) = (0, 0);
    for id in params.ids().filter(|&id| of(params.name(id)) == part) {
        let size = params.shape(id).elements();
        all += size;
        moving += if params.is_frozen(id) { 0 } else { size };
    }
    moving as f64 / all.max(1) as f64
}

/// One attention layer: `q` tokens of width `dim` that each see `seen` of `k` tokens of width `from`.
fn attention(q: f64, (k, seen): (f64, f64), dim: usize, from: usize, (heads, groups): (usize, usize)) -> f64 {
    let (dim, from, heads, groups) = (dim as f64, from as f64, heads as f64, groups as f64);
    2.0 * q * (2.0 * dim * heads) + 2.0 * k * (2.0 * from * groups) + 4.0 * q * seen * heads
}

fn feed_forward(tokens: f64, matrices: usize, dim: usize, wide: usize) -> f64 {
    2.0 * tokens * (matrices * dim * wide) as f64
}

/// The encoder on one image.
fn vision_pass(c: &VisionConfig) -> f64 {
    let (tokens, dim) = (c.tokens() as f64, c.hidden_size);
    let pixels = 3 * c.window() * c.window();
    let stem = c.patch_hidden.map_or(pixels * dim, |hidden| pixels * hidden + hidden * dim);
    let block =
        attention(tokens, (tokens, tokens), dim, dim, (dim, dim)) + feed_forward(tokens, 2, dim, c.intermediate_size);
    2.0 * (c.patches() * stem) as f64 + c.feature_blocks() as f64 * block
}

/// The Q-Former on the queries and the text of one image, each token seeing `seen` of them; queries also look at the image.
fn qformer_pass(c: &QFormerConfig, vision: &VisionConfig, queries: f64, text: f64, seen: f64) -> f64 {
    let (dim, tokens, image) = (c.hidden_size, queries + text, vision.tokens() as f64);
    let block =
        attention(tokens, (tokens, seen), dim, dim, (dim, dim)) + feed_forward(tokens, 2, dim, c.intermediate_size);
    let looking = match queries > 0.0 {
        true => attention(queries, (image, image), dim, vision.hidden_size, (dim, dim)),
        false => 0.0,
    };
    let looks = c.num_hidden_layers.div_ceil(c.cross_attention_frequency.max(1));
    c.num_hidden_layers as f64 * block + looks as f64 * looking
}

/// The decoder's blocks over `tokens` tokens, each of which sees half of them on average.
fn decoder_pass(c: &DecoderConfig, tokens: f64) -> f64 {
    let (heads, groups) = (c.num_attention_heads * c.head_size(), c.num_key_value_heads * c.head_size());
    let block = attention(tokens, (tokens, tokens / 2.0), c.hidden_size, c.hidden_size, (heads, groups))
        + feed_forward(tokens, 3, c.hidden_size, c.intermediate_size);
    c.num_hidden_layers as f64 * block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use engine::{DType, Device};
    use model::{Vlm, set_groups};
    use std::path::Path;

    const RECIPE: &str = "
        [run]
        name = \"flops\"
        [data]
        source = \"scenes\"
        [model]
        vocab_size = 50
        [model.qformer]
        [phase1]
        steps = 1
        batch_size = 8
        lr = 1e-3
        [phase2]
        steps = 1
        batch_size = 8
        lr = 1e-3
    ";

    fn model(settings: &[&str], freeze: &str) -> (Flops, Params) {
        let settings: Vec<String> = settings.iter().map(|s| s.to_string()).collect();
        let recipe = Recipe::parse(RECIPE, Path::new("flops.toml"), &settings).unwrap();
        let (_, mut params) = Vlm::build(&recipe.model, &Device::trace(), DType::F32, 0).unwrap();
        let rules: std::collections::BTreeMap<String, Vec<model::GroupRule>> =
            toml::from_str(&format!("rules = [{freeze}]")).unwrap();
        set_groups(&mut params, &rules["rules"], 0.0, None).unwrap();
        (Flops::of(&recipe, &recipe.model, &params), params)
    }

    fn flops(settings: &[&str], freeze: &str) -> Flops {
        model(settings, freeze).0
    }

    /// Elements of the matrices whose names `chosen` likes.
    fn weights(params: &Params, chosen: impl Fn(&str) -> bool) -> f64 {
        let matrices = params.ids().filter(|&id| params.shape(id).len() == 2 && chosen(params.name(id)));
        matrices.map(|id| params.shape(id).elements()).sum::<usize>() as f64
    }

    fn assert_close(a: f64, b: f64) {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    }

    #[test]
    fn each_part_takes_two_operations_per_weight_and_token_and_attention() {
        let (flops, params) = model(&[], "");
        let [encoder, _, decoder] = flops.instruct(1e-9);
        let slots = flops.image_tokens(Phase::Instruct) as f64;
        // Without text the head has nothing to do.
        let blocks = weights(&params, |name| name.starts_with("language_model.model.layers"));
        assert_close(decoder, 2.0 * slots * blocks + 3.0 * 4.0 * slots * (slots / 2.0) * 96.0);
        let blocks = weights(&params, |name| name.starts_with("vision_model.encoder"));
        let stem = 2.0 * slots * (3 * 8 * 8 * 96) as f64;
        assert_close(encoder, 2.0 * slots * blocks + stem + 3.0 * 4.0 * slots * slots * 96.0);

        let (config, q) = (flops.config.qformer.as_ref().unwrap(), 8.0);
        let layers = |name: &str| name.starts_with("qformer.encoder.layer");
        let of_image =
            |name: &str| name.contains("crossattention") && (name.contains(".key") || name.contains(".value"));
        let of_text = |name: &str| matches!(name.split('.').nth(4), Some("intermediate" | "output"));
        let image = weights(&params, |name| layers(name) && of_image(name));
        let queries = weights(&params, |name| layers(name) && !of_image(name) && !of_text(name));
        let attention = 4.0 * 4.0 * q * q * 96.0 + 2.0 * 4.0 * q * slots * 96.0;
        let pass = qformer_pass(config, &flops.config.vision, q, 0.0, q);
        assert_close(pass, 2.0 * (slots * image + q * queries) + attention);
        assert_eq!(flops.times, [3.0; 3]);
    }

    #[test]
    fn what_is_frozen_costs_less_and_a_kept_encoder_nothing() {
        let vision = "{ match = \"vision_model.*\", freeze = true }";
        let frozen = flops(&[], vision);
        assert_eq!(frozen.times, [1.0, 3.0, 3.0]);
        let behind = flops(
            &[],
            "{ match = \"language_model.*\", freeze = true }, { match = \"vision_model.*\", freeze = true }",
        );
        assert_eq!(behind.times, [1.0, 3.0, 2.0]);
        let all = flops(&[], "");
        assert!(frozen.step(Phase::Instruct, 8, 100) < all.step(Phase::Instruct, 8, 100));
        let double = all.step(Phase::Align, 16, 200) / all.step(Phase::Align, 8, 100);
        assert!((double - 2.0).abs() < 1e-9, "as many again take as much again: {double}");
    }

    #[test]
    fn losses_that_are_left_out_cost_nothing() {
        let all = flops(&[], "").step(Phase::Align, 8, 64);
        let without = flops(&["phase1.itm=0"], "").step(Phase::Align, 8, 64);
        let alone = flops(&["phase1.itm=0", "phase1.itg=0"], "").step(Phase::Align, 8, 64);
        assert!(all > without && without > alone && alone > 0.0, "{all} {without} {alone}");
    }
}
