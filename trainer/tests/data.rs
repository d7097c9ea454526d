//! `lenslet data` from outside: what a user sees of good sets and bad ones, and training on what was kept.

#[path = "common/folders.rs"]
mod folders;

use engine::{DType, Device, Params};
use image::RgbImage;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

fn lenslet(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments).output().expect("the binary starts")
}

fn works(arguments: &[&str]) -> String {
    let output = lenslet(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a call that must fail prints and says.
fn fails(arguments: &[&str]) -> (String, String) {
    let output = lenslet(arguments);
    let [out, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    (out, errors)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// Six images of two colours in two tar shards, with captions, and beside them as files with LLaVA's lines.
fn set() -> TempDir {
    let root = TempDir::new().expect("a folder");
    let mut lines = Vec::new();
    for shard in 0..2 {
        let file = fs::File::create(root.path().join(format!("s-{shard}.tar"))).expect("a file");
        let mut tar = tar::Builder::new(file);
        for i in 3 * shard..3 * shard + 3 {
            let (name, word) = (format!("{i}.png"), if i % 2 == 0 { "red" } else { "blue" });
            let colour = if i % 2 == 0 { [200, 20, 20] } else { [20, 20, 200] };
            let image = RgbImage::from_fn(24, 16, |x, y| {
                image::Rgb(colour.map(|c| c + ((x * 7 + y * i) % 50) as u8))
            });
            image.save(root.path().join(&name)).expect("an image");
            tar.append_path_with_name(root.path().join(&name), &name)
                .expect("appended");
            let caption = format!("a {word} square number {i} here");
            let mut header = tar::Header::new_gnu();
            header.set_size(caption.len() as u64);
            tar.append_data(&mut header, format!("{i}.txt"), caption.as_bytes())
                .expect("appended");
            let said =
                json!([{ "from": "human", "value": "<image>\nwhat is it" }, { "from": "gpt", "value": caption }]);
            lines.push(json!({ "id": i.to_string(), "image": name, "conversations": said }).to_string());
        }
        tar.finish().expect("a whole archive");
    }
    fs::write(root.path().join("d.jsonl"), lines.join("\n")).expect("written");
    root
}

#[test]
fn a_set_in_shards_is_checked_filtered_and_trained_on() {
    let root = set();
    let (shards, json) = (root.path().join("s-{0..1}.tar"), root.path().join("check.json"));
    let source = ["--source", "webdataset", "--path", text(&shards)];
    let seen = works(&[&["data", "check"][..], &source, &["--json", text(&json)]].concat());
    assert!(seen.contains("6 records: 6 usable, 0 broken"), "{seen}");
    let figures: Value = serde_json::from_slice(&fs::read(&json).expect("figures")).expect("JSON");
    assert_eq!((&figures[0]["usable"], &figures[0]["images"]), (&6.into(), &6.into()));

    let out = root.path().join("kept.jsonl");
    let limits = ["--max-hamming", "0", "--min-words", "3", "--out", text(&out)];
    let said = works(&[&["data", "filter"][..], &source, &limits].concat());
    assert!(said.contains("source = \"messages\""), "{said}");
    assert!(root.path().join("report.html").is_file());
    // What the command says to train on is trained on.
    let data = said
        .split("[data]\n")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next())
        .expect("a table");
    let recipe = format!(
        "[run]\nname = \"kept\"\n[data]\n{data}\n[model.vision]\nimage_size = 16\npatch_size = 8\nhidden_size = 16\n\
         num_hidden_layers = 1\n[model.decoder]\nhidden_size = 16\nnum_hidden_layers = 1\n\
         [phase2]\nsteps = 2\nbatch_size = 2\nlr = 1e-3\n[eval]\nsamples = 1\nattention = 0\n"
    );
    let path = root.path().join("recipe.toml");
    fs::write(&path, recipe).expect("written");
    let run = root.path().join("run");
    let trained = works(&["train", "--recipe", text(&path), "--out", text(&run)]);
    assert!(trained.contains("6 conversations, 6 images"), "{trained}");
    let steps = fs::read_to_string(run.join("metrics.jsonl")).expect("steps");
    assert_eq!(steps.lines().count(), 2);
    assert!(works(&["data", "check", "--recipe", text(&path)]).contains("0 broken"));
}

#[test]
fn a_recipe_is_checked_with_what_it_holds_out() {
    let root = set();
    let text_of = |split: &str, line: &str| line.replacen('{', &format!("{{\"split\":\"{split}\","), 1);
    let lines = fs::read_to_string(root.path().join("d.jsonl")).expect("lines");
    let split = |i: usize| if i < 4 { "train" } else { "test" };
    let lines: Vec<String> = lines
        .lines()
        .enumerate()
        .map(|(i, line)| text_of(split(i), line))
        .collect();
    fs::write(root.path().join("d.jsonl"), lines.join("\n")).expect("written");
    fs::copy(root.path().join("0.png"), root.path().join("4.png")).expect("a copy");
    let recipe = format!(
        "[run]\nname = \"x\"\n[data]\nsource = \"llava\"\npath = \"{0}/d.jsonl\"\nimages = \"{0}\"\n\
         train_split = \"train\"\nheldout_split = \"test\"\n[phase2]\nsteps = 1\nbatch_size = 1\nlr = 1e-3\n",
        text(root.path())
    );
    let path = root.path().join("recipe.toml");
    fs::write(&path, recipe).expect("written");
    let seen = works(&["data", "check", "--recipe", text(&path)]);
    assert!(seen.contains("4 usable") && seen.contains("2 usable"), "{seen}");
    assert!(
        seen.contains("images of the second that are in the first, too: 1"),
        "{seen}"
    );
}

#[test]
fn a_broken_set_fails_with_the_table_and_the_first_names() {
    let root = set();
    fs::write(root.path().join("3.png"), "no image").expect("written");
    let (path, json) = (root.path().join("d.jsonl"), root.path().join("check.json"));
    let which = [
        "data",
        "check",
        "--source",
        "llava",
        "--path",
        text(&path),
        "--images",
        text(root.path()),
    ];
    let (out, errors) = fails(&[&which[..], &["--json", text(&json)]].concat());
    assert!(errors.contains("1 of 6 records are broken, more than 1 %"), "{errors}");
    assert!(
        out.contains("broken: 1 x image: not a PNG, JPEG or WebP") && out.contains("d.jsonl:4: record `3`"),
        "{out}"
    );
    assert!(json.is_file(), "the figures are written all the same");
    works(&[&which[..], &["--max-bad", "0.2"]].concat());
}

#[test]
fn what_cannot_be_is_said() {
    let root = set();
    let (lines, folder) = (root.path().join("d.jsonl"), text(root.path()));
    let cut = root.path().join("cut.tar");
    let whole = fs::read(root.path().join("s-0.tar")).expect("an archive");
    fs::write(&cut, &whole[..700]).expect("written");
    let llava = ["--source", "llava", "--path", text(&lines), "--images", folder];
    for (arguments, expected) in [
        (vec!["check"], "--recipe, or --source and --path"),
        (
            vec!["check", "--source", "llava", "--path", text(&lines)],
            "needs --images",
        ),
        (
            vec!["check", "--source", "folder", "--path", folder, "--images", folder],
            "--source folder has its images in --path",
        ),
        (
            vec!["check", "--source", "webdataset", "--path", text(&cut)],
            "cut.tar: truncated: `0.png` takes",
        ),
        (
            vec!["check", "--source", "webdataset", "--path", text(&lines)],
            "d.jsonl: no tar archive at byte 0",
        ),
        (
            [&["filter"][..], &llava, &["--out", text(&lines)]].concat(),
            "is the input, which stays as it is",
        ),
        (
            [&["filter"][..], &llava, &["--out", "/nowhere/x.jsonl"]].concat(),
            "/nowhere/x.jsonl",
        ),
        (
            [
                &["filter"][..],
                &llava,
                &["--out", "x.jsonl", "--model", "no/such", "--keep-share", "0.5"],
            ]
            .concat(),
            "no/such",
        ),
        (
            [&["filter"][..], &llava, &["--out", "x.jsonl", "--model", folder]].concat(),
            "--min-similarity or --keep-share",
        ),
    ] {
        let (_, errors) = fails(&[&["data"][..], &arguments].concat());
        assert!(errors.contains(expected), "{arguments:?}: {errors}");
    }
}

/// A CLIP of the fixtures with a processor and a tokenizer of whole words.
fn dual_encoder(root: &Path) -> PathBuf {
    let folder = root.join("clip");
    folders::model("clip-quick-gelu", &folder);
    let config: Value = serde_json::from_slice(&fs::read(folder.join("config.json")).expect("read")).expect("JSON");
    let number = |part: &str, field: &str| config[part][field].as_u64().expect("a number");
    folders::processor(&folder, number("vision_config", "image_size"));
    let words = ["a", "red", "blue", "square", "number", "here"];
    folders::tokenizer(&folder, &words, number("text_config", "vocab_size") as usize);
    folder
}

/// The cosine of an image and a text by what the model itself says of them, as `inspect` computes it.
fn cosine(folder: &Path, image: &Path, caption: &str) -> f64 {
    use model::hf::{Inputs, load};
    let (model, params): (_, Params) = load(folder, &Device::cpu(), DType::F32, true).expect("a model");
    let processor = model::ImageProcessor::open(folder).expect("a processor");
    let pixels = processor.batch(
        &[model::open_image(image).expect("an image")],
        &Device::cpu(),
        DType::F32,
    );
    let ids = model::Tokenizer::open(folder)
        .expect("a tokenizer")
        .tokenize(caption, true)
        .expect("ids");
    let inputs = Inputs {
        pixels: Some(pixels.expect("pixels")),
        texts: Some(model::Texts::pad(&[ids], 0)),
    };
    let trace = model
        .trace(&engine::Graph::inference(&params), &inputs)
        .expect("a trace");
    let of = |name: &str| {
        trace
            .iter()
            .find(|(known, _)| known == name)
            .expect(name)
            .1
            .tensor()
            .to_f64()
            .expect(name)
    };
    of("image_embeds")
        .iter()
        .zip(of("text_embeds"))
        .map(|(a, b)| a * b)
        .sum()
}

#[test]
fn the_pairs_that_go_together_best_are_kept() {
    let root = set();
    let (folder, lines, out) = (
        dual_encoder(root.path()),
        root.path().join("d.jsonl"),
        root.path().join("kept.jsonl"),
    );
    let mut pairs: Vec<(f64, String)> = (0..6)
        .map(|i| {
            let word = if i % 2 == 0 { "red" } else { "blue" };
            let caption = format!("a {word} square number {i} here");
            (
                cosine(&folder, &root.path().join(format!("{i}.png")), &caption),
                i.to_string(),
            )
        })
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept = |limit: &[&str]| -> Vec<String> {
        let which = [
            "data",
            "filter",
            "--source",
            "llava",
            "--path",
            text(&lines),
            "--images",
            text(root.path()),
        ];
        works(&[&which[..], &["--out", text(&out), "--model", text(&folder)], limit].concat());
        let written = fs::read_to_string(&out).expect("lines");
        let id = |line: &str| {
            serde_json::from_str::<Value>(line).expect("JSON")["id"]
                .as_str()
                .map(String::from)
        };
        written.lines().filter_map(id).collect()
    };
    let best = |count: usize| {
        let mut ids: Vec<String> = pairs[..count].iter().map(|(_, id)| id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(kept(&["--keep-share", "0.5"]), best(3));
    let between = (pairs[1].0 + pairs[2].0) / 2.0;
    assert_eq!(kept(&["--min-similarity", &between.to_string()]), best(2));
    let page = fs::read_to_string(root.path().join("report.html")).expect("a page");
    assert!(page.contains("image and text unlike<td class=\"n\">4"), "{page}");
}
