//! Configurations of LLaVA and BLIP-2.

use super::fields::{Fields, only_ours, table};
use super::{decoder, towers};
use crate::config::{AdapterConfig, AdapterKind, DualKind, HiddenAct, QFormerConfig, VisionConfig, VlmConfig};
use crate::error::Result;
use crate::qformer::QFormer;
use serde_json::{Map, Value, json};

/// `LlavaForConditionalGeneration`.
pub(super) fn llava(fields: Fields) -> Result<VlmConfig> {
    let table = fields.table_or("vision_config", clip_large)?;
    let kind = match table.or("model_type", "clip_vision_model".to_string())?.as_str() {
        "clip_vision_model" => DualKind::Clip,
        "siglip_vision_model" => DualKind::Siglip,
        other => {
            let message =
                format!("image tower `{other}` is not supported; clip_vision_model and siglip_vision_model are");
            return table.bad("model_type", message);
        }
    };
    let mut vision = towers::vision(table, kind, false)?;
    vision.feature_layer = Some(fields.or("vision_feature_layer", -2)?);
    let strategy: String = fields.or("vision_feature_select_strategy", "default".into())?;
    let class_token = match (strategy.as_str(), kind) {
        ("default", DualKind::Clip) => false,
        ("full", kind) => kind == DualKind::Clip,
        ("default", DualKind::Siglip) => {
            return fields.bad(
                "vision_feature_select_strategy",
                "`default` would leave out the first patch, for SigLIP has no class token; expected full",
            );
        }
        _ => {
            return fields.bad("vision_feature_select_strategy", format!("`{strategy}`, expected default or full"));
        }
    };
    let (decoder, vocab_size) = language_model(&fields, "llama")?;
    let config = VlmConfig {
        vision,
        qformer: None,
        adapter: AdapterConfig {
            kind: AdapterKind::Mlp,
            hidden_size: None,
            linear: false,
            hidden_act: fields.or("projector_hidden_act", HiddenAct::Gelu)?,
            bias: fields.or("multimodal_projector_bias", true)?,
            class_token,
            positions: false,
        },
        decoder,
        vocab_size: fields.optional("vocab_size")?.unwrap_or(vocab_size),
        image_token: Some(image_token(&fields, Some(32_000))?),
        lora: Default::default(),
    };
    config.validate()?;
    let slots = config.image_tokens();
    if let Some(said) = fields.optional::<usize>("image_seq_length")?.filter(|&said| said != slots) {
        // The reference's default, 576, is written to files it is wrong for.
        if said != 576 {
            return fields.bad("image_seq_length", format!("{said}, but an image has {slots} features"));
        }
    }
    fields.ignore(&["ignore_index", "tie_word_embeddings"]);
    fields.finish()?;
    Ok(config)
}

/// CLIP ViT-L/14 at 336 pixels: what the reference takes for a LLaVA that says nothing of its image encoder.
fn clip_large() -> Value {
    json!({
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "image_size": 336,
        "patch_size": 14,
    })
}

/// BLIP-2's image encoder and Q-Former, for texts, too, where it compares and matches (`retrieval`).
pub(super) fn blip2_parts(fields: &Fields, retrieval: bool) -> Result<(VisionConfig, QFormerConfig, usize)> {
    let vision = towers::blip2_vision(fields.table("vision_config")?)?;
    let table = fields.table("qformer_config")?;
    let text = table.or("use_qformer_text_input", false)?;
    if text != retrieval {
        return table.bad(
            "use_qformer_text_input",
            format!("{text}, but the model {} texts", ["has no heads for", "compares"][usize::from(retrieval)]),
        );
    }
    table.only("position_embedding_type", "absolute".to_string())?;
    let width = table.or("encoder_hidden_size", 1408)?;
    if width != vision.hidden_size {
        return table
            .bad("encoder_hidden_size", format!("{width}, but the images' tokens are {} wide", vision.hidden_size));
    }
    let vocab_size = table.or("vocab_size", 30_522)?;
    let qformer = QFormerConfig {
        num_query_tokens: fields.or("num_query_tokens", 32)?,
        hidden_size: table.or("hidden_size", 768)?,
        num_hidden_layers: table.or("num_hidden_layers", 12)?,
        num_attention_heads: table.or("num_attention_heads", 12)?,
        intermediate_size: table.or("intermediate_size", 3072)?,
        cross_attention_frequency: table.or("cross_attention_frequency", 2)?,
        max_position_embeddings: table.or("max_position_embeddings", 512)?,
        hidden_act: table.or("hidden_act", HiddenAct::Gelu)?,
        text,
        layer_norm_eps: table.or("layer_norm_eps", 1e-12)?,
        dropout: table.or("hidden_dropout_prob", 0.1)?,
        attention_dropout: table.or("attention_probs_dropout_prob", 0.1)?,
        projection: fields.or("image_text_hidden_size", 256)?,
        positions_in_keys: false,
        norm_first: false,
    };
    table.ignore(&["tie_word_embeddings"]);
    table.finish()?;
    Ok((vision, qformer, vocab_size))
}

/// `Blip2ForConditionalGeneration`.
pub(super) fn blip2(fields: Fields) -> Result<VlmConfig> {
    let (vision, qformer, _) = blip2_parts(&fields, false)?;
    let (decoder, vocab_size) = language_model(&fields, "opt")?;
    fields.only("use_decoder_only_language_model", true)?;
    let image_token = image_token(&fields, None)?;
    fields.ignore(&["tie_word_embeddings"]);
    fields.finish()?;
    let config = VlmConfig {
        vision,
        qformer: Some(qformer),
        adapter: AdapterConfig {
            kind: AdapterKind::Qformer,
            linear: true,
            positions: false,
            ..AdapterConfig::default()
        },
        decoder,
        vocab_size,
        image_token: Some(image_token),
        lora: Default::default(),
    };
    Ok(config)
}

/// BLIP-2's `Blip2ForImageTextRetrieval`.
pub(super) fn blip2_retrieval(fields: Fields) -> Result<(VisionConfig, QFormerConfig, usize)> {
    let parts = blip2_parts(&fields, true)?;
    // The language model is not part of it.
    fields.ignore(&[
        "text_config",
        "use_decoder_only_language_model",
        "image_token_index",
        "image_token_id",
        "tie_word_embeddings",
    ]);
    fields.finish()?;
    Ok(parts)
}

/// The language model; of type `default` where the file does not say.
fn language_model(fields: &Fields, default: &str) -> Result<(crate::config::DecoderConfig, usize)> {
    let table = fields.table("text_config")?;
    let kind: String = table.or("model_type", default.into())?;
    if !decoder::TYPES.contains(&kind.as_str()) {
        let known = decoder::TYPES.join(", ");
        return table.bad("model_type", format!("language model `{kind}` is not supported; {known} are"));
    }
    decoder::read(table, &kind)
}

fn image_token(fields: &Fields, default: Option<u32>) -> Result<u32> {
    let old = fields.optional("image_token_index")?;
    match fields.optional("image_token_id")?.or(old).or(default) {
        Some(id) => Ok(id),
        None => fields.bad("image_token_index", "is missing; it says where images stand in a text"),
    }
}

/// The reference's configuration of a vision-language model: LLaVA's or BLIP-2's.
///
/// # Errors
/// When neither computes what the model does; the field that stands in the way is named.
pub(super) fn write(config: &VlmConfig) -> Result<Map<String, Value>> {
    let Some(image_token) = config.image_token else {
        return only_ours("image_token", "is missing, so images stand in front of the texts");
    };
    let adapter = &config.adapter;
    if adapter.positions && adapter.kind != AdapterKind::Qformer {
        return only_ours("adapter.positions", "is false in all of them");
    }
    let mut map = match adapter.kind {
        AdapterKind::Mlp => write_llava(config)?,
        AdapterKind::Qformer => write_blip2(config)?,
        AdapterKind::Both => return only_ours("adapter.kind", "is `mlp` in LLaVA and `qformer` in BLIP-2, never both"),
    };
    map.insert("text_config".into(), decoder::write(&config.decoder, config.vocab_size)?.into());
    map.insert("tie_word_embeddings".into(), config.decoder.tie_word_embeddings.into());
    map.insert("image_token_index".into(), image_token.into());
    Ok(map)
}

fn write_llava(config: &VlmConfig) -> Result<Map<String, Value>> {
    let (adapter, vision) = (&config.adapter, &config.vision);
    let Some(layer) = vision.feature_layer else {
        return only_ours("vision.feature_layer", "is missing, but LLaVA takes features in front of the last norm");
    };
    if adapter.linear || adapter.hidden_size.is_some_and(|width| width != config.decoder.hidden_size) {
        return only_ours("adapter.linear", "and `adapter.hidden_size` are not in LLaVA");
    }
    let kind = if vision.class_token { DualKind::Clip } else { DualKind::Siglip };
    let mut tower = towers::write_vision(vision, kind, config.decoder.hidden_size)?;
    if kind == DualKind::Siglip {
        tower.insert("vision_use_head".into(), false.into());
    }
    let full = adapter.class_token || kind == DualKind::Siglip;
    Ok(table(json!({
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "vision_config": tower,
        "vision_feature_layer": layer,
        "vision_feature_select_strategy": if full { "full" } else { "default" },
        "projector_hidden_act": adapter.hidden_act,
        "multimodal_projector_bias": adapter.bias,
        "image_seq_length": config.image_tokens(),
    })))
}

fn write_blip2(config: &VlmConfig) -> Result<Map<String, Value>> {
    let Some(qformer) = &config.qformer else {
        return only_ours("qformer", "is missing");
    };
    if qformer.text || qformer.norm_first || qformer.positions_in_keys {
        return only_ours("qformer.text", "`norm_first` and `positions_in_keys` are false in a whole BLIP-2");
    }
    if !config.adapter.linear || !config.adapter.bias || config.vision.feature_layer.is_some() {
        return only_ours("adapter.linear", "with a bias, and features behind the last norm, are BLIP-2's");
    }
    Ok(table(json!({
        "architectures": ["Blip2ForConditionalGeneration"],
        "model_type": "blip-2",
        "vision_config": towers::write_blip2_vision(&config.vision)?,
        "qformer_config": write_qformer(qformer, config.vision.hidden_size),
        "num_query_tokens": qformer.num_query_tokens,
        "use_decoder_only_language_model": true,
    })))
}

fn write_qformer(qformer: &QFormerConfig, image_dim: usize) -> Map<String, Value> {
    table(json!({
        "model_type": "blip_2_qformer",
        "hidden_size": qformer.hidden_size,
        "num_hidden_layers": qformer.num_hidden_layers,
        "num_attention_heads": qformer.num_attention_heads,
        "intermediate_size": qformer.intermediate_size,
        "cross_attention_frequency": qformer.cross_attention_frequency,
        "max_position_embeddings": qformer.max_position_embeddings,
        "encoder_hidden_size": image_dim,
        "hidden_act": qformer.hidden_act,
        "layer_norm_eps": qformer.layer_norm_eps,
        "hidden_dropout_prob": qformer.dropout,
        "attention_probs_dropout_prob": qformer.attention_dropout,
        "use_qformer_text_input": qformer.text,
    }))
}

/// The reference's configuration of BLIP-2's first stage.
pub(super) fn write_retrieval(vit: &VisionConfig, qformer: &QFormer) -> Result<Map<String, Value>> {
    let (config, vocab_size) = (qformer.config(), qformer.vocab_size());
    if !config.text || config.norm_first || config.positions_in_keys || vit.feature_layer.is_some() {
        return only_ours("qformer.text", "without `norm_first` and `positions_in_keys` is BLIP-2's first stage");
    }
    let mut table_of = write_qformer(config, vit.hidden_size);
    table_of.insert("vocab_size".into(), vocab_size.into());
    Ok(table(json!({
        "architectures": ["Blip2ForImageTextRetrieval"],
        "model_type": "blip-2",
        "vision_config": towers::write_blip2_vision(vit)?,
        "qformer_config": table_of,
        "num_query_tokens": config.num_query_tokens,
        "image_text_hidden_size": config.projection,
    })))
}
