//! `report.html` of a whole run: made at its end, made again from its files, and looked at in a browser where there is one.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

fn lenslet(arguments: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_lenslet")).args(arguments).output();
    let output = output.expect("the binary starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    output
}

/// Has Chromium judge the page, by `tests/report_page.py`.
fn look(page: &Path) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/report_page.py");
    match Command::new("python3").arg(script).arg(page).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{errors}");
            println!("{said}");
        }
        Err(error) => println!("no python3 here ({error}): the page was not looked at"),
    }
}

/// Every number of `metrics.jsonl` is under a tag of its own in TensorBoard's files, as often.
fn board_has_what_the_log_has(run: &Path) {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let mut counts = BTreeMap::<String, usize>::new();
    for line in text.lines() {
        let line: serde_json::Map<String, Value> = serde_json::from_str(line).expect("JSON");
        let phase = line["phase"].as_str().expect("a phase");
        for key in line.keys().filter(|key| !["phase", "step"].contains(&key.as_str())) {
            let tag = match key.as_str() {
                "samples_per_s" | "tokens_per_s" | "data_wait_share" | "mfu" => format!("throughput/{key}"),
                "memory_bytes" => "memory/bytes".into(),
                _ => format!("{phase}/{key}"),
            };
            *counts.entry(tag).or_default() += 1;
        }
    }
    // Every fifth step is on phase 1's losses: what is due then is measured at the next, and is phase 2's in any case.
    assert_eq!((counts["phase2/eval_loss"], counts.get("phase1/eval_loss")), (5, None));
    let files = fs::read_dir(run.join("tensorboard")).expect("a folder").flatten();
    let bytes: Vec<u8> = files.flat_map(|file| fs::read(file.path()).expect("events")).collect();
    for (tag, count) in counts {
        // A string of a message: its length stands in front of it.
        let stored = [&[tag.len() as u8][..], tag.as_bytes()].concat();
        let found = bytes.windows(stored.len()).filter(|window| *window == stored).count();
        assert_eq!(found, count, "{tag}");
    }
}

#[test]
fn a_run_ends_with_a_page_that_can_be_made_again() {
    let root = tempfile::tempdir().expect("a folder");
    let run = root.path().join("tiny");
    let out = run.to_str().expect("UTF-8");
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/tiny.toml");
    let recipe = recipe.to_str().expect("UTF-8");
    let measured = ["--set", "phase2.eval_every=5"];
    lenslet(&[&["train", "--recipe", recipe, "--out", out][..], &measured].concat());
    board_has_what_the_log_has(&run);
    let page = run.join("report.html");
    let made = fs::read_to_string(&page).expect("report.html");
    for part in [
        "Loss of phase1",
        "Loss of phase2",
        "MFU",
        "halfway",
        "eval_loss",
        "where the model looks",
        "find their own caption",
    ] {
        assert!(made.contains(part), "{part}");
    }
    let remade = String::from_utf8(lenslet(&["report", "--run", out]).stdout).expect("UTF-8");
    assert!(remade.trim_end().ends_with("report.html"), "{remade}");
    assert!(fs::read_to_string(&page).expect("report.html") == made, "made again it is the same");
    look(&page);

    // What data say is shown and never run.
    let samples = run.join("samples.json");
    let text = fs::read_to_string(&samples).expect("samples.json");
    let question = "is there a yellow triangle ?";
    assert!(text.contains(question), "{text}");
    let harm = "<script>alert(1)</script><img src=x onerror='alert(2)'><style>*{display:none}</style>".repeat(3);
    fs::write(&samples, text.replace(question, &harm)).expect("written");
    lenslet(&["report", "--run", out]);
    look(&page);
}
