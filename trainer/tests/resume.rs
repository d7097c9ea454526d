//! A run that is killed, stopped, out of disk or damaged goes on from its checkpoints, and ends as one left in peace.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// `train` of the tiny recipe into `out`, from where it stopped.
fn command(out: &Path, more: &[&str]) -> Command {
    let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/tiny.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.arg("train").arg("--recipe").arg(recipe).arg("--out").arg(out);
    command.args(["--resume", "latest"]).args(more.iter().flat_map(|one| ["--set", one]));
    command
}

fn start(out: &Path, more: &[&str]) -> Child {
    let mut command = command(out, more);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary starts")
}

fn finish(out: &Path, more: &[&str]) -> Output {
    let output = command(out, more).output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// The weights and what does not depend on the clock of every step.
fn outcome(run: &Path) -> (Vec<u8>, Vec<Vec<String>>) {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let step = |line: &str| {
        let value: Value = serde_json::from_str(line).expect("JSON");
        let keys = ["phase", "step", "loss", "lr", "grad_norm", "num_tokens"];
        keys.map(|key| value[key].to_string()).to_vec()
    };
    let weights = fs::read(run.join("model.safetensors")).expect("the model");
    (weights, text.lines().map(step).collect())
}

fn checkpoints(run: &Path) -> Vec<usize> {
    let names = fs::read_dir(run).into_iter().flatten().flatten();
    let number = |entry: fs::DirEntry| entry.file_name().to_str()?.strip_prefix("checkpoint-")?.parse().ok();
    let mut numbers: Vec<usize> = names.filter_map(number).collect();
    numbers.sort_unstable();
    numbers
}

/// Waits until the run has a checkpoint of at least this number.
fn wait_for(run: &Path, number: usize) {
    let begin = Instant::now();
    while checkpoints(run).last().is_none_or(|&last| last < number) {
        assert!(begin.elapsed() < Duration::from_secs(120), "no checkpoint {number}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(sent.expect("kill").success());
}

/// A run left in peace, and where others may be.
fn peace(more: &[&str]) -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("a folder");
    let run = root.path().join("peace");
    finish(&run, more);
    (root, run)
}

#[test]
fn a_killed_run_ends_as_one_left_in_peace() {
    for more in [&[][..], &["run.dtype=bf16", "phase1.stochastic_rounding=true", "run.threads=1"]] {
        let (root, peace) = peace(more);
        let run = root.path().join("killed");
        // In the midst of either phase, just after a checkpoint, and once before there is any.
        for (number, after) in [(0, 5), (3, 0), (12, 3), (21, 1), (36, 7)] {
            let mut child = start(&run, more);
            if number > 0 {
                wait_for(&run, number);
            }
            std::thread::sleep(Duration::from_millis(after));
            child.kill().expect("SIGKILL");
            child.wait().expect("an end");
        }
        finish(&run, more);
        assert!(outcome(&run) == outcome(&peace), "{more:?}: the killed run differs");
    }
}

#[test]
fn a_run_that_is_asked_to_stop_saves_and_says_how_to_go_on() {
    let (root, peace) = peace(&[]);
    let run = root.path().join("stopped");
    for (name, number) in [("INT", 3), ("HUP", 12), ("TERM", 24)] {
        let child = command(&run, &[]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary");
        wait_for(&run, number);
        signal(&child, name);
        let output = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            // The signal came when the last step was over.
            continue;
        }
        assert_eq!(output.status.code(), Some(130), "{errors}");
        assert!(errors.contains("lenslet train --resume latest --out"), "{errors}");
        let last = *checkpoints(&run).last().expect("a checkpoint");
        let lines = outcome_lines(&run);
        assert_eq!(lines, last, "the last step is in the last checkpoint");
    }
    let text = String::from_utf8(finish(&run, &[]).stdout).expect("UTF-8");
    assert!(text.contains("goes on from"), "{text}");
    assert!(outcome(&run) == outcome(&peace));
}

fn outcome_lines(run: &Path) -> usize {
    fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl").lines().count()
}

/// As with `lenslet train … 2>&1 | head`: the reader of both outputs goes after the first lines.
#[test]
fn a_run_whose_output_nobody_reads_goes_to_its_end() {
    let (_root, peace) = peace(&[]);
    let root = TempDir::new().expect("a folder");
    let run = root.path().join("unread");
    let mut child =
        command(&run, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    drop((child.stdout.take(), child.stderr.take()));
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(0));
    assert!(outcome(&run) == outcome(&peace), "the unread run differs");
    assert!(run.join("report.html").is_file());

    let run = run.to_str().expect("a path in UTF-8");
    for verb in [vec!["env"], vec!["inspect", "--model", run], vec!["eval", "--model", run]] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lenslet"))
            .args(&verb)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("an end");
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !errors.contains("panicked"), "{verb:?}: {errors}");
    }
}

#[test]
fn a_profiled_run_says_where_its_time_goes_and_learns_the_same() {
    let (_root, peace) = peace(&[]);
    let root = TempDir::new().expect("a folder");
    let run = root.path().join("profiled");
    let mut command = command(&run, &[]);
    let output = command.arg("--profile").output().expect("the binary starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(outcome(&run) == outcome(&peace), "the profiled run differs");
    for phase in ["phase1", "phase2"] {
        let read = |ending: &str| fs::read_to_string(run.join(format!("profile/{phase}.{ending}"))).expect(ending);
        let (table, trace) = (read("txt"), read("json"));
        for kernel in ["gemm", "attention_backward", "adamw", "outside of kernels", "a step"] {
            assert!(table.contains(kernel), "{table}");
        }
        let trace: Value = serde_json::from_str(&trace).expect("JSON");
        let calls = trace["traceEvents"].as_array().expect("events");
        // One step of AdamW a step.
        assert_eq!(calls.iter().filter(|call| call["name"] == "adamw").count(), 10);
    }
}

#[test]
fn damaged_checkpoints_are_passed_over_and_named() {
    let (root, peace) = peace(&["checkpoints.keep=100"]);
    let run = root.path().join("damaged");
    let mut child = start(&run, &["checkpoints.keep=100"]);
    wait_for(&run, 24);
    child.kill().expect("SIGKILL");
    child.wait().expect("an end");
    let numbers = checkpoints(&run);
    let [.., before, last] = numbers[..] else { panic!("{numbers:?}") };
    let file = run.join(format!("checkpoint-{last}/optimizer.safetensors"));
    let mut bytes = fs::read(&file).expect("the state");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).expect("written");
    let output = finish(&run, &["checkpoints.keep=100"]);
    let (said, warned) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(warned.contains(&format!("passed over: {}", file.display())), "{warned}");
    assert!(said.contains(&format!("checkpoint-{before}\n")), "{said}");
    assert!(outcome(&run) == outcome(&peace));
}

#[test]
fn a_full_disk_leaves_the_last_checkpoint_whole() {
    let (root, peace) = peace(&[]);
    let run = root.path().join("full");
    let mut child = start(&run, &[]);
    wait_for(&run, 6);
    child.kill().expect("SIGKILL");
    child.wait().expect("an end");
    let before = checkpoints(&run);
    // 100 blocks of 512 bytes are fewer than the optimiser's state takes.
    let limited = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_lenslet")])
        .args(["train", "--resume", "latest", "--out"])
        .arg(&run)
        .output()
        .expect("a shell");
    let errors = String::from_utf8_lossy(&limited.stderr);
    assert_eq!(limited.status.code(), Some(1), "{errors}");
    let newest = before.last().expect("a checkpoint");
    for part in ["was not made", "optimizer.safetensors", &format!("checkpoint-{newest} is the last good")] {
        assert!(errors.contains(part), "`{part}` is not in {errors}");
    }
    assert_eq!(checkpoints(&run), before);
    finish(&run, &[]);
    assert!(outcome(&run) == outcome(&peace));
}

#[test]
fn what_is_not_finite_stops_the_run_before_the_step() {
    let root = tempfile::tempdir().expect("a folder");
    let run = root.path().join("wild");
    let output = command(&run, &["phase2.lr=1000", "phase2.clip=0"]).output().expect("the binary starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    for part in ["phase2 stopped", "is the last good checkpoint: step ", "is not finite", "not taken"] {
        assert!(errors.contains(part), "`{part}` is not in {errors}");
    }
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    assert!(!text.contains("null") && !text.contains("NaN"), "steps that were taken are finite: {text}");
}

#[test]
fn a_run_is_gone_on_with_as_it_was_begun() {
    let (_root, peace) = peace(&[]);
    let refused = command(&peace, &["phase2.lr=0.5"]).output().expect("the binary starts");
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("this run has `lr = 0.001`, the recipe given `lr = 0.5`"), "{errors}");
    let before = outcome(&peace);
    finish(&peace, &["run.threads=1"]);
    assert!(outcome(&peace) == before, "a run that is over is only measured again");
}

/// Held-out losses by the number of their step in phase 2, of a run of 20 steps of phase 1 before.
fn held_out(run: &Path) -> Vec<(usize, f64)> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).expect("metrics.jsonl");
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let measured = lines.enumerate().filter_map(|(i, line)| Some((i + 1, line["eval_loss"].as_f64()?)));
    measured.collect()
}

#[test]
fn a_phase_that_gets_no_better_ends_with_its_best_weights_killed_or_not() {
    // Steps this long lead away again from what the first ones found, and stay so for a hundred measurements: whatever order a
    // processor sums in, two of them in a row are no better.
    let more = [
        "phase2.lr=0.3",
        "phase2.steps=300",
        "phase2.eval_every=3",
        "phase2.patience=2",
        "phase2.align_every=0",
        "phase2.ema=0.5",
        "eval.limit=8",
    ];
    let (root, peace) = peace(&more);
    let losses = held_out(&peace);
    let (best, _) = losses.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).expect("measured");
    let (last, _) = *losses.last().expect("measured");
    assert!(last < 320 && last == best + 6, "two more measurements after the best: {losses:?}");
    let weights = |folder: &Path| fs::read(folder.join("model.safetensors")).expect("a model");
    let kept = weights(&peace.join(format!("checkpoint-{best}")));
    assert!(weights(&peace) == kept, "the best checkpoint's weights are the run's");
    assert!(weights(&peace.join(format!("checkpoint-{last}"))) != kept);

    let run = root.path().join("killed");
    for number in [21, best, last] {
        let mut child = start(&run, &more);
        wait_for(&run, number);
        child.kill().expect("SIGKILL");
        child.wait().expect("an end");
    }
    finish(&run, &more);
    assert!(outcome(&run) == outcome(&peace) && held_out(&run) == losses);
}

#[test]
fn measuring_what_is_not_there_is_refused_beforehand() {
    let root = tempfile::tempdir().expect("a folder");
    let refused = command(&root.path().join("run"), &["phase1.patience=3"]).output().expect("the binary starts");
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert!(errors.contains("phase1.patience: counts measurements: set `eval_every`, too"), "{errors}");
}
