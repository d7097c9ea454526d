//! Configurations of CLIP's and SigLIP's towers and of BLIP-2's image encoder.

use super::fields::Fields;
use crate::config::{DualConfig, DualKind, HiddenAct, PositionKind, TextConfig, VisionConfig};
use crate::error::Result;

/// `CLIPModel` and `SiglipModel`.
pub(super) fn dual(fields: Fields, kind: DualKind) -> Result<DualConfig> {
    let vision = vision(fields.table("vision_config")?, kind)?;
    let (text, own) = text(fields.table("text_config")?, kind)?;
    let projection_dim = match kind {
        DualKind::Clip => fields.or("projection_dim", 512)?,
        DualKind::Siglip => own,
    };
    fields.ignore(&["logit_scale_init_value"]);
    fields.finish()?;
    Ok(DualConfig {
        kind,
        vision,
        text,
        projection_dim,
    })
}

/// An image tower.
pub(super) fn vision(fields: Fields, kind: DualKind) -> Result<VisionConfig> {
    let clip = kind == DualKind::Clip;
    fields.only("num_channels", 3)?;
    fields.only("attention_dropout", 0.0)?;
    fields.only("dropout", 0.0)?;
    match kind {
        // The width of a projection that belongs to the dual encoder.
        DualKind::Clip => fields.ignore(&["projection_dim"]),
        DualKind::Siglip => fields.only("vision_use_head", true)?,
    }
    let config = VisionConfig {
        patch_margin: 0,
        patch_hidden: None,
        class_token: clip,
        patch_bias: !clip,
        pre_layernorm: clip,
        layer_norm_eps: fields.or("layer_norm_eps", if clip { 1e-5 } else { 1e-6 })?,
        ..sizes(
            &fields,
            [768, 3072, 12, 12],
            if clip { 32 } else { 16 },
            activation(kind),
        )?
    };
    fields.finish()?;
    Ok(config)
}

/// BLIP-2's image encoder.
pub(super) fn blip2_vision(fields: Fields) -> Result<VisionConfig> {
    fields.only("attention_dropout", 0.0)?;
    fields.only("qkv_bias", true)?;
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
