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
            let image = RgbImage::from_fn(24, 16, |x, y| image::Rgb(colour.map(|c| c + ((x * 7 + y * i) % 50) as u8)));
            image.save(root.path().join(&name)).expect("an image");
            tar.append_path_with_name(root.path().join(&name), &name).expect("appended");
            let caption = format!("a {word} square number {i} here");
            let mut header = tar::Header::new_gnu();
            header.set_size(caption.len() as u64);
            tar.append_data(&mut header, format!("{i}.txt"), caption.as_bytes()).expect("appended");
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
    let data = said.split("[data]\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("a table");
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
    let lines: Vec<String> = lines.lines().enumerate().map(|(i, line)| text_of(split(i), line)).collect();
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
    assert!(seen.contains("images of the second that are in the first, too: 1"), "{seen}");
}

#[test]
fn a_broken_set_fails_with_the_table_and_the_first_names() {
    let root = set();
    fs::write(root.path().join("3.png"), "no image").expect("written");
    let (path, json) = (root.path().join("d.jsonl"), root.path().join("check.json"));
    let which = ["data", "check", "--source", "llava", "--path", text(&path), "--images", text(root.path())];
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
fn what_is_passed_over_is_counted_and_named() {
    let root = set();
    let classes = root.path().join("classes");
    for (class, image) in [("red", "0.png"), ("blue", "1.png"), ("green", "2.png"), ("grey", "3.png")] {
        fs::create_dir_all(classes.join(class)).expect("a folder");
        fs::copy(root.path().join(image), classes.join(class).join(image)).expect("a copy");
    }
    fs::rename(classes.join("green/2.png"), classes.join("green/2.bmp")).expect("renamed");
    fs::write(classes.join("grey/3.png"), "GIF89a").expect("written");
    let json = root.path().join("check.json");
    let check = ["data", "check", "--source", "folder", "--path", text(&classes)];
    let seen = works(&[&check[..], &["--max-bad", "0.5", "--json", text(&json)]].concat());
    for expected in [
        "2 images in 2 classes",
        "broken: 1 x image: a GIF, not a PNG, JPEG or WebP",
        "passed over: 1 classes of which no image can be read: grey",
        "passed over: 1 classes without a png, jpg, jpeg or webp: green",
        "passed over: 1 files in classes that are no png, jpg, jpeg or webp: green/2.bmp",
    ] {
        assert!(seen.contains(expected), "`{expected}` is not in\n{seen}");
    }
    let figures: Value = serde_json::from_slice(&fs::read(&json).expect("figures")).expect("JSON");
    let green = &figures[0]["passed_over"]["classes without a png, jpg, jpeg or webp"];
    assert_eq!(green, &json!({ "count": 1, "first": ["green"] }));
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
        (vec!["check", "--source", "llava", "--path", text(&lines)], "needs --images"),
        (
            vec!["check", "--source", "folder", "--path", folder, "--images", folder],
            "--source folder has its images in --path",
        ),
        (vec!["check", "--source", "webdataset", "--path", text(&cut)], "cut.tar: truncated: `0.png` takes"),
        (vec!["check", "--source", "webdataset", "--path", text(&lines)], "d.jsonl: no tar archive at byte 0"),
        ([&["filter"][..], &llava, &["--out", text(&lines)]].concat(), "exists already"),
        ([&["filter"][..], &llava, &["--out", "/nowhere/x.jsonl"]].concat(), "/nowhere/x.jsonl"),
        (
            [&["filter"][..], &llava, &["--out", "x.jsonl", "--model", "no/such", "--keep-share", "0.5"]].concat(),
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
    let pixels = processor.batch(&[model::open_image(image).expect("an image")], &Device::cpu(), DType::F32);
    let ids = model::Tokenizer::open(folder).expect("a tokenizer").tokenize(caption, true).expect("ids");
    let inputs = Inputs { pixels: Some(pixels.expect("pixels")), texts: Some(model::Texts::pad(&[ids], 0)) };
    let trace = model.trace(&engine::Graph::inference(&params), &inputs).expect("a trace");
    let of = |name: &str| trace.iter().find(|(known, _)| known == name).expect(name).1.tensor().to_f64().expect(name);
    of("image_embeds").iter().zip(of("text_embeds")).map(|(a, b)| a * b).sum()
}

#[test]
fn the_pairs_that_go_together_best_are_kept() {
    let root = set();
    let (folder, lines, out) = (dual_encoder(root.path()), root.path().join("d.jsonl"), root.path().join("kept.jsonl"));
    let mut pairs: Vec<(f64, String)> = (0..6)
        .map(|i| {
            let word = if i % 2 == 0 { "red" } else { "blue" };
            let caption = format!("a {word} square number {i} here");
            (cosine(&folder, &root.path().join(format!("{i}.png")), &caption), i.to_string())
        })
        .collect();
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept = |limit: &[&str]| -> Vec<String> {
        let which = ["data", "filter", "--source", "llava", "--path", text(&lines), "--images", text(root.path())];
        works(&[&which[..], &["--out", text(&out), "--model", text(&folder)], limit].concat());
        let written = fs::read_to_string(&out).expect("lines");
        fs::remove_file(&out).expect("removed");
        fs::rename(root.path().join("report.html"), root.path().join("page.html")).expect("renamed");
        let id = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().map(String::from);
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
    let page = fs::read_to_string(root.path().join("page.html")).expect("a page");
    assert!(page.contains("image and text unlike<td class=\"n\">4"), "{page}");
}

/// Six images of two colours, four to train on, with a recipe for a tiny model on the CPU.
struct Small {
    root: TempDir,
    recipe: String,
}

impl Small {
    fn new() -> Small {
        let root = set();
        let recipe = format!(
            "[run]\nname = \"small\"\n[data]\nsource = \"llava\"\npath = \"{0}/d.jsonl\"\nimages = \"{0}\"\n\
             train_split = \"train\"\nheldout_split = \"test\"\n\
             [model.vision]\nimage_size = 16\npatch_size = 8\nhidden_size = 16\nnum_hidden_layers = 1\n\
             [model.decoder]\nhidden_size = 16\nnum_hidden_layers = 1\n\
             [phase2]\nsteps = 4\nbatch_size = 2\nlr = 1e-3\neval_every = 2\n\
             [eval]\nsamples = 1\nattention = 0\nmax_tokens = 4\n",
            text(root.path())
        );
        let small = Small { root, recipe };
        small.write(|_, record| record);
        small
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes the records as `change` makes them of what they are at first.
    fn write(&self, change: impl Fn(usize, Value) -> Value) {
        let record = |i: usize| {
            let word = if i.is_multiple_of(2) { "red" } else { "blue" };
            let said = json!([{ "from": "human", "value": "<image>\nwhat is it" }, { "from": "gpt", "value": word }]);
            let split = if i < 4 { "train" } else { "test" };
            let record =
                json!({ "id": format!("r{i}"), "image": format!("{i}.png"), "split": split, "conversations": said });
            change(i, record).to_string()
        };
        let lines: Vec<String> = (0..6).map(record).collect();
        fs::write(self.path("d.jsonl"), lines.join("\n")).expect("written");
    }

    /// A command on the recipe.
    fn command(&self, command: &[&str], settings: &[&str]) -> Output {
        fs::write(self.path("recipe.toml"), &self.recipe).expect("written");
        let (recipe, set) = (self.path("recipe.toml"), settings.iter().flat_map(|setting| ["--set", setting]));
        let set: Vec<&str> = set.collect();
        lenslet(&[command, &["--recipe", text(&recipe)], &set].concat())
    }

    /// What a command on the recipe that works says.
    fn says(&self, command: &[&str], settings: &[&str]) -> String {
        let output = self.command(command, settings);
        let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert!(output.status.success(), "{command:?} {settings:?}: {said:?}");
        said.concat()
    }

    /// The error of a command on the recipe that must fail.
    fn refuses(&self, command: &[&str], settings: &[&str]) -> String {
        let output = self.command(command, settings);
        let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        assert_eq!(output.status.code(), Some(1), "{command:?} {settings:?}: {said}{errors}");
        errors
    }
}

/// One turn's question or answer of a record.
fn say(mut record: Value, turn: usize, text: &str) -> Value {
    record["conversations"][turn]["value"] = text.into();
    record
}

#[test]
fn a_run_goes_on_only_with_the_data_it_was_begun_with() {
    let small = Small::new();
    let run = small.path("run");
    small.says(&["train", "--out", text(&run)], &[]);
    let tokenizer = fs::read(run.join("tokenizer.json")).expect("a tokenizer");
    let resume = ["train", "--resume", "latest", "--out", text(&run)];
    let again = small.says(&resume, &[]);
    assert!(again.contains("goes on from"), "{again}");
    let first = fs::read(small.path("0.png")).expect("an image");
    let changes: [(&str, &str, &dyn Fn()); 4] = [
        ("a training answer", "data, records: ", &|| {
            small.write(|i, record| if i == 1 { say(record, 1, "a blue square") } else { record })
        }),
        ("a record less", "3 records now, 4 records then", &|| {
            small.write(|i, mut record| {
                if i == 1 {
                    record["split"] = "none".into();
                }
                record
            })
        }),
        ("a held-out question", "held-out data, records: ", &|| {
            small.write(|i, record| if i == 5 { say(record, 0, "<image>\nand what is it") } else { record })
        }),
        ("an image", "data, images by their pixels: ", &|| {
            fs::copy(small.path("1.png"), small.path("0.png")).expect("a copy");
        }),
    ];
    for (what, named, change) in changes {
        change();
        let errors = small.refuses(&resume, &[]);
        assert!(
            errors.contains(named) && errors.contains("d.jsonl") && errors.contains("--accept-changed-data"),
            "{what}: {errors}"
        );
        let accepted = small.says(&[&resume[..], &["--accept-changed-data"]].concat(), &[]);
        assert!(accepted.contains("changed since: "), "{what}: {accepted}");
        let now = fs::read(run.join("tokenizer.json")).expect("a tokenizer");
        assert!(now == tokenizer, "{what}: the tokenizer is the checkpoint's");
        small.write(|_, record| record);
        fs::write(small.path("0.png"), &first).expect("written");
    }
}

#[test]
fn images_that_are_not_kept_and_a_tokenizer_file_are_sealed_too() {
    let small = Small::new();
    let [first, run] = ["first", "run"].map(|name| small.path(name));
    small.says(&["train", "--out", text(&first)], &[]);
    let file = small.path("tokenizer.json");
    fs::copy(first.join("tokenizer.json"), &file).expect("a copy");
    let path = format!("tokenizer.path={}", text(&file));
    let settings = ["data.keep=false", "tokenizer.kind=file", &path];
    // As long as before and with the same pixels, for behind its end a PNG may have anything.
    let picture = fs::read(small.path("4.png")).expect("an image");
    let ending = |byte: u8| fs::write(small.path("4.png"), [&picture[..], &[byte]].concat()).expect("written");
    ending(0);
    small.says(&["train", "--out", text(&run)], &settings);
    let resume = ["train", "--resume", "latest", "--out", text(&run)];
    ending(1);
    let errors = small.refuses(&resume, &settings);
    let named = "held-out data, images by the names, sizes, starts and ends of their files: ";
    assert!(errors.contains(named), "{errors}");
    small.says(&[&resume[..], &["--accept-changed-data"]].concat(), &settings);
    let other = fs::read_to_string(&file).expect("JSON") + " ";
    fs::write(&file, other).expect("written");
    let errors = small.refuses(&resume, &settings);
    assert!(errors.contains("tokenizer.path, tokenizer.json: "), "{errors}");
}

#[test]
fn a_run_may_be_extended_but_not_become_another() {
    let small = Small::new();
    let run = small.path("run");
    small.says(&["train", "--out", text(&run)], &[]);
    let resume = ["train", "--resume", "latest", "--out", text(&run)];
    let longer = ["phase2.steps=7", "checkpoints.keep=5", "checkpoints.every=3", "eval.limit=1"];
    small.says(&resume, &longer);
    let steps = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).expect("steps").lines().count();
    assert_eq!(steps(&run), 7);
    // The run's own recipe says so from now on.
    works(&resume);
    assert_eq!(steps(&run), 7);
    for (setting, named) in [
        ("phase2.steps=5", "phase2.steps: `steps = 5` given, but 7 are taken already"),
        ("phase2.lr=0.5", "phase2.lr: this run has `lr = 0.001`, the recipe given `lr = 0.5`"),
        ("data.max_tokens=9", "data.max_tokens: this run has no `max_tokens`"),
    ] {
        let errors = small.refuses(&resume, &[&longer[..], &[setting]].concat());
        assert!(errors.contains(named), "{setting}: {errors}");
    }
}

#[test]
fn answers_that_are_cut_off_are_counted_shown_and_refused_where_none_is_left() {
    let small = Small::new();
    // Words are as long as they are: with the ids of bytes a token is part of one.
    let words = "tokenizer.kind=words";
    let long = "<image>\nwhat is it what is it";
    small.write(
        |i, record| {
            if i % 2 == 0 { say(say(record, 0, long), 1, "it is red") } else { say(record, 1, "it is blue") }
        },
    );
    let all = |most: usize| format!("data.max_tokens={most}");
    for command in [&["train", "--dry-run"][..], &["train", "--out", text(&small.path("none"))]] {
        let errors = small.refuses(command, &[words, &all(5)]);
        assert!(
            errors.contains("data.max_tokens = 5 leaves no token to predict: 4")
                && errors.contains("d.jsonl:1: record `r0`"),
            "{errors}"
        );
    }
    // <user> 3 words <assistant> leaves two of four tokens of short ones, and none of those of long ones.
    let said = small.says(&["train", "--dry-run"], &[words, &all(7)]);
    for part in [
        "2 conversations, 4 images",
        "answers of 2 of 2 conversations, 12 of 16 tokens to predict (75.0 %)",
        "leaves no token to predict: 2",
        "answers of 1 of 1 conversations",
        "<assistant> [it is]",
        "(7 of 9 tokens: cut at data.max_tokens = 7)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let checked = small.says(&["data", "check"], &[words, &all(7)]);
    assert!(checked.contains("12 of 16 tokens to predict") && checked.contains("2 usable"), "{checked}");
    let run = small.path("run");
    small.says(&["train", "--out", text(&run)], &[words, &all(7)]);
    let log = fs::read_to_string(run.join("metrics.jsonl")).expect("steps");
    assert!(log.lines().all(|line| !line.contains("\"loss\":0.0,")), "{log}");
    // Scenes are cut, too, and captions to what a text tower takes.
    let scenes = ["train", "--dry-run", "--recipe", "../recipes/demo.toml", "--set", "data.max_tokens=3"];
    let (_, errors) = fails(&scenes);
    assert!(errors.contains("data.max_tokens = 3 leaves no token to predict: 64"), "{errors}");
    let positions = "dual.text.max_position_embeddings=5";
    let said = works(&["train", "--dry-run", "--recipe", "../recipes/clip.toml", "--set", positions]);
    assert!(said.contains("captions cut at the text encoder's max_position_embeddings: 64 of 64"), "{said}");
}

#[test]
fn words_outside_the_vocabulary_are_told_and_bytes_know_all() {
    let small = Small::new();
    small.write(|i, record| say(record, 1, ["zebra", "blue", "blue", "blue", "Gnu", "日本"][i]));
    let words = ["tokenizer.kind=words", "tokenizer.size=16"];
    for command in [&["train", "--dry-run"][..], &["data", "check"]] {
        let said = small.says(command, &words);
        assert!(
            said.contains("2 of 8 words (25.0 %) are not in the vocabulary: `Gnu` 1, `日本` 1; tokenizer.kind"),
            "{command:?}: {said}"
        );
        assert!(!small.says(command, &[]).contains("vocabulary"), "the default reads any text");
    }
}

#[test]
fn what_cannot_be_read_as_text_is_a_bad_record_everywhere() {
    let small = Small::new();
    small.write(|i, record| match i {
        1 => say(record, 1, "an <image> of blue"),
        5 => say(record, 1, "<image>"),
        _ => record,
    });
    let named = "d.jsonl:2: record `r1`: conversations[1].value: an answer with the mark `<image>`";
    for command in [&["train", "--dry-run"][..], &["data", "check"]] {
        let output = small.command(command, &[]);
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!output.status.success() && said.contains(named), "{command:?}: {said}");
        let accepted = small.says(command, &["data.max_bad=0.6"]);
        assert!(accepted.contains(named) && accepted.contains("d.jsonl:6: record `r5`"), "{command:?}: {accepted}");
    }
}

#[test]
fn a_share_of_the_images_is_held_out_the_same_each_time() {
    let small = Small::new();
    // Two records about each image.
    small.write(|i, mut record| {
        record["image"] = format!("{}.png", i / 2).into();
        record
    });
    let recipe = small.recipe.replace("train_split = \"train\"\nheldout_split = \"test\"", "heldout_share = 0.34");
    let small = Small { recipe, ..small };
    let said = small.says(&["data", "check"], &[]);
    for part in ["4 usable", "2 usable", "images of the second that are in the first, too: 0"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let [a, b] = [1, 2].map(|seed| small.says(&["train", "--dry-run"], &[&format!("run.seed={seed}")]));
    assert!(a.contains("held out    2 conversations, 1 images"), "{a}");
    let heldout = |said: &str| said.lines().find(|line| line.starts_with("held out")).map(String::from);
    assert_eq!(heldout(&a), heldout(&b));
    let errors = small.refuses(&["train", "--dry-run"], &["data.heldout_split=test"]);
    assert!(errors.contains("data.heldout_share: held out is either"), "{errors}");
    let errors = small.refuses(&["train", "--dry-run"], &["data.heldout_share=1.5"]);
    assert!(errors.contains("above 0 and below 1"), "{errors}");
}

#[test]
fn turns_about_one_image_are_learned_alone_unless_they_are_not_to_be() {
    let small = Small::new();
    small.write(|_, mut record| {
        let more = json!([{ "from": "human", "value": "what is it" }, { "from": "gpt", "value": "a square" }]);
        let turns = record["conversations"].as_array_mut().expect("turns");
        turns.extend(more.as_array().expect("turns").iter().cloned());
        record
    });
    let words = "tokenizer.kind=words";
    let alone = small.says(&["train", "--dry-run"], &[words]);
    assert!(
        alone.contains("each question is learned alone")
            && alone.contains("\n  <user> what is it <assistant> [a square <eos>]"),
        "{alone}"
    );
    let together = small.says(&["train", "--dry-run"], &[words, "phase2.independent_turns=false"]);
    assert!(
        together.contains("with those before in sight") && together.contains("<eos>] <user> what is it <assistant> [a"),
        "{together}"
    );
}
