//! Training from pretrained parts, from outside: a frozen image encoder, a new projector, a language model with adapters.

#[path = "common/parts.rs"]
mod common;

use common::folders::fixture;
use engine::{DType, Device, Params};
use model::hf::{self, Model};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

fn lenslet(arguments: &[&str], cache: &Path) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments).env("LENSLET_CACHE", cache);
    command.output().expect("the binary starts")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The parts and a recipe.
fn parts() -> TempDir {
    let root = common::parts();
    let recipe = "[run]\nname = \"parts\"\n[data]\nsource = \"llava\"\npath = \"ROOT/data.json\"\nimages = \"ROOT\"\n\
        [pretrained]\nvision = \"ROOT/vision\"\ndecoder = \"ROOT/decoder\"\n[model.adapter]\npositions = false\n\
        [model.lora.decoder]\nr = 2\ntarget_modules = [\"q_proj\", \"v_proj\"]\n\
        [phase2]\nsteps = 4\nbatch_size = 3\nlr = 1e-2\n\
        rules = [{ match = \"*lora_*\" }, { match = \"multi_modal_projector.*\" }, { match = \"*\", freeze = true }]\n\
        [eval]\nsamples = 2\nattention = 1\nmax_tokens = 4\n";
    let recipe = recipe.replace("ROOT", text(root.path()));
    fs::write(root.path().join("recipe.toml"), recipe).expect("written");
    root
}

fn train(root: &Path, out: &str, more: &[&str]) -> String {
    let (recipe, out) = (root.join("recipe.toml"), root.join(out));
    let mut arguments = vec!["train", "--recipe", text(&recipe), "--out", text(&out)];
    for setting in more {
        arguments.extend(["--set", setting]);
    }
    let output = lenslet(&arguments, &root.join("cache"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn load(folder: &Path) -> (Model, Params) {
    hf::load(folder, &Device::cpu(), DType::F32, true).expect("a model")
}

fn losses(run: &Path) -> Vec<f64> {
    let log = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics");
    let loss = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["loss"].as_f64().expect("a loss");
    log.lines().map(loss).collect()
}

#[test]
fn frozen_parts_stay_and_the_rest_is_a_llava_with_its_adapter_beside_it() {
    let root = parts();
    train(root.path(), "run", &[]);
    let run = root.path().join("run");
    let json = |name: &str| -> Value { serde_json::from_slice(&fs::read(run.join(name)).expect(name)).expect(name) };
    let config = json("config.json");
    assert_eq!(config["architectures"][0], "LlavaForConditionalGeneration");
    assert_eq!((&config["image_token_index"], &config["text_config"]["vocab_size"]), (&41.into(), &42.into()));
    assert_eq!(json("adapter/adapter_config.json")["base_model_name_or_path"], text(&root.path().join("decoder")));
    assert!(fs::read_to_string(run.join("README.md")).expect("a card").contains("library_name: transformers"));

    let (trained, (_, vision), (_, decoder)) =
        (load(&run).1, load(&fixture("clip-quick-gelu")), load(&fixture("llama2-full-heads")));
    let value = |params: &Params, name: &str| params.master(params.find(name).expect(name)).to_f64().expect(name);
    let frozen = "vision_model.encoder.layers.0.mlp.fc1.weight";
    assert_eq!(value(&trained, frozen), value(&vision, frozen));
    let same = "model.layers.1.mlp.up_proj.weight";
    assert_eq!(value(&trained, &format!("language_model.{same}")), value(&decoder, same));
    let adapted = "model.layers.0.self_attn.q_proj.weight";
    assert_ne!(value(&trained, &format!("language_model.{adapted}")), value(&decoder, adapted));
    // The token for images is new: its row is the mean of the others.
    let (new, old) =
        (value(&trained, "language_model.model.embed_tokens.weight"), value(&decoder, "model.embed_tokens.weight"));
    assert_eq!(new[..old.len()], old[..]);
    let mean = (0..41).map(|row| old[row * 16]).sum::<f64>() / 41.0;
    assert!((new[old.len()] - mean).abs() < 1e-6);

    let image = root.path().join("0.png");
    let asked =
        ["generate", "--model", text(&run), "--image", text(&image), "--prompt", "what is it", "--max-tokens", "3"];
    let answer = lenslet(&asked, &root.path().join("cache"));
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
    let seen = lenslet(&["inspect", "--model", text(&run)], &root.path().join("cache"));
    let seen = String::from_utf8_lossy(&seen.stdout).into_owned();
    let line = |part: &str| seen.lines().find(|line| line.trim_start().starts_with(part)).expect(part).to_string();
    assert!(line("vision_model").ends_with("frozen") && line("multi_modal_projector").ends_with("trained"), "{seen}");
}

#[test]
fn kept_features_change_no_loss_and_are_used_again() {
    let root = parts();
    train(root.path(), "plain", &[]);
    let first = train(root.path(), "kept", &["phase2.cache_features=true"]);
    let again = train(root.path(), "again", &["phase2.cache_features=true"]);
    assert!(first.contains("features    6 images") && !again.contains("features    6 images"));
    let of = |run: &str| losses(&root.path().join(run));
    assert_eq!(of("plain").len(), 4);
    assert_eq!((of("plain"), of("plain")), (of("kept"), of("again")));
}

#[test]
fn packed_batches_and_those_of_similar_length_learn() {
    let root = parts();
    train(root.path(), "plain", &[]);
    train(root.path(), "packed", &["phase2.packing=true", "data.max_tokens=60"]);
    let packed_and_kept = ["phase2.packing=true", "phase2.cache_features=true", "data.keep=false"];
    train(root.path(), "kept", &packed_and_kept);
    let of = |run: &str| losses(&root.path().join(run));
    for run in ["packed", "kept"] {
        for (plain, packed) in of("plain").iter().zip(of(run)) {
            assert!((plain / packed - 1.0).abs() < 1e-4, "{run}: {plain} {packed}");
        }
        assert_eq!(of(run).len(), 4);
    }
    train(root.path(), "grouped", &["data.group_by_length=true"]);
    assert_eq!(of("grouped").len(), 4);
}

#[test]
fn records_of_several_images_train_where_images_stand_within_the_text() {
    let root = parts();
    let record = |i: usize| {
        let part = |text: &str| json!({ "type": "text", "text": text });
        let (first, second) = (format!("{i}.png"), format!("{}.png", (i + 1) % 6));
        let image = json!({ "type": "image" });
        json!({ "images": [first, second], "split": if i < 4 { "train" } else { "heldout" }, "messages": [
            { "role": "user", "content": [part("what is "), image, part(" it "), image] },
            { "role": "assistant", "content": if i.is_multiple_of(2) { "red blue" } else { "blue red" } },
        ] })
    };
    let lines: Vec<String> = (0..6).map(|i| record(i).to_string()).collect();
    let path = root.path().join("two.jsonl");
    fs::write(&path, lines.join("\n")).expect("written");
    let path = format!("data.path={}", text(&path));
    let settings = ["data.source=messages", &path];
    train(root.path(), "plain", &settings);
    let packed = [&settings[..], &["phase2.packing=true", "phase2.cache_features=true"]].concat();
    train(root.path(), "packed", &packed);
    let of = |run: &str| losses(&root.path().join(run));
    for (plain, packed) in of("plain").iter().zip(of("packed")) {
        assert!((plain / packed - 1.0).abs() < 1e-4, "{plain} {packed}");
    }
    // Held out, they are asked about with both.
    let splits = ["data.train_split=train", "data.heldout_split=heldout"];
    train(root.path(), "held", &[&settings[..], &splits].concat());
    let figures = fs::read(root.path().join("held/eval.json")).expect("figures");
    let figures: serde_json::Value = serde_json::from_slice(&figures).expect("JSON");
    assert_eq!((&figures["items.answers"], &figures["items.unasked"]), (&2.0.into(), &0.0.into()), "{figures}");
    let (recipe, out) = (root.path().join("recipe.toml"), root.path().join("out"));
    let mut arguments = vec!["train", "--recipe", text(&recipe), "--out", text(&out)];
    for setting in settings.iter().chain(&["phase2.independent_turns=true"]) {
        arguments.extend(["--set", setting]);
    }
    let refused = lenslet(&arguments, &root.path().join("cache"));
    let errors = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(errors.contains("two.jsonl:1: record `line 1`: image: 2 images; this run takes one"), "{errors}");
}

#[test]
fn what_does_not_go_together_is_said() {
    let root = parts();
    let recipe = root.path().join("recipe.toml");
    let out = root.path().join("out");
    let refused = |settings: &[&str], dry: bool| {
        let mut arguments = vec!["train", "--recipe", text(&recipe), "--out", text(&out)];
        settings.iter().for_each(|setting| arguments.extend(["--set", setting]));
        arguments.extend(dry.then_some("--dry-run"));
        let output = lenslet(&arguments, &root.path().join("cache"));
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{settings:?}: {errors}");
        assert!(!out.exists(), "{settings:?}");
        errors
    };
    let first = "phase2.rules=[{ match = \"vision_model.*\", freeze = true }";
    let shadowed = format!("{first}, {{ match = \"vision_model.encoder.*\" }}]");
    let (frozen, no_layer) =
        (format!("{first}, {{ match = \"language_model.*\", freeze = true }}]"), "no layer of this part is called");
    for (setting, naming) in [
        ("pretrained.vision=owner/absent", vec!["pretrained.vision", "hf download owner/absent"]),
        ("model.vision.hidden_size=32", vec!["model.vision.hidden_size: 32 here, 16 in ", "leave out"]),
        ("model.decoder.rope_theta=7.0", vec!["model.decoder.rope_theta: 7.0 here, "]),
        ("model.vision.image_size=13", vec!["model.vision.patch_size", "does not divide"]),
        ("phase2.rules=[]", vec!["phase2.cache_features: `vision_model.", "is trained", "freeze"]),
        (&shadowed, vec!["phase2.rules.1.match: `vision_model.encoder.*` fits only what earlier rules take"]),
        (&frozen, vec!["model.lora.decoder: the rules freeze these adapters"]),
        ("phase2.rules=[{ match = \"*\", freeze = true }]", vec!["phase2.rules: freeze every parameter"]),
        ("phase2.rules.0.match=*lora*x", vec!["phase2.rules.0.match: `*lora*x` fits no parameter"]),
        ("phase2.rules.1.layer_decay=0.9", vec!["phase2.rules.1.layer_decay"]),
        (
            "model.lora.decoder.target_modules=[\"q_prj\"]",
            vec!["model.lora.decoder.target_modules: ", no_layer, "`q_prj`; there are q_proj"],
        ),
        ("model.lora.decoder.target_modules=[\"q_proj\", \"v_prj\"]", vec![no_layer, "`v_prj`"]),
        (
            "model.lora.vision={ target_modules = [\"q_proj\", \"o_proj\"] }",
            vec!["model.lora.vision.target_modules", "`o_proj`", "out_proj"],
        ),
        (
            "model.lora.adapter={ target_modules = [\"q_proj\"] }",
            vec!["model.lora.adapter.target_modules", "linear_1, linear_2"],
        ),
        ("model.lora.vision.r=2", vec!["the recipe has no [model.lora.vision]"]),
        ("phase1.lr=1e-3", vec!["the recipe has no [phase1]"]),
        ("phase2.turns=2", vec!["phase2.turns: would change nothing"]),
        ("phase2.stochastic_rounding=true", vec!["phase2.stochastic_rounding"]),
        ("pretrained.model=x", vec!["pretrained.model", "leave out"]),
        ("tokenizer.kind=bpe", vec!["tokenizer", "leave out"]),
    ] {
        for dry in [false, true] {
            let errors = refused(&["phase2.cache_features=true", setting], dry);
            for part in &naming {
                assert!(errors.contains(part), "{setting}: `{part}` is not in {errors}");
            }
        }
    }
    // Adapters that one PEFT folder cannot hold are named before they are trained.
    let whole = format!("pretrained={{ model = \"{}\" }}", text(&root.path().join("llava")));
    train(root.path(), "llava", &["phase2.steps=1", "model.lora={}", "phase2.rules=[]"]);
    let differ =
        ["model.lora={ vision = { r = 4 }, decoder = { r = 2 } }", "phase2.rules=[]", "model.adapter={}", &whole];
    let errors = refused(&differ, true);
    assert!(errors.contains("model.lora: the parts' adapters differ"), "{errors}");
}

#[test]
fn images_of_another_size_have_their_positions_interpolated() {
    let root = parts();
    train(root.path(), "wide", &["model.vision.image_size=24", "phase2.steps=2"]);
    let run = root.path().join("wide");
    let positions = |folder: &Path| {
        let (model, params) = load(folder);
        let find = |name: &str| params.find(name).map(|id| params.master(id).to_f64().expect("numbers"));
        (model, find("vision_model.embeddings.position_embedding.weight").expect("positions"))
    };
    let (Model::Vlm(vlm), new) = positions(&run) else { panic!("no vision-language model") };
    let (_, old) = positions(&root.path().join("vision"));
    let (vision, dim) = (&vlm.config.vision, vlm.config.vision.hidden_size);
    assert_eq!((vision.image_size, new.len()), (24, vision.tokens() * dim));
    assert_eq!(model::ImageProcessor::open(&run).expect("a processor").size, 24);
    // The class token keeps its position; three patches a side become six, the corner by Keys' cubic at a quarter of a patch
    // beyond the first centre, the edge going on.
    assert_eq!((new[..dim].to_vec(), old.len(), new.len()), (old[..dim].to_vec(), 10 * dim, 37 * dim));
    let (near, far) = (1.10546875, -0.10546875);
    for channel in 0..dim {
        let patch = |i: usize| old[(1 + i) * dim + channel];
        let corner = near * near * patch(0) + near * far * (patch(1) + patch(3)) + far * far * patch(4);
        assert!((new[dim + channel] - corner).abs() < 1e-6, "{channel}");
    }
    // The resolved recipe says whose tokenizer it is, and is gone on with by itself.
    let resolved = fs::read_to_string(run.join("recipe.resolved.toml")).expect("a recipe");
    assert!(resolved.contains("kind = \"pretrained\"") && resolved.contains("image_size = 24"), "{resolved}");
    let output = lenslet(&["train", "--resume", "latest", "--out", text(&run)], &root.path().join("cache"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // A run of that size is a part like others.
    let back = format!("pretrained={{ model = \"{}\" }}", text(&run));
    train(root.path(), "back", &[&back, "model={ vision = { image_size = 12 } }", "phase2.rules=[]", "phase2.steps=1"]);
    let Model::Vlm(vlm) = load(&root.path().join("back")).0 else { panic!("no vision-language model") };
    assert_eq!(vlm.config.vision.image_size, 12);
}

/// The error of training that is refused before its first step.
fn refused(root: &Path, arguments: &[&str]) -> String {
    let recipe = root.join("recipe.toml");
    let output = lenslet(&[&["train", "--recipe", text(&recipe)], arguments].concat(), &root.join("cache"));
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_run_that_goes_on_reads_the_parts_it_was_begun_with() {
    let root = parts();
    let (whole, half) = (root.path().join("whole"), root.path().join("half"));
    train(root.path(), "whole", &[]);
    train(root.path(), "half", &["phase2.steps=2", "phase2.curve=constant"]);
    train(root.path(), "peace", &["phase2.curve=constant"]);
    let resume = ["--out", text(&half), "--resume", "latest", "--set", "phase2.curve=constant"];
    // What the run's tokenizer was made from may change: the checkpoint's own is taken, and learns the same.
    let file = root.path().join("decoder/tokenizer.json");
    let tokenizer = fs::read_to_string(&file).expect("a tokenizer");
    fs::write(&file, tokenizer.replace("\"red\":9", "\"redder\":9")).expect("written");
    let recipe = root.path().join("recipe.toml");
    let output = lenslet(&[&["train", "--recipe", text(&recipe)], &resume[..]].concat(), &root.path().join("cache"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(losses(&half), losses(&root.path().join("peace")));

    let weights = root.path().join("vision/model.safetensors");
    let mut bytes = fs::read(&weights).expect("weights");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&weights, &bytes).expect("written");
    let errors = refused(root.path(), &["--out", text(&whole), "--resume", "latest"]);
    assert!(
        errors.contains("pretrained.vision, model.safetensors: ") && errors.contains("but not the same"),
        "{errors}"
    );
}

#[test]
fn records_a_template_would_misread_are_named_before_the_first_step() {
    let root = parts();
    let file = root.path().join("data.json");
    let records: Vec<Value> = serde_json::from_slice(&fs::read(&file).expect("records")).expect("JSON");
    let out = root.path().join("run");
    let said = |i: usize, what: Value| {
        let mut records = records.clone();
        records[i]["conversations"] = what;
        fs::write(&file, Value::from(records).to_string()).expect("written");
    };
    let human = |text: &str| json!({ "from": "human", "value": text });
    let gpt = |text: &str| json!({ "from": "gpt", "value": text });
    for (what, named) in [
        (json!([human("<image>\nwhat is it"), gpt("red </s> blue")]), "answer: `</s>` in a text"),
        (json!([human("<image>\nwhat <s> is it"), gpt("red")]), "question: `<s>` in a text"),
        (json!([human("<image>\nwhat is it"), gpt("red"), human("and"), gpt("<unk>")]), "answer: `<unk>` in a text"),
    ] {
        said(3, what);
        let errors = refused(root.path(), &["--out", text(&out)]);
        assert!(errors.contains("data.json") && errors.contains("record `3`") && errors.contains(named), "{errors}");
        assert!(!out.join("metrics.jsonl").exists(), "no step was taken");
        train(root.path(), "accepted", &["data.max_bad=0.5"]);
        fs::remove_dir_all(root.path().join("accepted")).expect("removed");
    }
    // Two images where there is room for one.
    let two = json!([human("<image><image>\nwhat is it"), gpt("red")]);
    said(3, two);
    let mut records: Vec<Value> = serde_json::from_slice(&fs::read(&file).expect("records")).expect("JSON");
    records[3]["image"] = json!(["0.png", "1.png"]);
    fs::write(&file, Value::from(records).to_string()).expect("written");
    let errors = refused(root.path(), &["--out", text(&out), "--set", "data.max_tokens=19"]);
    assert!(
        errors.contains("record `3`") && errors.contains("data.max_tokens: 19 cuts through the images"),
        "{errors}"
    );
    train(root.path(), "accepted", &["data.max_tokens=19", "data.max_bad=0.5"]);
}
