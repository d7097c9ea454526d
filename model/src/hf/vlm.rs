//! Configurations of LLaVA and BLIP-2.

use super::fields::Fields;
use super::{decoder, towers};
use crate::config::{AdapterConfig, AdapterKind, DualKind, HiddenAct, QFormerConfig, VisionConfig, VlmConfig};
use crate::error::Result;

/// `LlavaForConditionalGeneration`.
pub(super) fn llava(fields: Fields) -> Result<VlmConfig> {
    let table = fields.table("vision_config")?;
    table.only("model_type", "clip_vision_model".to_string())?;
    let mut vision = towers::vision(table, DualKind::Clip)?;
    vision.feature_layer = Some(fields.or("vision_feature_layer", -2)?);
    let strategy: String = fields.or("vision_feature_select_strategy", "default".into())?;
    let class_token = match strategy.as_str() {
        "default" => false,
        "full" => true,
        _ => {
            return fields.bad(
                "vision_feature_select_strategy",
                format!("`{strategy}`, expected default or full"),
            );
        }
    };
    let (decoder, vocab_size) = language_model(&fields)?;
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
    let slots = config.image_tokens();
    if let Some(said) = fields
        .optional::<usize>("image_seq_length")?
        .filter(|&said| said != slots)
    {
        // The reference's default, 576, is written to files it is wrong for.
        if said != 576 {
            return fields.bad("image_seq_length", format!("{said}, but an image has {slots} features"));
        }
    }
    fields.ignore(&["ignore_index", "tie_word_embeddings"]);
    fields.finish()?;
    Ok(config)
}

/// BLIP-2's image encoder and Q-Former, for texts, too, where it compares and matches (`retrieval`).
pub(super) fn blip2_parts(fields: &Fields, retrieval: bool) -> Result<(VisionConfig, QFormerConfig, usize)> {
    let vision = towers::blip2_vision(fields.table("vision_config")?)?;
    let table = fields.table("qformer_config")?;
    let text = table.or("use_qformer_text_input", false)?;
    if text != retrieval {
        return table.bad(
            "use_qformer_text_input",
            format!(
                "{text}, but the model {} texts",
                ["has no heads for", "compares"][usize::from(retrieval)]
            ),
        );
    }
    table.only("position_embedding_type", "absolute".to_string())?;
    let width = table.or("encoder_hidden_size", 1408)?;
    if width != vision.hidden_size {
        return table.bad(
            "encoder_hidden_size",
            format!("{width}, but the images' tokens are {} wide", vision.hidden_size),
        );
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
    table.finish()?;
    Ok((vision, qformer, vocab_size))
}

/// `Blip2ForConditionalGeneration`.
pub(super) fn blip2(fields: Fields) -> Result<VlmConfig> {
    let (vision, qformer, _) = blip2_parts(&fields, false)?;
    let (decoder, vocab_size) = language_model(&fields)?;
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

fn language_model(fields: &Fields) -> Result<(crate::config::DecoderConfig, usize)> {
    let table = fields.table("text_config")?;
    let kind: String = table.or("model_type", "llama".into())?;
    if !decoder::TYPES.contains(&kind.as_str()) {
        let known = decoder::TYPES.join(", ");
        return table.bad(
            "model_type",
            format!("language model `{kind}` is not supported; {known} are"),
        );
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
