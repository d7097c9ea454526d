//! Folders of models: what is written is read again, and what does not fit is said by file, tensor and shapes.

use engine::{DType, Device, Graph};
use lenslet_tests::{Expected, cases};
use model::hf::{self, Model, Part};
use model::weights::{Entry, TensorFile, write_shards, write_tensors};
use model::{QFormerConfig, Texts, VlmConfig};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn case(name: &str) -> PathBuf {
    cases()[0].with_file_name(name)
}

fn outputs(folder: &Path, case: &Path) -> Vec<(String, Vec<f64>)> {
    let (model, params) = hf::load(folder, &Device::cpu(), DType::F32, true).unwrap();
    let trace = model.trace(&Graph::inference(&params), &Expected::open(case).inputs(&params));
    let trace = trace.unwrap().into_iter();
    trace.map(|(name, x)| (name, x.tensor().to_f64().unwrap())).collect()
}

#[test]
fn every_family_is_written_and_read_again_to_the_same_numbers() {
    for case in cases() {
        let folder = TempDir::new().unwrap();
        let (model, params) = hf::load(&case, &Device::cpu(), DType::F32, false).unwrap();
        hf::save(folder.path(), &model, &params).unwrap();
        assert_eq!(outputs(folder.path(), &case), outputs(&case, &case), "{}", case.display());
        let read = |folder: &Path| -> Value {
            serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap()
        };
        // A Mistral without a window computes what a Llama does.
        if !case.ends_with("mistral-no-window") {
            assert_eq!(read(folder.path())["architectures"], read(&case)["architectures"]);
        }
    }
}

#[test]
fn a_q_former_that_starts_from_a_bert_reads_texts_as_it_does() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/bert");
    let mut config = VlmConfig {
        vocab_size: 43,
        qformer: Some(hf::qformer_config(&folder, &QFormerConfig::default()).unwrap()),
        ..VlmConfig::default()
    };
    config.vision.hidden_size = 16;
    let parts = [(Part::Qformer, folder.clone())];
    let (vlm, params) = hf::assemble(&config, &parts, &Device::cpu(), DType::F32, 0, (&[], 0.0, None)).unwrap();
    let expected = TensorFile::open(&folder.join("expected.safetensors")).unwrap();
    let ids = expected.tensor("input_ids", &Device::cpu()).unwrap().to_vec::<i32>().unwrap();
    let rows: Vec<Vec<u32>> = ids.chunks(7).map(|row| row.iter().map(|&id| id as u32).collect()).collect();
    let qformer = vlm.qformer.as_ref().unwrap();
    let out = qformer.text(&Graph::inference(&params), &Texts::pad(&rows, 0)).unwrap();
    let expected = expected.tensor("last_hidden_state", &Device::cpu()).unwrap().to_f64().unwrap();
    let off = out.tensor().to_f64().unwrap().into_iter().zip(expected).map(|(ours, theirs)| (ours - theirs).abs());
    assert!(off.fold(0.0, f64::max) < 1e-5);

    // Queries have the texts' feed-forward layers; the two words that BERT does not know are the mean of its own.
    let value = |name: &str| params.master(params.find(name).unwrap()).to_f64().unwrap();
    let layer = "qformer.encoder.layer.1";
    for part in ["intermediate{}.dense.weight", "output{}.LayerNorm.bias"] {
        let of = |kind: &str| value(&format!("{layer}.{}", part.replace("{}", kind)));
        assert_eq!(of("_query"), of(""));
    }
    let words = value("embeddings.word_embeddings.weight");
    let mean = (0..41).map(|row| words[row * 16]).sum::<f64>() / 41.0;
    assert!((words[42 * 16] - mean).abs() < 1e-6);
}

#[test]
fn shards_hold_what_one_file_would() {
    let case = case("llama2-full-heads");
    let folder = TempDir::new().unwrap();
    let file = TensorFile::open(&case.join("model.safetensors")).unwrap();
    let tensor = |name: &str| Entry::new(name, file.tensor(name, &Device::cpu()).unwrap());
    let entries: Vec<Entry<'_>> = file.names().map(tensor).collect();
    write_shards(folder.path(), &entries, 4000).unwrap();
    std::fs::copy(case.join("config.json"), folder.path().join("config.json")).unwrap();
    let files = std::fs::read_dir(folder.path()).unwrap().count();
    assert!(files > 4, "{files} files");
    assert_eq!(outputs(folder.path(), &case), outputs(&case, &case));

    // A shard that the index does not name as it is.
    let index = folder.path().join("model.safetensors.index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    std::fs::write(&index, text.replace("model.norm.weight", "model.other.weight")).unwrap();
    let error = hf::load(folder.path(), &Device::cpu(), DType::F32, true).unwrap_err().to_string();
    assert!(error.contains("model.norm.weight") && error.contains("index"), "{error}");
}

/// A case's folder with another configuration or other tensors; what reading it says.
struct Altered {
    folder: TempDir,
}

impl Altered {
    fn new(name: &str) -> Altered {
        let folder = TempDir::new().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(case(name).join(file), folder.path().join(file)).unwrap();
        }
        Altered { folder }
    }

    fn config(self, change: impl FnOnce(&mut Value)) -> Altered {
        let path = self.folder.path().join("config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        change(&mut config);
        std::fs::write(&path, config.to_string()).unwrap();
        self
    }

    /// Leaves out a tensor and adds zeros of another name and shape.
    fn tensors(self, without: &str, with: Option<(&str, &[usize])>) -> Altered {
        let path = self.folder.path().join("model.safetensors");
        let file = TensorFile::open(&path).unwrap();
        let kept = file.names().filter(|name| *name != without);
        let mut entries: Vec<_> =
            kept.map(|name| Entry::new(name, file.tensor(name, &Device::cpu()).unwrap())).collect();
        if let Some((name, shape)) = with {
            entries.push(Entry::new(name, engine::Tensor::zeros(&Device::cpu(), DType::F32, shape).unwrap()));
        }
        write_tensors(&path, &entries, &[]).unwrap();
        self
    }

    fn says(self, parts: &[&str]) {
        let error = hf::load(self.folder.path(), &Device::cpu(), DType::F32, true).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "`{part}` is not in {error}");
        }
    }
}

#[test]
fn missing_extra_and_misshapen_tensors_are_named_with_both_shapes() {
    const NORM: &str = "model.norm.weight";
    let file = "model.safetensors";
    Altered::new("llama2-full-heads").tensors(NORM, None).says(&[file, NORM, "missing", "(16)"]);
    Altered::new("llama2-full-heads").tensors(NORM, Some((NORM, &[17]))).says(&[file, NORM, "[17]", "(16)"]);
    Altered::new("llama2-full-heads").tensors("", Some(("model.layers.9.extra", &[2]))).says(&[
        file,
        "model.layers.9.extra",
        "not a parameter",
    ]);
    // Without biases in the configuration, those in the file would be passed over.
    Altered::new("llama2-biases").config(|config| config["mlp_bias"] = false.into()).says(&[
        file,
        "_proj.bias",
        "not a parameter",
    ]);
    // A tied output layer that differs from the embedding is not tied.
    Altered::new("llama2-grouped-tied")
        .tensors("", Some(("lm_head.weight", &[37, 16])))
        .says(&["lm_head.weight", "tie_word_embeddings"]);
}

#[test]
fn unknown_architectures_and_fields_are_named() {
    Altered::new("llama2-full-heads").config(|config| config["model_type"] = "gpt_neox".into()).says(&[
        "config.json",
        "model_type",
        "gpt_neox",
        "llama",
    ]);
    Altered::new("llama2-full-heads")
        .config(|config| config["rope_scaling"] = json!({ "rope_type": "yarn", "factor": 2.0 }))
        .says(&["config.json", "rope_scaling.rope_type", "yarn"]);
    Altered::new("llama2-full-heads").config(|config| config["logits_soft_cap"] = 30.into()).says(&[
        "config.json",
        "logits_soft_cap",
        "not supported",
    ]);
    Altered::new("llama2-full-heads")
        .config(|config| config["hidden_size"] = "wide".into())
        .says(&["config.json", "hidden_size"]);
    Altered::new("clip-gelu").config(|config| config["vision_config"]["hidden_act"] = "mish".into()).says(&[
        "config.json",
        "vision_config.hidden_act",
        "mish",
    ]);
    Altered::new("llava").config(|config| config["image_seq_length"] = 7.into()).says(&["image_seq_length", "7", "4"]);
    Altered::new("llava").config(|config| config["image_token_index"] = 40.into()).says(&["image_token", "40"]);
    // Sizes that make no model, or one of all memory, are refused before anything is allocated.
    Altered::new("llama2-full-heads")
        .config(|config| config["num_attention_heads"] = 0.into())
        .says(&["num_attention_heads"]);
    Altered::new("llama2-full-heads")
        .config(|config| config["vocab_size"] = 1_000_000_000_000u64.into())
        .says(&["embed_tokens", "1000000000000"]);
}

#[test]
fn models_the_reference_has_no_class_for_say_why() {
    let config = model::VlmConfig { vocab_size: 20, ..model::VlmConfig::default() };
    let (vlm, params) = model::Vlm::build(&config, &Device::cpu(), DType::F32, 0).unwrap();
    let hf::Format::Own(why) = hf::format(&config) else { panic!() };
    assert!(why.contains("image_token"), "{why}");
    let folder = TempDir::new().unwrap();
    hf::save(folder.path(), &Model::Vlm(Box::new(vlm)), &params).unwrap();
    let (Model::Vlm(read), again) = hf::load(folder.path(), &Device::cpu(), DType::F32, true).unwrap() else {
        panic!()
    };
    assert_eq!(read.config, config);
    for id in params.ids() {
        assert_eq!(params.master(id).to_bytes().unwrap(), again.master(id).to_bytes().unwrap());
    }
}

/// The dotted paths of all fields, tables' own among them.
fn paths(value: &Value, prefix: &str) -> Vec<String> {
    let Value::Object(map) = value else { return Vec::new() };
    let one = |(key, value): (&String, &Value)| {
        let path = format!("{prefix}/{key}");
        let below = paths(value, &path);
        std::iter::once(path).chain(below).collect::<Vec<_>>()
    };
    map.iter().flat_map(one).collect()
}

/// Every field of every family's configuration, set to values that are too small, too large or of another type: reading
/// answers with a model or an error, never with a panic or by taking all memory.
#[test]
fn no_value_of_a_field_makes_reading_panic() {
    let values = [
        json!(null),
        json!(0),
        json!(1),
        json!(3),
        json!(-1),
        json!(u64::MAX),
        json!(1u64 << 40),
        json!(1e300),
        json!("x"),
        json!(true),
        json!([7]),
        json!({ "a": 1 }),
    ];
    let (mut read, mut refused) = (0, 0);
    for case in cases() {
        let name = case.file_name().unwrap().to_str().unwrap().to_string();
        if !case.join("model.safetensors").is_file() {
            continue;
        }
        let original = std::fs::read(case.join("config.json")).unwrap();
        let original: Value = serde_json::from_slice(&original).unwrap();
        let altered = Altered::new(&name);
        for path in paths(&original, "") {
            for value in &values {
                let mut config = original.clone();
                *config.pointer_mut(&path).unwrap() = value.clone();
                std::fs::write(altered.folder.path().join("config.json"), config.to_string()).unwrap();
                match hf::load(altered.folder.path(), &Device::cpu(), DType::F32, true) {
                    Ok(_) => read += 1,
                    Err(error) => {
                        refused += 1;
                        assert!(error.to_string().len() > 20, "{path} = {value}: {error}");
                    }
                }
            }
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused");
}
