//! Folders that hold a low-rank adapter alone, read on top of their base.

use engine::{DType, Device, Params, Tensor};
use model::hf;
use model::weights::{Entry, PYTORCH, write_tensors};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const DIM: usize = 16;

fn base() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/llama2-full-heads")
}

fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7 + seed * 13) % 11) as f32 / 10.0 - 0.5).collect()
}

fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
    Tensor::from_slice(&Device::cpu(), values, shape).unwrap()
}

/// The settings PEFT writes for rank 2 on queries and values, changed.
fn settings(changes: Value) -> Value {
    let mut settings = json!({
        "alpha_pattern": {}, "auto_mapping": null, "base_model_name_or_path": base(), "bias": "none", "corda_config": null,
        "exclude_modules": null, "fan_in_fan_out": false, "inference_mode": true, "init_lora_weights": true,
        "layer_replication": null, "layers_pattern": null, "layers_to_transform": null, "loftq_config": {}, "lora_alpha": 8,
        "lora_bias": false, "lora_dropout": 0.05, "megatron_config": null, "megatron_core": "megatron.core",
        "modules_to_save": null, "peft_type": "LORA", "r": 2, "rank_pattern": {}, "revision": null,
        "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM", "trainable_token_indices": null,
        "use_dora": false, "use_rslora": false, "runtime_config": {"ephemeral_gpu_offload": false}
    });
    for (name, value) in changes.as_object().unwrap() {
        settings[name] = value.clone();
    }
    settings
}

/// A layer's name, its rank and the factor that is expected.
type Layer = (&'static str, usize, f32);

const Q0: &str = "model.layers.0.self_attn.q_proj";
const V0: &str = "model.layers.0.self_attn.v_proj";
const Q1: &str = "model.layers.1.self_attn.q_proj";
const V1: &str = "model.layers.1.self_attn.v_proj";

fn adapter(changes: Value, layers: &[Layer], whole: &[(&str, &[usize])]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut entries = Vec::new();
    for (seed, (layer, r, _)) in layers.iter().enumerate() {
        let name = |matrix: &str| format!("base_model.model.{layer}.lora_{matrix}.weight");
        entries.push(Entry::new(name("A"), tensor(&numbers(r * DIM, seed), &[*r, DIM])));
        entries.push(Entry::new(name("B"), tensor(&numbers(DIM * r, seed + 5), &[DIM, *r])));
    }
    for (name, shape) in whole {
        let values = numbers(shape.iter().product(), 3);
        entries.push(Entry::new(format!("base_model.model.{name}"), tensor(&values, shape)));
    }
    write_tensors(&folder.path().join("adapter_model.safetensors"), &entries, PYTORCH).unwrap();
    std::fs::write(folder.path().join("adapter_config.json"), settings(changes).to_string()).unwrap();
    folder
}

fn load(folder: &Path) -> model::Result<Params> {
    Ok(hf::load(folder, &Device::cpu(), DType::F32, true)?.1)
}

fn values(params: &Params, name: &str) -> Vec<f32> {
    params.master(params.find(name).unwrap()).to_vec().unwrap()
}

#[test]
fn an_adapter_is_folded_into_its_base_as_its_settings_say() {
    let all: [Layer; 4] = [(Q0, 2, 4.0), (V0, 2, 4.0), (Q1, 2, 4.0), (V1, 2, 4.0)];
    let scaled = |scale: f32| all.map(|(layer, r, _)| (layer, r, scale)).to_vec();
    let root = 8.0 / 2f32.sqrt();
    let cases: [(Value, Vec<Layer>); 9] = [
        (json!({}), all.to_vec()),
        (json!({"use_rslora": true}), scaled(root)),
        (json!({"target_modules": r"^(?!.*mlp).*\.(q|v)_proj"}), all.to_vec()),
        (json!({"target_modules": [Q0]}), all[..1].to_vec()),
        (json!({"exclude_modules": ["v_proj"]}), vec![all[0], all[2]]),
        (json!({"layers_to_transform": [1]}), all[2..].to_vec()),
        (json!({"rank_pattern": {"q_proj": 4}}), vec![(Q0, 4, 2.0), all[1], (Q1, 4, 2.0), all[3]]),
        (json!({"alpha_pattern": {"layers.1.self_attn.v_proj": 2}}), vec![all[0], all[1], all[2], (V1, 2, 1.0)]),
        (
            json!({"rank_pattern": {"^model.layers.0.self_attn.q_proj": 1}, "alpha_pattern": {".*0.*q_proj": 3}, "use_rslora": true}),
            vec![(Q0, 1, 3.0), (V0, 2, root), (Q1, 2, root), (V1, 2, root)],
        ),
    ];
    let before = load(&base()).unwrap();
    for (changes, layers) in cases {
        let folder = adapter(changes.clone(), &layers, &[]);
        let after = load(folder.path()).unwrap_or_else(|error| panic!("{changes}: {error}"));
        for id in before.ids() {
            let name = before.name(id);
            let mut expected = values(&before, name);
            let place = layers.iter().position(|(layer, ..)| name == format!("{layer}.weight"));
            if let Some(seed) = place {
                let (_, r, scale) = layers[seed];
                let (a, b) = (numbers(r * DIM, seed), numbers(DIM * r, seed + 5));
                for (i, value) in expected.iter_mut().enumerate() {
                    *value += scale * (0..r).map(|k| b[i / DIM * r + k] * a[k * DIM + i % DIM]).sum::<f32>();
                }
            }
            let found = values(&after, name);
            let far = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(far < 1e-5, "{changes}: {name}: {far}");
        }
    }
}

#[test]
fn all_linear_layers_and_whole_tensors() {
    let base_params = load(&base()).unwrap();
    let matrices = |name: &&str| {
        name.contains("layers.") && base_params.shape(base_params.find(name).unwrap()).to_vec().len() == 2
    };
    let names: Vec<&str> = base_params.ids().map(|id| base_params.name(id)).filter(matrices).collect();
    let mut entries = Vec::new();
    for name in &names {
        let shape = base_params.shape(base_params.find(name).unwrap());
        let layer = name.strip_suffix(".weight").unwrap();
        entries.push(Entry::new(
            format!("base_model.model.{layer}.lora_A.weight"),
            tensor(&numbers(2 * shape.last(), 1), &[2, shape.last()]),
        ));
        entries.push(Entry::new(
            format!("base_model.model.{layer}.lora_B.weight"),
            tensor(&numbers(2 * shape.rows(), 2), &[shape.rows(), 2]),
        ));
    }
    let folder = adapter(json!({"target_modules": "all-linear"}), &[], &[]);
    let path = folder.path().join("adapter_model.safetensors");
    write_tensors(&path, &entries, PYTORCH).unwrap();
    let after = load(folder.path()).unwrap();
    assert!(names.len() == 14 && names.iter().all(|name| values(&after, name) != values(&base_params, name)));
    entries.pop();
    entries.pop();
    write_tensors(&path, &entries, PYTORCH).unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(error.contains("has no adapter in the file, but target_modules names it"), "{error}");

    let layers = [(Q0, 2, 4.0), (V0, 2, 4.0), (Q1, 2, 4.0), (V1, 2, 4.0)];
    let folder =
        adapter(json!({"modules_to_save": ["norm"]}), &layers, &[("model.norm.modules_to_save.weight", &[DIM])]);
    assert_eq!(values(&load(folder.path()).unwrap(), "model.norm.weight"), numbers(DIM, 3));
}

#[test]
fn what_does_not_fit_is_named() {
    let layers: [Layer; 4] = [(Q0, 2, 4.0), (V0, 2, 4.0), (Q1, 2, 4.0), (V1, 2, 4.0)];
    let whole: (&str, &[usize]) = ("model.extra.weight", &[3]);
    let none: &[(&str, &[usize])] = &[];
    for (changes, layers, whole, expected) in [
        (json!({"peft_type": "IA3"}), &layers[..], none, "field `peft_type`"),
        (json!({"use_dora": true}), &layers, none, "field `use_dora`"),
        (json!({"lora_bias": true}), &layers, none, "field `lora_bias`"),
        (
            json!({"init_lora_weights": "pissa_niter_4"}),
            &layers,
            none,
            "field `init_lora_weights`: `pissa_niter_4` changes",
        ),
        (json!({"loftq_config": {"loftq_bits": 4}}), &layers, none, "field `loftq_config`"),
        (json!({"trainable_token_indices": [1]}), &layers, none, "field `trainable_token_indices`"),
        (json!({"layer_replication": [[0, 1]]}), &layers, none, "field `layer_replication`"),
        (json!({"target_modules": "("}), &layers, none, "field `target_modules`: "),
        (json!({"target_modules": null}), &layers, none, "field `target_modules`: is missing"),
        (
            json!({"target_modules": ["q_proj"]}),
            &layers,
            none,
            "`model.layers.0.self_attn.v_proj`: has an adapter, but target_modules",
        ),
        (json!({}), &layers[..3], none, "`model.layers.1.self_attn.v_proj`: has no adapter in the file"),
        (json!({"rank_pattern": {"q_proj": 3}}), &layers, none, "the rank is 3"),
        (json!({"modules_to_save": ["lm_head"]}), &layers, none, "field `modules_to_save`: `lm_head` has no tensor"),
        (json!({}), &layers, &[whole], "`model.extra.weight`: is not of the base model"),
        (json!({"base_model_name_or_path": "org/none"}), &layers, none, "hf download org/none"),
        (json!({"base_model_name_or_path": null}), &layers, none, "field `base_model_name_or_path`: is missing"),
    ] {
        let folder = adapter(changes.clone(), layers, whole);
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("adapter_") && error.contains(expected), "{changes}: {error}");
    }
}

#[test]
fn what_the_folder_lacks_is_its_bases() {
    let layers: [Layer; 4] = [(Q0, 2, 4.0), (V0, 2, 4.0), (Q1, 2, 4.0), (V1, 2, 4.0)];
    let base = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(self::base().join(file), base.path().join(file)).unwrap();
    }
    let preprocessor = json!({"image_processor_type": "CLIPImageProcessor", "size": 8, "crop_size": 8});
    std::fs::write(base.path().join("preprocessor_config.json"), preprocessor.to_string()).unwrap();
    let tokenizer = model::Tokenizer::word_level(["a"]).unwrap();
    tokenizer.save(base.path()).unwrap();
    let folder = adapter(json!({"base_model_name_or_path": base.path()}), &layers, &[]);
    assert_eq!(model::ImageProcessor::open(folder.path()).unwrap().size, 8);
    assert_eq!(model::Tokenizer::open(folder.path()).unwrap().id("a"), tokenizer.id("a"));
    model::Chat::open(folder.path(), &tokenizer).unwrap();
    assert!(hf::decoder_config(folder.path()).is_ok());
    // Its own tokenizer comes first.
    model::Tokenizer::word_level(["b"]).unwrap().save(folder.path()).unwrap();
    assert_eq!(model::Tokenizer::open(folder.path()).unwrap().id("a"), None);
    // An adapter on an adapter has no weights to stand on.
    let second = adapter(json!({"base_model_name_or_path": folder.path()}), &layers, &[]);
    assert!(load(second.path()).unwrap_err().to_string().contains("is an adapter itself"));
}

#[test]
fn a_tied_output_layer_is_the_embedding_or_refused() {
    let layers: [Layer; 4] = [(Q0, 2, 4.0), (V0, 2, 4.0), (Q1, 2, 4.0), (V1, 2, 4.0)];
    let tied = base().with_file_name("qwen2-tied");
    let [embedding, head] = ["model.embed_tokens.modules_to_save.weight", "lm_head.modules_to_save.weight"];
    let shape: &[usize] = &[43, DIM];
    let read = |saved: Value, whole: &[(&str, &[usize])]| {
        let changes = json!({"base_model_name_or_path": tied, "modules_to_save": saved});
        load(adapter(changes, &layers, whole).path())
    };
    let both = read(json!(["embed_tokens", "lm_head"]), &[(embedding, shape), (head, shape)]);
    assert_eq!(values(&both.unwrap(), "model.embed_tokens.weight"), numbers(43 * DIM, 3));
    for (saved, whole, expected) in [
        (Value::Null, "lm_head.weight", "is an output layer by itself"),
        (json!(["lm_head"]), head, "field `modules_to_save`: names one of"),
        (json!(["embed_tokens"]), embedding, "field `modules_to_save`: names one of"),
    ] {
        let error = read(saved, &[(whole, shape)]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
