//! Configurations as the models' owners publish them and as `transformers` 4 and 5 save them: sparse, full, and with fields of
//! other trainers.

use model::hf;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::path::Path;

/// What reading a folder with this `config.json` says, as text.
fn read<T: Debug>(config: &Value, read: impl Fn(&Path) -> model::Result<T>) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    read(folder.path()).map_or_else(|error| error.to_string(), |found| format!("{found:?}"))
}

fn decoder(config: &Value) -> String {
    read(config, hf::decoder_config)
}

/// `config` with other values of some fields; null takes one out.
fn with(config: &Value, changes: Value) -> Value {
    let mut config = config.clone();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => config.as_object_mut().unwrap().remove(name),
            value => config.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    config
}

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "attention_bias": false, "attention_dropout": 0.0, "bos_token_id": 1,
        "eos_token_id": 2, "hidden_act": "silu", "hidden_size": 576, "initializer_range": 0.04, "intermediate_size": 1536,
        "is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false, "model_type": "llama",
        "num_attention_heads": 9, "num_hidden_layers": 30, "num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1,
        "rms_norm_eps": 1e-5, "rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.42.3", "use_cache": true,
        "vocab_size": 49152, "transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16"}}
    })
}

fn qwen() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645,
        "hidden_act": "silu", "hidden_size": 896, "initializer_range": 0.02, "intermediate_size": 4864,
        "max_position_embeddings": 32768, "max_window_layers": 21, "model_type": "qwen2", "num_attention_heads": 14,
        "num_hidden_layers": 24, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "sliding_window": 32768,
        "tie_word_embeddings": true, "torch_dtype": "bfloat16", "use_cache": true, "use_mrope": false,
        "use_sliding_window": false, "vocab_size": 151936
    })
}

#[test]
fn decoders_are_the_same_however_their_file_was_saved() {
    let newer = |theta: f64| {
        json!({"torch_dtype": null, "dtype": "bfloat16", "rope_theta": null, "rope_scaling": null,
        "rope_parameters": {"rope_theta": theta, "rope_type": "default"}})
    };
    let unsloth = json!({"unsloth_fixed": true, "unsloth_version": "2024.9", "pad_token_id": 7});
    let mistral = json!({"model_type": "mistral", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2,
        "num_hidden_layers": 2, "sliding_window": 16, "rope_theta": 1e4});
    let types = |kind: &str, count: usize| json!({"layer_types": vec![kind; count]});
    for (published, changes) in [
        (llama(), newer(1e5)),
        (llama(), unsloth.clone()),
        (llama(), types("full_attention", 30)),
        (llama(), json!({"head_dim": 64, "partial_rotary_factor": 1.0, "pruned_heads": {}, "is_decoder": false})),
        (qwen(), newer(1e6)),
        (qwen(), unsloth),
        (qwen(), with(&types("full_attention", 24), json!({"sliding_window": null}))),
        (mistral.clone(), newer(1e4)),
        (mistral.clone(), with(&types("sliding_attention", 2), json!({"attention_bias": false, "mlp_bias": false}))),
    ] {
        let (before, after) = (decoder(&published), decoder(&with(&published, changes.clone())));
        assert!(before.starts_with("(DecoderConfig"), "{before}");
        // A head's width may be said or follow from the others.
        let plain = |text: &str| text.replace("head_dim: Some(64)", "head_dim: None");
        let slides = |text: &str| text.replace("full_attention_layers: 21", "");
        assert_eq!(slides(&plain(&before)), slides(&plain(&after)), "{changes}");
    }
    assert!(decoder(&llama()).contains("rope_theta: 100000.0"));
}

#[test]
fn fields_with_an_effect_are_named_with_their_value() {
    for (config, changes, expected) in [
        (llama(), json!({"rope_interleaved": true}), "field `rope_interleaved`: is not supported (its value is true)"),
        (llama(), json!({"pruned_heads": {"0": [1]}}), "field `pruned_heads`"),
        (llama(), json!({"partial_rotary_factor": 0.5}), "field `partial_rotary_factor`"),
        (llama(), json!({"quantization_config": {"bits": 4}}), "field `quantization_config`"),
        (llama(), json!({"layer_types": ["full_attention"]}), "field `layer_types`"),
        (llama(), json!({"sliding_window": 64}), "field `sliding_window`"),
        (
            llama(),
            json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}, "rope_parameters": {"rope_theta": 1e5}}),
            "field `rope_parameters`: and `rope_scaling`",
        ),
        (
            llama(),
            json!({"rope_parameters": {"rope_theta": 1e5, "partial_rotary_factor": 0.5}}),
            "`rope_parameters.partial_rotary_factor`",
        ),
        (qwen(), json!({"use_mrope": true}), "field `use_mrope`"),
    ] {
        let said = decoder(&with(&config, changes));
        assert!(said.contains("config.json: ") && said.contains(expected), "{said}");
    }
}

fn llava() -> Value {
    json!({
        "architectures": ["LlavaForConditionalGeneration"], "ignore_index": -100, "image_token_index": 32000,
        "model_type": "llava", "pad_token_id": 32001, "projector_hidden_act": "gelu",
        "text_config": {"_name_or_path": "lmsys/vicuna-7b-v1.5", "architectures": ["LlamaForCausalLM"],
            "max_position_embeddings": 4096, "model_type": "llama", "rms_norm_eps": 1e-5, "torch_dtype": "float16",
            "vocab_size": 32064},
        "tie_word_embeddings": false, "torch_dtype": "float16", "transformers_version": "4.36.0.dev0",
        "vision_config": {"hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "model_type": "clip_vision_model",
            "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000},
        "vision_feature_layer": -2, "vision_feature_select_strategy": "default", "vocab_size": 32064
    })
}

#[test]
fn llava_takes_what_its_class_takes_for_what_its_file_leaves_out() {
    let whole = |config: &Value| read(config, hf::vlm_config);
    let published = whole(&llava());
    for part in [
        "image_size: 336",
        "vocab_size: 32064",
        "image_token: Some(32000)",
        "num_hidden_layers: 32",
        "hidden_size: 4096",
    ] {
        assert!(published.contains(part), "{part}: {published}");
    }
    let sparse = json!({"vision_config": null, "image_token_index": null, "projector_hidden_act": null,
        "vision_feature_layer": null, "vision_feature_select_strategy": null, "ignore_index": null});
    assert_eq!(whole(&with(&llava(), sparse)), published);
    let newer =
        json!({"torch_dtype": null, "dtype": "float16", "image_seq_length": 576, "multimodal_projector_bias": true});
    assert_eq!(whole(&with(&llava(), newer)), published);
    // BLIP-2's class takes OPT for a language model that its file does not name.
    let blip = whole(&json!({"model_type": "blip-2", "text_config": {}, "image_token_index": 1}));
    assert!(blip.contains("language model `opt` is not supported"), "{blip}");
}

/// What old versions wrote into every table, whatever it was for.
fn every_default() -> Value {
    let text = r#"{
        "_name_or_path": "", "add_cross_attention": false, "architectures": null, "bad_words_ids": null, "bos_token_id": null,
        "chunk_size_feed_forward": 0, "cross_attention_hidden_size": null, "decoder_start_token_id": null,
        "diversity_penalty": 0.0, "do_sample": false, "early_stopping": false, "encoder_no_repeat_ngram_size": 0,
        "finetuning_task": null, "id2label": {"0": "LABEL_0"}, "is_decoder": false, "is_encoder_decoder": false,
        "label2id": {"LABEL_0": 0}, "length_penalty": 1.0, "max_length": 20, "min_length": 0, "no_repeat_ngram_size": 0,
        "num_beam_groups": 1, "num_beams": 1, "num_return_sequences": 1, "output_attentions": false,
        "output_hidden_states": false, "output_scores": false, "pruned_heads": {}, "repetition_penalty": 1.0,
        "return_dict": true, "return_dict_in_generate": false, "sep_token_id": null, "temperature": 1.0,
        "tie_encoder_decoder": false, "tie_word_embeddings": true, "tokenizer_class": null, "top_k": 50, "top_p": 1.0,
        "torch_dtype": null, "torchscript": false, "transformers_version": "4.16.0.dev0", "typical_p": 1.0,
        "use_bfloat16": false, "dropout": 0.0, "projection_dim": 512, "initializer_factor": 1.0, "initializer_range": 0.02
    }"#;
    serde_json::from_str(text).unwrap()
}

#[test]
fn encoders_are_read_beside_every_default_of_their_class() {
    let sizes = json!({"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24,
        "patch_size": 14, "image_size": 336});
    let tower = |kind: &str| with(&with(&every_default(), sizes.clone()), json!({"model_type": kind}));
    let config = |config: Value| read(&config, hf::vision_config);
    let clip = config(json!({"model_type": "clip", "vision_config": sizes.clone()}));
    assert!(clip.starts_with("VisionConfig") && clip.contains("image_size: 336"), "{clip}");
    let old = json!({"model_type": "clip", "vision_config": tower("clip_vision_model"), "text_config_dict": null,
        "vision_config_dict": sizes, "logit_scale_init_value": 2.6592, "projection_dim": 768});
    assert_eq!(config(old), clip);
    assert_eq!(config(tower("clip_vision_model")), clip);
    for kind in ["siglip", "blip-2"] {
        let said = config(json!({"model_type": kind, "vision_config": tower("any")}));
        assert!(said.starts_with("VisionConfig"), "{kind}: {said}");
    }
}

#[test]
fn numbers_that_only_python_writes_harm_nothing_where_nobody_reads_them() {
    let says = |field: &str, constant: &str| {
        let folder = tempfile::tempdir().unwrap();
        let text = with(&llama(), json!({field: "HERE"})).to_string().replace("\"HERE\"", constant);
        std::fs::write(folder.path().join("config.json"), text).unwrap();
        hf::decoder_config(folder.path()).map_or_else(|error| error.to_string(), |_| "read".into())
    };
    for constant in ["NaN", "Infinity", "-Infinity"] {
        assert_eq!(says("length_penalty", constant), "read");
        let said = says("rope_theta", constant);
        assert!(said.contains("field `rope_theta`") && said.contains(constant), "{said}");
        let said = says("unknown", constant);
        assert!(said.contains("field `unknown`") && said.contains(constant), "{said}");
    }
    assert!(says("rope_theta", "nan").contains("config.json"), "no such constant");
}
