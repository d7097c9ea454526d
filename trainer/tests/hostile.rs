//! Folders and files of strangers, and machines that run out of what they have: refused in words, and nothing of the user's lost.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const LENSLET: &str = env!("CARGO_BIN_EXE_lenslet");

fn recipe() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recipes/tiny.toml")
}

/// `train` of the tiny recipe, which goes on where it stopped.
fn train(out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(LENSLET);
    command.args(["train", "--resume", "latest", "--recipe"]).arg(recipe());
    command.arg("--out").arg(out).args(more).output().expect("the binary starts")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command that must be refused says.
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", said(output));
    said(output)
}

/// A run that is over.
fn run() -> (TempDir, PathBuf) {
    let root = tempfile::tempdir().expect("a folder");
    let run = root.path().join("run");
    let output = train(&run, &[]);
    assert!(output.status.success(), "{}", said(&output));
    (root, run)
}

#[test]
fn nothing_behind_a_link_in_a_runs_folder_is_written() {
    let (root, run) = run();
    let precious = root.path().join("precious");
    fs::create_dir(&precious).expect("a folder");
    let file = precious.join("file");
    fs::write(&file, "mine").expect("written");
    let event = fs::read_dir(run.join("tensorboard")).expect("a folder").next().expect("a file");
    let event = event.expect("an entry").path();
    let places = [".lock", "metrics.jsonl", "samples", "tensorboard", "checkpoint-50", "report.html"];
    for place in places.map(|name| run.join(name)).into_iter().chain([event]) {
        let aside = root.path().join("aside");
        let target = if place.is_dir() { &precious } else { &file };
        fs::rename(&place, &aside).expect("renamed");
        symlink(target, &place).expect("a link");
        let errors = refused(&train(&run, &[]));
        assert!(errors.contains("a link") && errors.contains(&place.display().to_string()), "{errors}");
        fs::remove_file(&place).expect("removed");
        fs::rename(&aside, &place).expect("renamed");
    }
    // A second name of the same file is as good as a link.
    let log = run.join("metrics.jsonl");
    let other = precious.join("other");
    fs::hard_link(&log, &other).expect("a link");
    let errors = refused(&train(&run, &[]));
    assert!(errors.contains("metrics.jsonl") && errors.contains("hard link"), "{errors}");
    fs::remove_file(other).expect("removed");
    assert_eq!(fs::read_to_string(&file).expect("a file"), "mine");
    assert_eq!(fs::read_dir(&precious).expect("a folder").count(), 1);
    assert!(train(&run, &[]).status.success());
}

#[test]
fn a_folder_that_is_no_runs_is_left_as_it_is() {
    let root = tempfile::tempdir().expect("a folder");
    let lock = root.path().join(".lock");
    for others in [&["notes"][..], &[".git"], &[".tmp-notes"]] {
        fs::write(&lock, "mine").expect("written");
        others.iter().for_each(|name| fs::write(root.path().join(name), "mine").expect("written"));
        let errors = refused(&train(root.path(), &[]));
        assert!(errors.contains("not a run's folder"), "{errors}");
        assert_eq!(fs::read_to_string(&lock).expect("a file"), "mine");
        others.iter().for_each(|name| fs::remove_file(root.path().join(name)).expect("removed"));
    }
}

/// Pipes and devices have no end; each of these would have the program wait, or fill its memory.
#[test]
fn pipes_and_devices_are_refused_wherever_a_file_is_read() {
    let (root, run) = run();
    let [pipe, zero] = ["pipe", "zero"].map(|name| root.path().join(name));
    assert!(Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    symlink("/dev/zero", &zero).expect("a link");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_string();
    let (run, images) = (text(&run), text(root.path()));
    for endless in [text(&pipe), text(&zero)] {
        let commands: [&[&str]; 9] = [
            &["train", "--recipe", &endless],
            &["generate", "--model", &run, "--prompt", "q", "--image", &endless],
            &["data", "check", "--source", "llava", "--path", &endless, "--images", &images],
            &["data", "check", "--source", "webdataset", "--path", &format!("{endless}::x.tar")],
            &["data", "check", "--source", "coco", "--path", &format!("{run}/eval.json"), "--images", &endless],
            &["data", "check", "--source", "llava", "--path", &run, "--images", &images, "--tokenizer", &endless],
            &["eval", "--model", &run, "--tasks", "vqa", "--data", &format!("vqa={endless}"), "--images", &images],
            &["inspect", "--model", &endless],
            &["report", "--run", &endless],
        ];
        for command in commands {
            let output = Command::new("timeout").arg("20").arg(LENSLET).args(command).output().expect("it starts");
            refused(&output);
        }
    }
    for name in
        ["config.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors", "chat_template.jinja"]
    {
        let model = root.path().join("model");
        assert!(Command::new("cp").arg("-r").arg(&run).arg(&model).status().expect("cp").success());
        let _ = fs::remove_file(model.join(name));
        fs::rename(&pipe, model.join(name)).expect("renamed");
        let model = text(&model);
        let command = ["generate", "--model", &model, "--prompt", "q", "--max-tokens", "1"];
        let output = Command::new("timeout").arg("20").arg(LENSLET).args(command).output().expect("it starts");
        let code = output.status.code();
        assert!(matches!(code, Some(0 | 1)), "{name}: {code:?} {}", said(&output));
        fs::rename(Path::new(&model).join(name), &pipe).expect("renamed");
        fs::remove_dir_all(model).expect("removed");
    }
}

#[test]
fn outputs_never_take_the_place_of_what_is_there() {
    let root = tempfile::tempdir().expect("a folder");
    image::RgbImage::new(8, 8).save(root.path().join("a.png")).expect("an image");
    let record =
        r#"{"image":"a.png","conversations":[{"from":"human","value":"<image>\nq"},{"from":"gpt","value":"a"}]}"#;
    fs::write(root.path().join("d.jsonl"), record).expect("written");
    fs::write(root.path().join("report.html"), "mine").expect("written");
    let data = ["--source", "llava", "--path", "d.jsonl", "--images", "."];
    let commands: [&[&str]; 6] = [
        &["check", "--json", "d.jsonl"],
        &["check", "--json", "a.png"],
        &["filter", "--out", "d.jsonl", "--report", "new.html"],
        &["filter", "--out", "new.jsonl"],
        &["filter", "--out", "new.jsonl", "--report", "a.png"],
        &["filter", "--out", "new", "--report", "new"],
    ];
    let before = ["d.jsonl", "a.png", "report.html"].map(|name| fs::read(root.path().join(name)).expect("a file"));
    for command in commands {
        let mut lenslet = Command::new(LENSLET);
        lenslet.arg("data").args(command).args(data).current_dir(root.path());
        refused(&lenslet.output().expect("it starts"));
        let now = ["d.jsonl", "a.png", "report.html"].map(|name| fs::read(root.path().join(name)).expect("a file"));
        assert_eq!(now, before, "{command:?}");
    }
}

#[test]
fn a_log_that_is_lost_or_cut_and_strange_files_do_not_hold_a_run_up() {
    let (_root, run) = run();
    let log = run.join("metrics.jsonl");
    let whole = fs::read_to_string(&log).expect("a file");
    fs::write(run.join("tmp-notes"), "mine").expect("written");
    for name in [".tmp-aB3dE6", "samples/.tmp-aB3dE6", ".tmp-notes"] {
        fs::write(run.join(name), "half").expect("written");
    }
    for left in ["", &whole[..whole.len() / 2], &format!("{whole}{{\"phase\":\"ph")] {
        fs::write(&log, left).expect("written");
        let mut report = Command::new(LENSLET);
        let output = report.args(["report", "--run"]).arg(&run).output().expect("it starts");
        assert!(output.status.success(), "{}", said(&output));
        let output = train(&run, &[]);
        assert!(output.status.success(), "{}", said(&output));
        if left.len() < whole.len() {
            let earlier = "earlier steps are missing in it";
            assert!(said(&output).contains(earlier), "{}", said(&output));
        }
    }
    let left = ["tmp-notes", ".tmp-notes", ".tmp-aB3dE6", "samples/.tmp-aB3dE6"].map(|name| run.join(name).exists());
    assert_eq!(left, [true, true, false, false]);
}

#[test]
fn a_file_that_may_not_grow_is_told_in_words() {
    let root = tempfile::tempdir().expect("a folder");
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 8; exec \"$0\" train --recipe \"$1\" --out \"$2\"", LENSLET]);
    let output = command.arg(recipe()).arg(root.path().join("full")).output().expect("it starts");
    let errors = refused(&output);
    assert!(errors.contains("File too large") && errors.contains("full/"), "{errors}");
}
