//! The binary from outside: whole runs in a folder, and what it says when something is wrong.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// What `eval.json` must hold after both phases on scenes.
const FIGURES: [&str; 10] = [
    "existence.accuracy",
    "existence.adversarial.f1",
    "count.accuracy",
    "colour.accuracy",
    "spatial.left_of.accuracy",
    "caption.truth",
    "matching.random.accuracy",
    "retrieval.image_to_text.r1",
    "compositional.existence.accuracy",
    "control.blank.existence.accuracy",
];

/// Three steps of each phase, evaluated on a few scenes.
const SHORT: [&str; 8] = [
    "run.seed=1",
    "phase1.steps=3",
    "phase1.warmup=3",
    "phase2.steps=3",
    "phase2.warmup=3",
    "eval.limit=24",
    "eval.samples=2",
    "eval.attention=1",
];

fn lenslet(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments).output().expect("the binary starts")
}

/// Standard output of a call that must succeed.
fn works(arguments: &[&str]) -> String {
    let output = lenslet(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The message of a call that must fail, which names everything in `naming` and is no panic.
fn fails(arguments: &[&str], naming: &[&str]) -> String {
    let output = lenslet(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    assert!(errors.starts_with("error: "), "{arguments:?}: {errors}");
    for part in naming {
        assert!(errors.contains(part), "{arguments:?}: `{part}` is not in {errors}");
    }
    errors
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

fn demo_recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes/demo.toml")
}

/// Trains the demo's recipe with [`SHORT`] and `more` settings into `out`.
fn train(out: &Path, more: &[&str]) -> String {
    let recipe = demo_recipe();
    let mut arguments = vec!["train", "--recipe", text(&recipe), "--out", text(out)];
    for setting in SHORT.iter().chain(more) {
        arguments.extend(["--set", setting]);
    }
    works(&arguments)
}

/// Every file below `folder`, by its path there, with its bytes.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below the folder").to_path_buf();
                found.insert(name, fs::read(&path).expect("a file"));
            }
        }
    }
    found
}

/// Phase, step, loss and gradient norm of every line of a run's `metrics.jsonl`, as written.
fn losses(run: &Path) -> Vec<[String; 4]> {
    let metrics = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let line = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        ["phase", "step", "loss", "grad_norm"].map(|key| value[key].to_string())
    };
    metrics.lines().map(line).collect()
}

fn assert_complete(run: &Path) {
    for name in [
        "model.safetensors",
        "report.html",
        "samples.md",
        "samples.json",
        "similarity.json",
        "summary.json",
        "samples/00.png",
        "attention/00.png",
        "recipe.resolved.toml",
    ] {
        let size = fs::metadata(run.join(name)).map_or(0, |about| about.len());
        assert!(size > 100, "{name}: {size} bytes");
    }
    let figures: BTreeMap<String, f64> =
        serde_json::from_slice(&fs::read(run.join("eval.json")).expect("eval.json")).expect("flat, of numbers");
    for key in FIGURES {
        let share = figures.get(key).unwrap_or_else(|| panic!("eval.json has no {key}"));
        assert!((0.0..=1.0).contains(share), "{key} = {share}");
    }
}

#[test]
fn the_demo_ends_complete_and_is_never_overwritten() {
    let root = TempDir::new().expect("a folder");
    let run = root.path().join("demo");
    let demo = ["demo", "--max-steps", "3", "--seed", "1", "--threads", "1", "--out", text(&run)];
    let shown = works(&demo);
    assert!(shown.contains("before training") && shown.contains("lenslet generate --model"), "{shown}");
    assert_complete(&run);

    // The demo is its recipe, and threads change nothing.
    let twice = root.path().join("two-threads");
    train(&twice, &["run.threads=2"]);
    assert_eq!(losses(&run).len(), 6);
    assert_eq!(losses(&run), losses(&twice));

    let before = files(&run);
    fails(&demo, &["exists already", "--out"]);
    assert!(files(&run) == before, "a refused run changes the folder");
}

#[test]
fn threads_change_no_result() {
    let root = TempDir::new().expect("a folder");
    let [one, two] = ["1", "2"].map(|threads| {
        let out = root.path().join(threads);
        train(&out, &[&format!("run.threads={threads}")]);
        out
    });
    assert_eq!(losses(&one), losses(&two));
    let (mut one, mut two) = (files(&one), files(&two));
    // These hold times, or the recipe with its number of threads, or the length or hash of one that does.
    const MAY_DIFFER: [&str; 7] = [
        "metrics.jsonl",
        "recipe.resolved.toml",
        "README.md",
        "summary.json",
        "report.html",
        "manifest.json",
        "trainer_state.json",
    ];
    for files in [&mut one, &mut two] {
        files.retain(|path, _| {
            let name = path.file_name().and_then(|name| name.to_str());
            !path.starts_with("tensorboard") && !name.is_some_and(|name| MAY_DIFFER.contains(&name))
        });
    }
    assert!(one.len() > 10, "{:?}", one.keys());
    assert!(one.keys().eq(two.keys()));
    for (name, bytes) in &one {
        assert!(two[name] == *bytes, "{} differs", name.display());
    }
}

#[test]
fn a_wrong_recipe_is_named_by_file_and_line_and_leaves_nothing() {
    let root = TempDir::new().expect("a folder");
    let recipe = root.path().join("wrong.toml");
    let out = root.path().join("runs/wrong");
    let demo = fs::read_to_string(demo_recipe()).expect("the demo's recipe");
    let table = demo.lines().position(|line| line == "[run]").expect("a table");
    fs::write(&recipe, demo.replacen("[run]", "[run]\nsneed = 3", 1)).expect("written");
    let train = ["train", "--recipe", text(&recipe), "--out", text(&out)];
    fails(&train, &[&format!("wrong.toml:{}", table + 2), "sneed"]);

    let demo = demo_recipe();
    for (device, said) in [("cuda:0", "--device cpu"), ("tpu", "expected `cpu`, `cuda` or `cuda:N`")] {
        fails(&["train", "--recipe", text(&demo), "--out", text(&out), "--device", device], &[device, said]);
        fails(&["demo", "--out", text(&out), "--device", device], &[device, said]);
    }
    assert_eq!(fs::read_dir(root.path()).expect("a folder").count(), 1, "the recipe alone");
}

#[test]
fn data_that_cannot_be_used_are_named_and_leave_nothing() {
    let root = TempDir::new().expect("a folder");
    let (data, images) = (root.path().join("data.jsonl"), root.path().join("images"));
    let (recipe, out) = (root.path().join("own.toml"), root.path().join("run"));
    fs::create_dir(&images).expect("made");
    fs::write(images.join("words.png"), "no picture at all").expect("written");
    let source = format!("[run]\nname = \"own\"\n[data]\nsource = \"llava\"\npath = {data:?}\nimages = {images:?}\n");
    fs::write(&recipe, source + "[phase2]\nsteps = 1\nbatch_size = 1\nlr = 1e-3\n").expect("written");
    let said = r#""conversations": [{"from": "human", "value": "<image>\nwhat ?"}, {"from": "gpt", "value": "this"}]"#;
    let records = [
        (String::new(), "not one record"),
        (format!("{{\"id\": \"a\", {said}}}"), "missing, but the conversation has the mark `<image>`"),
        (format!("{{\"id\": \"a\", \"image\": \"none.png\", {said}}}"), "none.png"),
        (format!("{{\"id\": \"a\", \"image\": \"words.png\", {said}}}"), "words.png"),
    ];
    for (record, naming) in records {
        fs::write(&data, record).expect("written");
        fails(&["train", "--recipe", text(&recipe), "--out", text(&out)], &["data.jsonl", naming]);
        assert!(!out.exists(), "a run without data leaves no folder");
    }
}

/// `lenslet generate` with the model in `run`, about `image`.
fn question<'a>(run: &'a Path, image: &'a Path) -> [&'a str; 7] {
    let (model, image) = (text(run), text(image));
    ["generate", "--model", model, "--image", image, "--prompt", "is there a red circle ?"]
}

#[test]
fn a_trained_model_answers_alike_and_damage_is_named() {
    let root = TempDir::new().expect("a folder");
    let run = root.path().join("run");
    // By then every answer to such a question is yes or no, be it right or wrong.
    train(&run, &["phase2.steps=60"]);
    let good = run.join("samples/00.png");
    let answer = works(&question(&run, &good));
    assert!(["yes\n", "no\n"].contains(&answer.as_str()), "{answer:?}");
    assert_eq!(works(&question(&run, &good)), answer, "temperature 0 draws nothing");
    let table = works(&["eval", "--model", text(&run), "--limit", "4", "--seed", "5"]);
    assert!(table.contains("existence") && table.contains("chance"), "{table}");

    damaged_images_are_named(&run, &good, root.path());
    damaged_weights_are_named(&run, &good);
}

fn damaged_images_are_named(run: &Path, good: &Path, folder: &Path) {
    let [missing, cut, words] = ["missing.png", "cut.png", "words.png"].map(|name| folder.join(name));
    let bytes = fs::read(good).expect("the sample");
    fs::write(&cut, &bytes[..bytes.len() / 2]).expect("written");
    fs::write(&words, "no picture at all").expect("written");
    for image in [missing, cut, words] {
        fails(&question(run, &image), &[text(&image)]);
    }
}

fn damaged_weights_are_named(run: &Path, image: &Path) {
    let weights = run.join("model.safetensors");
    let bytes = fs::read(&weights).expect("the weights");
    let mut scrambled = bytes.clone();
    scrambled[8..40].fill(b'x');
    for damaged in [&bytes[..bytes.len() - 10], &bytes[..4], &scrambled] {
        fs::write(&weights, damaged).expect("written");
        fails(&question(run, image), &["model.safetensors"]);
    }
}
