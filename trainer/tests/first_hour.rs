//! What someone does first who has nothing but the program: draw a set, look at it, train on it, try what is printed, compare.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use tempfile::TempDir;

/// A folder's name that a shell, a recipe and a table of TOML would each read differently.
const PLACE: &str = "it's $(touch PWNED) ${HOME} \"x\"";
/// A question that would run commands.
const QUESTION: &str = "What's it? $(touch PWNED) `touch PWNED`; 'a' \\";
/// Few and small steps.
const SMALL: [&str; 5] =
    ["phase2.steps=2", "phase2.warmup=0", "phase2.eval_every=1", "model.vision.hidden_size=32", "eval.samples=2"];

fn lenslet(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments).current_dir(folder).output().expect("the binary starts")
}

fn works(folder: &Path, arguments: &[&str]) -> String {
    let output = lenslet(folder, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn train(folder: &Path, more: &[&str]) -> String {
    let recipe = format!("{PLACE}/recipe.toml");
    let mut arguments = vec!["train", "--recipe", &recipe];
    SMALL.iter().for_each(|set| arguments.extend(["--set", set]));
    works(folder, &[&arguments, more].concat())
}

/// The commands that are proposed.
fn next(output: &str) -> Vec<&str> {
    let lines = output.lines().skip_while(|line| *line != "next:").skip(1);
    lines.map(str::trim).collect()
}

/// What a folder holds, file by file.
fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(contents(&path)),
            false => found.push((path.display().to_string(), fs::read(&path).expect("a file"))),
        }
    }
    found.sort();
    found
}

#[test]
fn the_set_follows_from_its_seed_and_an_old_folder_is_left_alone() {
    let root = TempDir::new().expect("a folder");
    let draw = |name: &str, seed: &str| {
        works(root.path(), &["data", "example", name, "--images", "60", "--seed", seed]);
        let files = contents(&root.path().join(name)).into_iter();
        let files = files.filter(|(name, _)| !name.ends_with("recipe.toml"));
        files.map(|(_, bytes)| bytes).collect::<Vec<_>>()
    };
    let first = draw("a", "7");
    assert_eq!(first.len(), 64);
    assert!(first == draw("b", "7") && first != draw("c", "8"));
    let output = lenslet(root.path(), &["data", "example", "a"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("a: has something in it"));
    assert!(!output.status.success());

    let records: Value = serde_json::from_slice(&fs::read(root.path().join("a/data.json")).unwrap()).unwrap();
    let records = records.as_array().expect("records");
    let asked = |split: &str| {
        let of = records.iter().filter(|record| record["split"] == split);
        let turns = of.flat_map(|record| record["conversations"].as_array().expect("turns"));
        let mut asked: Vec<&str> = turns.filter(|t| t["from"] == "human").filter_map(|t| t["value"].as_str()).collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    };
    assert_eq!(asked("heldout"), asked("train"), "every question is held out, too");
    assert_eq!(asked("heldout").len(), 8);
}

#[test]
fn from_an_example_to_a_compared_run() {
    let root = TempDir::new().expect("a folder");
    let here = root.path();
    let output = works(here, &["data", "example", PLACE, "--images", "30"]);
    assert!(next(&output)[0].contains(r"'it'\''s $(touch PWNED) ${HOME}"), "{output}");
    let records = here.join(PLACE).join("data.json");
    let text = fs::read_to_string(&records).unwrap();
    let question = Value::from(QUESTION).to_string();
    fs::write(&records, text.replace("Describe the picture.", question.trim_matches('"'))).unwrap();

    let plan = train(here, &["--dry-run"]);
    for expected in [
        "2 steps of 16 images, 1.3 passes over 24 records",
        "of training, an estimate from a few steps",
        "<user>What is shown?<assistant> [",
    ] {
        assert!(plan.contains(expected), "{expected} in {plan}");
    }
    assert!(!here.join("runs").exists(), "a dry run leaves nothing");

    let output = train(here, &["--out", "$(touch PWNED) run"]);
    let commands = next(&output);
    assert!(commands[0].contains(" generate ") && commands[1].contains(" eval "), "{commands:?}");
    for command in &commands {
        let status = Command::new("bash").args(["-c", command]).current_dir(here).output();
        let output = status.expect("a shell");
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert!(!here.join("PWNED").exists(), "a text was run as a command");

    let run = here.join("$(touch PWNED) run");
    let summary: Value = serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    let losses = &summary["losses"]["phase2"];
    assert_eq!((&losses["steps"], &losses["train"]["last"]["step"]), (&2.into(), &2.into()));
    assert!(losses["train"]["first"]["loss"].is_f64() && losses["heldout"]["best"]["loss"].is_f64(), "{summary}");

    // From elsewhere, and by the run alone.
    let (elsewhere, run) = (TempDir::new().expect("a folder"), run.to_str().expect("UTF-8"));
    works(elsewhere.path(), &["eval", "--model", run]);
    works(elsewhere.path(), &["train", "--resume", "latest", "--out", run]);
    train(here, &["--set", "phase2.lr=1e-4", "--out", "second"]);
    let output = works(here, &["compare", run, "second", "--out", "both.html"]);
    assert!(output.contains("phase2.lr") && output.contains("second"), "{output}");
    let page = fs::read_to_string(here.join("both.html")).unwrap();
    assert!(page.contains("Held-out loss of phase2") && page.contains("touch PWNED"));
    let output = lenslet(here, &["compare", run, "none"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("none: not a run's folder") && errors.contains("takes two runs"), "{errors}");
}
