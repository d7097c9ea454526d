//! A run's own table: every question of what was held out, asked as it was in training.

use super::{fails, text, works};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Two images, and records of `messages` about them that a recipe learns; every fourth is held out.
struct Set {
    root: TempDir,
}

const RECIPE: &str = "[run]\nname = \"h\"\n[data]\nsource = \"messages\"\npath = \"ROOT/d.jsonl\"\nimages = \"ROOT\"\n\
    train_split = \"train\"\nheldout_split = \"heldout\"\n[tokenizer]\nkind = \"words\"\nsize = 40\n\
    [model.vision]\nimage_size = 12\npatch_size = 6\nhidden_size = 16\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
    [model.adapter]\nkind = \"mlp\"\n[model.decoder]\nhidden_size = 32\nnum_hidden_layers = 1\nnum_attention_heads = 2\n\
    num_key_value_heads = 2\nintermediate_size = 32\n\
    [phase2]\nsteps = 200\nbatch_size = 6\nlr = 1e-2\n[eval]\nsamples = 2\nattention = 1\nmax_tokens = 4\n";

impl Set {
    /// `turns` gives a record's system text, and its questions and answers.
    fn new(records: usize, turns: impl Fn(usize) -> (Option<String>, Vec<(String, String)>)) -> Set {
        let root = TempDir::new().expect("a folder");
        let mut lines = String::new();
        for i in 0..records {
            let (name, colour) = (format!("{i}.png"), [[200, 20, 20], [20, 20, 200]][i % 2]);
            let image = image::RgbImage::from_pixel(20, 14, image::Rgb(colour));
            image.save(root.path().join(&name)).expect("an image");
            let (system, turns) = turns(i);
            let mut messages: Vec<Value> =
                system.iter().map(|text| json!({ "role": "system", "content": text })).collect();
            for (question, answer) in turns {
                messages.push(json!({ "role": "user", "content": question }));
                messages.push(json!({ "role": "assistant", "content": answer }));
            }
            let split = if i % 4 == 3 { "heldout" } else { "train" };
            lines += &format!("{}\n", json!({ "images": [name], "split": split, "messages": messages }));
        }
        fs::write(root.path().join("d.jsonl"), lines).expect("written");
        fs::write(root.path().join("recipe.toml"), RECIPE.replace("ROOT", text(root.path()))).expect("written");
        Set { root }
    }

    fn train(&self, sets: &[&str]) -> (PathBuf, String) {
        let (recipe, run) = (self.root.path().join("recipe.toml"), self.root.path().join("run"));
        let _ = fs::remove_dir_all(&run);
        let mut all = vec!["train", "--recipe", text(&recipe), "--out", text(&run)];
        all.extend(sets.iter().flat_map(|set| ["--set", set]));
        let said = works(&all);
        (run, said)
    }
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}

/// Which of two words a record's system text has.
fn word(i: usize) -> &'static str {
    ["red", "blue"][i / 4 % 2]
}

#[test]
fn all_questions_are_asked_as_they_were_trained_with_their_system() {
    let set = Set::new(16, |i| {
        let asked = [("what word", word(i)), ("and again", word(i))];
        let turns = asked.map(|(question, answer)| (question.to_string(), answer.to_string()));
        (Some(format!("say {}", word(i))), turns.to_vec())
    });
    for independent in [false, true] {
        let (run, said) = set.train(&[&format!("phase2.independent_turns={independent}")]);
        let figures = json(&run.join("eval.json"));
        let of = |key: &str| figures[key].as_f64().unwrap_or_else(|| panic!("{key} of {figures}"));
        assert_eq!((of("answers.exact"), of("items.answers"), of("items.records")), (1.0, 8.0, 4.0), "{said}");
        assert_eq!(of("answers.majority"), 0.5, "the same number of both words");
        assert!(said.contains("8 questions about 4 held-out records were asked"), "{said}");
        let samples = json(&run.join("samples.json"));
        let samples = samples.as_array().expect("a list");
        assert_eq!(samples.len(), 4, "two questions of two records");
        assert!(samples.iter().all(|sample| sample["said"][2]["right"] == true), "{samples:?}");
        let before =
            if independent { json!(["system: say red"]) } else { json!(["system: say red", "what word → red"]) };
        assert_eq!(samples[1]["before"], before);
        for file in ["samples.md", "report.html"] {
            assert!(fs::read_to_string(run.join(file)).expect("a page").contains("system: say red"), "{file}");
        }
        // What `generate` is told is what training was.
        let image = set.root.path().join("3.png");
        let ask = ["generate", "--model", text(&run), "--image", text(&image), "--prompt", "what word", "--system"];
        for word in ["red", "blue"] {
            let said = works(&[&ask[..], &[&format!("say {word}"), "--max-tokens", "3"]].concat());
            assert_eq!(said.trim(), word);
        }
        // And what a task asks of the same records.
        let data = format!("vqa={}", text(&set.root.path().join("d.jsonl")));
        let eval =
            ["eval", "--model", text(&run), "--tasks", "vqa", "--data", &data, "--images", text(set.root.path())];
        let said = works(&[&eval[..], &["--no-controls"]].concat());
        assert!(said.lines().any(|line| line.starts_with("exact") && line.contains("100.0")), "{said}");
    }
    let images = ["3.png", "2.png"].map(|name| set.root.path().join(name));
    let two = ["--image", text(&images[0]), "--image", text(&images[1])];
    let run = set.root.path().join("run");
    let said = fails(&[&["generate", "--model", text(&run), "--prompt", "what"], &two[..]].concat());
    assert!(said.contains("2 images; this model takes one"), "{said}");
}

#[test]
fn unknown_words_are_never_right_and_what_cannot_be_read_is_counted() {
    let set = Set::new(16, |i| {
        (None, vec![("what is it".into(), if i % 4 == 3 { format!("w{i}") } else { format!("x{}", i % 9) })])
    });
    let (run, said) = set.train(&["phase2.steps=20", "tokenizer.size=16"]);
    let figures = json(&run.join("eval.json"));
    assert_eq!((&figures["answers.exact"], &figures["items.unsayable"]), (&0.0.into(), &4.0.into()), "{said}");
    assert!(said.contains("4 of 4 expected answers have words that the vocabulary lacks"), "{said}");
    let shown = json(&run.join("samples.json"));
    assert!(shown[0]["said"].as_array().expect("answers").iter().all(|said| said["right"] == false), "{shown}");

    // An image that breaks after the data were read ends nothing.
    fs::write(set.root.path().join("7.png"), "no picture").expect("written");
    let recipe = run.join("recipe.resolved.toml");
    let kept = fs::read_to_string(&recipe).expect("a recipe").replace("[data]", "[data]\nkeep = false");
    fs::write(&recipe, &kept).expect("written");
    let output = super::lenslet(&["eval", "--model", text(&run)]);
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success() && said.contains("1 of 4 questions could not be asked"), "{said}{errors}");
    assert!(errors.contains("7.png"), "{errors}");
    fs::write(&recipe, kept.replace("keep = false\n", "")).expect("written");
    let output = super::lenslet(&["eval", "--model", text(&run)]);
    let [said, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(said.contains("1 held-out records are bad and were left out"), "{said}{errors}");
    assert!(output.status.success() && errors.contains("7.png"), "{errors}");
}

#[test]
fn what_the_screen_leaves_out_of_the_held_out_records_is_counted() {
    let set = Set::new(8, |i| {
        let question = if i == 7 { "what is it ".repeat(20) } else { "what is it".into() };
        (None, vec![(question, word(i).to_string())])
    });
    let (run, said) = set.train(&["phase2.steps=2", "data.max_tokens=20"]);
    let figures = json(&run.join("eval.json"));
    for (name, count) in [("records", 1), ("records_without_target", 1), ("bad_records", 0), ("unknown_words", 0)] {
        assert_eq!(figures[format!("items.{name}")], f64::from(count), "{name}: {figures}");
    }
    let told = "1 held-out records were left out, as data.max_tokens leaves them no token to predict";
    assert!(said.contains(told), "{said}");
    assert!(works(&["eval", "--model", text(&run)]).contains(told));
}
