//! Configurations of CLIP's and SigLIP's towers and of BLIP-2's image encoder.

use super::fields::{Fields, only_ours, table};
use crate::config::{DualConfig, DualKind, HiddenAct, PositionKind, TextConfig, VisionConfig};
use crate::error::Result;
use serde_json::{Map, Value, json};

/// `CLIPModel` and `SiglipModel`.
pub(super) fn dual(fields: Fields, kind: DualKind) -> Result<DualConfig> {
    let vision = vision(fields.table("vision_config")?, kind, true)?;
    let (text, own) = text(fields.table("text_config")?, kind)?;
    let projection_dim = match kind {
        DualKind::Clip => fields.or("projection_dim", 512)?,
        DualKind::Siglip => own,
    };
    fields.ignore(&["logit_scale_init_value", "tie_word_embeddings"]);
    fields.finish()?;
    Ok(DualConfig { kind, vision, text, projection_dim })
}

/// An image tower; `head`: with SigLIP's pooling head, where it has one.
pub(super) fn vision(fields: Fields, kind: DualKind, head: bool) -> Result<VisionConfig> {
    let clip = kind == DualKind::Clip;
    fields.only("num_channels", 3)?;
    fields.only("attention_dropout", 0.0)?;
    fields.only("dropout", 0.0)?;
    // The width of a projection that belongs to the dual encoder; images have no vocabulary, and nothing to tie to it.
    fields.ignore(&["projection_dim", "tie_word_embeddings", "vocab_size"]);
    if !clip && fields.or("vision_use_head", true)? != head {
        return fields.bad("vision_use_head", format!("must be {head} in such a model"));
    }
    let config = VisionConfig {
        patch_margin: 0,
        patch_hidden: None,
        class_token: clip,
        patch_bias: !clip,
        pre_layernorm: clip,
        layer_norm_eps: fields.or("layer_norm_eps", if clip { 1e-5 } else { 1e-6 })?,
        ..sizes(&fields, [768, 3072, 12, 12], if clip { 32 } else { 16 }, activation(kind))?
    };
    fields.finish()?;
    Ok(config)
}

/// BLIP-2's image encoder.
pub(super) fn blip2_vision(fields: Fields) -> Result<VisionConfig> {
    fields.only("num_channels", 3)?;
    fields.only("attention_dropout", 0.0)?;
    fields.only("qkv_bias", true)?;
    fields.ignore(&["projection_dim", "tie_word_embeddings"]);
    let config = VisionConfig {
        class_token: true,
        patch_bias: true,
        pre_layernorm: false,
        layer_norm_eps: fields.or("layer_norm_eps", 1e-6)?,
        ..sizes(&fields, [1408, 6144, 39, 16], 14, HiddenAct::Gelu)?
    };
    fields.finish()?;
    Ok(config)
}

/// The sizes all towers have: width, feed-forward width, blocks and heads are `default` where the file does not say.
fn sizes(fields: &Fields, default: [usize; 4], patch: usize, act: HiddenAct) -> Result<VisionConfig> {
    Ok(VisionConfig {
        hidden_size: fields.or("hidden_size", default[0])?,
        intermediate_size: fields.or("intermediate_size", default[1])?,
        num_hidden_layers: fields.or("num_hidden_layers", default[2])?,
        num_attention_heads: fields.or("num_attention_heads", default[3])?,
        image_size: fields.or("image_size", 224)?,
        patch_size: fields.or("patch_size", patch)?,
        hidden_act: fields.or("hidden_act", act)?,
        positions: PositionKind::Learned,
        ..VisionConfig::default()
    })
}

/// A text tower, and the width of what SigLIP's gives.
fn text(fields: Fields, kind: DualKind) -> Result<(TextConfig, usize)> {
    let clip = kind == DualKind::Clip;
    fields.only("attention_dropout", 0.0)?;
    fields.only("dropout", 0.0)?;
    fields.ignore(&["tie_word_embeddings"]);
    let either = |a: usize, b: usize| if clip { a } else { b };
    let hidden_size = fields.or("hidden_size", either(512, 768))?;
    let projection = match kind {
        DualKind::Clip => {
            fields.ignore(&["projection_dim"]);
            0
        }
        DualKind::Siglip => fields.or("projection_size", hidden_size)?,
    };
    let config = TextConfig {
        hidden_size,
        vocab_size: fields.or("vocab_size", either(49_408, 32_000))?,
        intermediate_size: fields.or("intermediate_size", either(2048, 3072))?,
        num_hidden_layers: fields.or("num_hidden_layers", 12)?,
        num_attention_heads: fields.or("num_attention_heads", either(8, 12))?,
        max_position_embeddings: fields.or("max_position_embeddings", either(77, 64))?,
        hidden_act: fields.or("hidden_act", activation(kind))?,
        layer_norm_eps: fields.or("layer_norm_eps", if clip { 1e-5 } else { 1e-6 })?,
        eos_token_id: fields.or("eos_token_id", 49_407)?,
    };
    fields.finish()?;
    Ok((config, projection))
}

fn activation(kind: DualKind) -> HiddenAct {
    match kind {
        DualKind::Clip => HiddenAct::QuickGelu,
        DualKind::Siglip => HiddenAct::GeluPytorchTanh,
    }
}

/// The reference's configuration of a dual encoder.
pub(super) fn write_dual(config: &DualConfig) -> Result<Map<String, Value>> {
    let kind = config.kind;
    let vision = write_vision(&config.vision, kind, config.projection_dim)?;
    Ok(table(match kind {
        DualKind::Clip => json!({
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            "projection_dim": config.projection_dim,
            "logit_scale_init_value": (1.0f64 / 0.07).ln(),
            "vision_config": vision,
            "text_config": write_text(config),
        }),
        DualKind::Siglip => json!({
            "architectures": ["SiglipModel"],
            "model_type": "siglip",
            "vision_config": vision,
            "text_config": write_text(config),
        }),
    }))
}

/// The reference's configuration of an image tower.
///
/// # Errors
/// When the tower is not such a one; the field that stands in the way is named.
pub(super) fn write_vision(config: &VisionConfig, kind: DualKind, projection_dim: usize) -> Result<Map<String, Value>> {
    let clip = kind == DualKind::Clip;
    let family = if clip { "CLIP" } else { "SigLIP" };
    tower_is(
        family,
        [
            ("class_token", config.class_token, clip),
            ("pre_layernorm", config.pre_layernorm, clip),
            ("patch_bias", config.patch_bias, !clip),
        ],
    )?;
    let mut map = write_sizes(config)?;
    map.insert("model_type".into(), if clip { "clip_vision_model" } else { "siglip_vision_model" }.into());
    if clip {
        map.insert("projection_dim".into(), projection_dim.into());
    }
    Ok(map)
}

/// Fails where switches of a tower, each with its value and the family's, differ: names them all.
fn tower_is(family: &str, switches: [(&str, bool, bool); 3]) -> Result<()> {
    let mut differing = switches.iter().filter(|(_, found, expected)| found != expected);
    let Some((first, _, expected)) = differing.next() else {
        return Ok(());
    };
    let others: String = differing.map(|(name, _, expected)| format!(", {name} {expected}")).collect();
    only_ours(&format!("vision.{first}"), &format!("must be {expected}{others} for {family}"))
}

/// The reference's configuration of BLIP-2's image encoder.
pub(super) fn write_blip2_vision(config: &VisionConfig) -> Result<Map<String, Value>> {
    tower_is(
        "BLIP-2",
        [
            ("class_token", config.class_token, true),
            ("pre_layernorm", config.pre_layernorm, false),
            ("patch_bias", config.patch_bias, true),
        ],
    )?;
    let mut map = write_sizes(config)?;
    map.insert("model_type".into(), "blip_2_vision_model".into());
    map.insert("qkv_bias".into(), true.into());
    Ok(map)
}

/// What all towers say alike.
fn write_sizes(config: &VisionConfig) -> Result<Map<String, Value>> {
    if config.patch_margin > 0 {
        return only_ours("vision.patch_margin", "is 0 in all of them");
    }
    if config.patch_hidden.is_some() {
        return only_ours("vision.patch_hidden", "is in none of them");
    }
    if config.positions != PositionKind::Learned {
        return only_ours("vision.positions", "is `learned` in all of them");
    }
    Ok(table(json!({
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_channels": 3,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "hidden_act": config.hidden_act,
        "layer_norm_eps": config.layer_norm_eps,
        "attention_dropout": 0.0,
    })))
}

fn write_text(config: &DualConfig) -> Map<String, Value> {
    let text = &config.text;
    let mut map = table(json!({
        "vocab_size": text.vocab_size,
        "hidden_size": text.hidden_size,
        "intermediate_size": text.intermediate_size,
        "num_hidden_layers": text.num_hidden_layers,
        "num_attention_heads": text.num_attention_heads,
        "max_position_embeddings": text.max_position_embeddings,
        "hidden_act": text.hidden_act,
        "layer_norm_eps": text.layer_norm_eps,
        "attention_dropout": 0.0,
        "eos_token_id": text.eos_token_id,
    }));
    map.extend(table(match config.kind {
        DualKind::Clip => json!({ "model_type": "clip_text_model", "projection_dim": config.projection_dim }),
        DualKind::Siglip => json!({ "model_type": "siglip_text_model", "projection_size": config.projection_dim }),
    }));
    map
}
