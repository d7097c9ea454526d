//! Configurations of Llama (2, 3, SmolLM2), Mistral and Qwen2.

use super::fields::{Fields, only_ours, table};
use crate::config::{DecoderConfig, HiddenAct, ImageAttention, ImagePositions, RopeScaling};
use crate::error::Result;
use serde_json::{Map, Value, json};

/// Model types this reads.
pub(super) const TYPES: [&str; 3] = ["llama", "mistral", "qwen2"];

/// What the reference takes for missing fields.
struct Defaults {
    vocab_size: usize,
    intermediate_size: usize,
    num_key_value_heads: Option<usize>,
    max_position_embeddings: usize,
}

/// The configuration and the size of the vocabulary.
pub(super) fn read(fields: Fields, kind: &str) -> Result<(DecoderConfig, usize)> {
    let defaults = match kind {
        "mistral" => Defaults {
            vocab_size: 32_000,
            intermediate_size: 14_336,
            num_key_value_heads: Some(8),
            max_position_embeddings: 131_072,
        },
        "qwen2" => Defaults {
            vocab_size: 151_936,
            intermediate_size: 22_016,
            num_key_value_heads: Some(32),
            max_position_embeddings: 32_768,
        },
        _ => Defaults {
            vocab_size: 32_000,
            intermediate_size: 11_008,
            num_key_value_heads: None,
            max_position_embeddings: 2_048,
        },
    };
    let vocab_size = fields.or("vocab_size", defaults.vocab_size)?;
    let heads = fields.or("num_attention_heads", 32)?;
    let groups = fields.optional("num_key_value_heads")?;
    let given = fields.has("num_key_value_heads");
    let layers = fields.or("num_hidden_layers", 32)?;
    let bias = kind != "qwen2" && fields.or("attention_bias", false)?;
    let (rope_theta, rope_scaling) = rope(&fields)?;
    let (sliding_window, full_attention_layers) = window(&fields, kind)?;
    check_layer_types(&fields, layers, |i| sliding_window.is_some() && i >= full_attention_layers)?;
    fields.only("attention_dropout", 0.0)?;
    let config = DecoderConfig {
        hidden_size: fields.or("hidden_size", 4096)?,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: groups.unwrap_or(match given {
            true => heads,
            false => defaults.num_key_value_heads.unwrap_or(heads),
        }),
        head_dim: fields.optional("head_dim")?,
        intermediate_size: fields.or("intermediate_size", defaults.intermediate_size)?,
        hidden_act: fields.or("hidden_act", HiddenAct::Silu)?,
        qkv_bias: bias || kind == "qwen2",
        o_bias: bias,
        mlp_bias: kind == "llama" && fields.or("mlp_bias", false)?,
        rope_theta,
        rope_scaling,
        sliding_window,
        full_attention_layers,
        rms_norm_eps: fields.or("rms_norm_eps", 1e-6)?,
        tie_word_embeddings: fields.or("tie_word_embeddings", false)?,
        max_position_embeddings: fields.or("max_position_embeddings", defaults.max_position_embeddings)?,
        embedding_multiplier: 1.0,
        dropout: 0.0,
        image_attention: ImageAttention::Causal,
        image_positions: ImagePositions::Sequential,
    };
    fields.finish()?;
    Ok((config, vocab_size))
}

/// Base and scaling of the rotary frequencies, in the fields of old files or the table of new ones.
fn rope(fields: &Fields) -> Result<(f64, Option<RopeScaling>)> {
    let new = fields.table("rope_parameters")?;
    let old = fields.table("rope_scaling")?;
    let theta = new.or("rope_theta", fields.or("rope_theta", 10_000.0)?)?;
    if !old.is_empty() && !new.is_empty() {
        return fields.bad("rope_parameters", "and `rope_scaling` are both there, and only one can count; keep one");
    }
    let table = if old.is_empty() { new } else { old };
    let kind = table.optional::<String>("type")?;
    let kind = table.optional::<String>("rope_type")?.or(kind).unwrap_or("default".into());
    let scaling = match kind.as_str() {
        "default" => None,
        "linear" => Some(RopeScaling::Linear { factor: table.need("factor")? }),
        "llama3" => Some(RopeScaling::Llama3 {
            factor: table.need("factor")?,
            low_freq_factor: table.need("low_freq_factor")?,
            high_freq_factor: table.need("high_freq_factor")?,
            original_max_position_embeddings: table.need("original_max_position_embeddings")?,
        }),
        other => {
            return table.bad("rope_type", format!("`{other}` is not supported; default, linear and llama3 are"));
        }
    };
    table.finish()?;
    Ok((theta, scaling))
}

/// The sliding window, and how many blocks at the start do without.
fn window(fields: &Fields, kind: &str) -> Result<(Option<usize>, usize)> {
    match kind {
        "mistral" => {
            let default = (!fields.has("sliding_window")).then_some(4096);
            Ok((fields.optional("sliding_window")?.or(default), 0))
        }
        "qwen2" => {
            let used = fields.or("use_sliding_window", false)?;
            let size = fields.or("sliding_window", 4096)?;
            let full = fields.or("max_window_layers", 28)?;
            Ok((used.then_some(size), full))
        }
        _ => Ok((None, 0)),
    }
}

/// Newer files say of every block what the older fields say of all; they have to agree.
fn check_layer_types(fields: &Fields, layers: usize, slides: impl Fn(usize) -> bool) -> Result<()> {
    let Some(types) = fields.optional::<Vec<String>>("layer_types")? else {
        return Ok(());
    };
    let expected = |i: usize| {
        if slides(i) { "sliding_attention" } else { "full_attention" }
    };
    match types.len() == layers && (0..layers).all(|i| types[i] == expected(i)) {
        true => Ok(()),
        false => fields.bad(
            "layer_types",
            "does not follow from num_hidden_layers, use_sliding_window, sliding_window and max_window_layers",
        ),
    }
}

/// The reference's configuration of a decoder.
///
/// # Errors
/// When no architecture of the reference computes what it does; the field that stands in the way is named.
pub(super) fn write(config: &DecoderConfig, vocab_size: usize) -> Result<Map<String, Value>> {
    if config.embedding_multiplier != 1.0 {
        return only_ours("decoder.embedding_multiplier", "is 1 in all of them");
    }
    if config.image_attention != ImageAttention::Causal {
        return only_ours("decoder.image_attention", "is `causal` in all of them");
    }
    if config.image_positions != ImagePositions::Sequential {
        return only_ours("decoder.image_positions", "is `sequential` in all of them");
    }
    let kind = kind_of(config)?;
    let mut map = table(json!({
        "architectures": [architecture(kind)],
        "model_type": kind,
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_size(),
        "hidden_act": config.hidden_act,
        "max_position_embeddings": config.max_position_embeddings,
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "rope_scaling": config.rope_scaling,
        "attention_dropout": 0.0,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_cache": true,
    }));
    match kind {
        "llama" => map.extend(table(json!({ "attention_bias": config.qkv_bias, "mlp_bias": config.mlp_bias }))),
        "mistral" => map.extend(table(json!({ "sliding_window": config.sliding_window }))),
        _ => map.extend(table(json!({
            "use_sliding_window": config.sliding_window.is_some(),
            "sliding_window": config.sliding_window.unwrap_or(4096),
            "max_window_layers": config.full_attention_layers,
        }))),
    }
    Ok(map)
}

/// The family that has the biases and the window of `config`.
fn kind_of(config: &DecoderConfig) -> Result<&'static str> {
    let (qkv, o, mlp) = (config.qkv_bias, config.o_bias, config.mlp_bias);
    let full = config.full_attention_layers;
    match (config.sliding_window, qkv, o, mlp) {
        (None, true, true, _) | (None, false, false, _) => Ok("llama"),
        (Some(_), false, false, false) if full == 0 => Ok("mistral"),
        (_, true, false, false) => Ok("qwen2"),
        _ => only_ours(
            "decoder.qkv_bias",
            "and the other biases, with the sliding window there is, are not together in any of them",
        ),
    }
}

fn architecture(kind: &str) -> &'static str {
    match kind {
        "mistral" => "MistralForCausalLM",
        "qwen2" => "Qwen2ForCausalLM",
        _ => "LlamaForCausalLM",
    }
}
