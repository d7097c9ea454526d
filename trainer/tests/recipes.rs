//! The recipes that come with Lenslet: each is read, and of those that start from trained parts two steps are taken, as they are
//! written but for the sizes.

#[path = "common/parts.rs"]
mod common;

use common::parts;
use lenslet::recipe::Recipe;
use model::hf::{self, Model};
use model::weights::TensorFile;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn recipes() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    let files = fs::read_dir(folder).expect("recipes").map(|entry| entry.expect("a file").path());
    let mut files: Vec<PathBuf> = files.collect();
    files.sort();
    files
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Trains two steps of a recipe in `root`, its parts and data there, and loads what comes out.
fn train(root: &Path, name: &str, vision: &str, settings: &[&str]) -> Model {
    let recipe = recipes().into_iter().find(|path| path.file_stem().is_some_and(|stem| stem == name));
    let out = root.join(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(["train", "--recipe", text(&recipe.expect(name)), "--out", text(&out)]);
    let phase = if name == "blip2-stage1" { "phase1" } else { "phase2" };
    let short = [format!("{phase}.steps=2"), format!("{phase}.warmup=1"), "run.dtype=f32".into()];
    for setting in short.iter().map(String::as_str).chain(settings.iter().copied()) {
        command.args(["--set", setting]);
    }
    let folders = [
        ("LENSLET_CACHE", "cache"),
        ("VISION", vision),
        ("BERT", "bert"),
        ("DECODER", "decoder"),
        ("QFORMER", "blip2-stage1"),
        ("STAGE1", "llava-stage1"),
        ("CAPTIONS", "captions.tar"),
        ("NANO_DATA", "data.json"),
        ("NANO_IMAGES", ""),
        ("LLAVA_PRETRAIN", ""),
        ("LLAVA_INSTRUCT", ""),
    ];
    for (variable, place) in folders {
        command.env(variable, root.join(place));
    }
    let output = command.output().expect("the binary starts");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    hf::load(&out, &engine::Device::cpu(), engine::DType::F32, true).expect(name).0
}

#[test]
fn a_recipe_that_needs_data_says_in_its_first_line_where_it_comes_from() {
    let mut needy = 0;
    for path in recipes() {
        let text = fs::read_to_string(&path).expect("a recipe");
        let drawn = text.contains("source = \"scenes\"");
        let first = text.lines().next().unwrap_or_default();
        assert_ne!(first.starts_with("# Needs "), drawn, "{}: {first}", path.display());
        needy += usize::from(!drawn);
    }
    assert!(needy >= 10, "{needy}");
}

/// The class of `transformers` that a run's folder is for.
fn class(run: &Path) -> String {
    let config: serde_json::Value =
        serde_json::from_slice(&fs::read(run.join("config.json")).expect("config.json")).expect("JSON");
    config["architectures"][0].as_str().unwrap_or("none").to_string()
}

/// The images and answers again, as a tar shard.
fn captions(root: &Path) {
    let mut shard = tar::Builder::new(fs::File::create(root.join("captions.tar")).expect("a file"));
    for i in 0..6 {
        shard.append_path_with_name(root.join(format!("{i}.png")), format!("{i}.png")).expect("an image");
        let caption = if i % 2 == 0 { "red is it" } else { "blue" };
        let mut header = tar::Header::new_gnu();
        header.set_size(caption.len() as u64);
        header.set_mode(0o644);
        shard.append_data(&mut header, format!("{i}.txt"), caption.as_bytes()).expect("a caption");
    }
    shard.finish().expect("a shard");
}

/// What makes a Q-Former small.
const SMALL: [&str; 5] = [
    "model.qformer.hidden_size=16",
    "model.qformer.num_hidden_layers=2",
    "model.qformer.num_attention_heads=2",
    "model.qformer.intermediate_size=32",
    "model.qformer.num_query_tokens=4",
];

#[test]
fn every_recipe_is_read_and_called_as_its_file() {
    let files = recipes();
    assert!(files.len() >= 15, "{files:?}");
    for file in files {
        let recipe = Recipe::load(&file, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(Some(recipe.run.name.as_str()), file.file_stem().and_then(|stem| stem.to_str()));
        let again = Recipe::parse(&recipe.to_toml(), &file, &[]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(again, recipe, "{}", file.display());
    }
}

#[test]
fn blip_2_in_two_stages() {
    let root = parts();
    let root = root.path();
    captions(root);
    let (first, second) = (root.join("blip2-stage1"), root.join("blip2-stage2"));
    let batch = ["phase1.batch_size=3", "phase1.accumulate=2"];
    let trained = train(root, "blip2-stage1", "blip2", &batch);
    let Model::Vlm(trained) = trained else { panic!("{trained:?}") };
    assert!(trained.qformer.expect("a Q-Former").config().text);

    let batch = ["phase2.batch_size=3", "phase2.accumulate=2"];
    train(root, "blip2-stage2", "blip2", &batch);
    assert_eq!(class(&second), "Blip2ForConditionalGeneration");
    // It went on from the first stage's queries, by two steps of its warm-up.
    let queries = [&first, &second].map(|run| number(run, "query_tokens"));
    assert!(queries[0] != queries[1] && (queries[0] - queries[1]).abs() < 1e-3, "{queries:?}");

    // A published first stage does as well.
    fs::remove_dir_all(&second).expect("a run");
    let published = format!("pretrained.qformer={}", text(&root.join("blip2")));
    train(root, "blip2-stage2", "blip2", &[&batch[..], &[&published]].concat());
    let queries = [&root.join("blip2"), &second].map(|run| number(run, "query_tokens"));
    assert!(queries[0] != queries[1] && (queries[0] - queries[1]).abs() < 1e-3, "{queries:?}");
}

/// The first number of a tensor.
fn number(run: &Path, name: &str) -> f32 {
    let file = TensorFile::open(&run.join("model.safetensors")).expect("weights");
    let bytes = file.stored(name).expect(name).bytes[..4].try_into();
    f32::from_le_bytes(bytes.expect("four bytes"))
}

#[test]
fn llava_in_two_stages() {
    let root = parts();
    for file in ["blip_laion_cc_sbu_558k.json", "llava_v1_5_mix665k.json"] {
        fs::copy(root.path().join("data.json"), root.path().join(file)).expect("a copy");
    }
    let batch = ["phase2.batch_size=3", "phase2.accumulate=2", "data.max_tokens=64"];
    for name in ["llava-stage1", "llava-stage2", "llava-stage2-lora"] {
        train(root.path(), name, "vision", &batch);
        assert_eq!(class(&root.path().join(name)), "LlavaForConditionalGeneration");
    }
    assert!(root.path().join("llava-stage2-lora/adapter/adapter_model.safetensors").is_file());
}

#[test]
fn a_q_former_between_frozen_parts() {
    let root = parts();
    fs::copy(root.path().join("data.json"), root.path().join("llava_instruct_150k.json")).expect("a copy");
    let images = format!("data.images={}", text(root.path()));
    let batch = ["phase2.batch_size=3", "data.max_tokens=64", images.as_str()];
    train(root.path(), "qformer-lora", "vision", &[&SMALL[..], &batch].concat());
    // BLIP-2's class has no encoder with CLIP's norm in front.
    assert_eq!(class(&root.path().join("qformer-lora")), "none");
    assert!(root.path().join("qformer-lora/adapter/adapter_model.safetensors").is_file());
}

#[test]
fn a_nano_model_of_ones_own_data() {
    let root = parts();
    let batch = ["phase2.batch_size=3", "tokenizer.size=300", "phase2.eval_every=1"];
    train(root.path(), "nano", "vision", &batch);
}
