use super::{Comparison, page, write};
use crate::metrics::StepMetrics;
use crate::report::attention_png::png;
use crate::report::samples::{Shown, Utterance};
use crate::report::summary::{SUMMARY, Summary};
use crate::run_folder::RECIPE;
use crate::sample_predictions::SAMPLES;
use crate::similarity::{SIMILARITY, Similarity};
use image::{Rgb, RgbImage};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const SECTIONS: [&str; 10] =
    ["summary", "loss", "rate", "throughput", "memory", "evaluation", "samples", "attention", "similarity", "files"];
/// What must not become markup.
const HOSTILE: &str = "</td></table><script>alert('x')</script><img src=x onerror=\"alert(1)\"> & \u{0}\u{202e}";

fn steps(phase: &str, count: usize) -> Vec<StepMetrics> {
    let step = |i: usize| {
        let loss = 300.0 / (1.0 + i as f64) + 0.2 + ((i * 7919) % 101) as f64 / 500.0;
        StepMetrics {
            phase: phase.into(),
            step: i + 1,
            loss,
            lr: 1e-3,
            grad_norm: 1.0,
            samples_per_s: 100.0,
            tokens_per_s: Some(1234.5),
            data_wait_share: Some(0.01),
            memory_bytes: Some(100 << 20),
            mfu: Some(0.12),
            parts: BTreeMap::from([("itc".to_string(), loss / 2.0)]),
            ..StepMetrics::default()
        }
    };
    (0..count).map(step).collect()
}

/// A picture about as hard to compress as a photograph.
fn photograph(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let wave = |scale: f32| 40.0 * ((x as f32 / scale + seed as f32).sin() + (y as f32 / scale).cos());
        let noise = ((x * 7919 + y * 104_729 + seed) % 23) as f32;
        Rgb([30.0, 60.0, 90.0].map(|base: f32| (base + 60.0 + wave(19.0) + wave(71.0) / 2.0 + noise) as u8))
    })
}

fn summary() -> Summary {
    Summary {
        version: "0.1.0".into(),
        device: HOSTILE.into(),
        threads: 2,
        dtype: "f32".into(),
        parameters: 1_234_567,
        trainable: 1000,
        estimate_bytes: 100 << 20,
        peak_flops: Some(1e12),
        peak_memory_bytes: Some(90 << 20),
        seconds: Some(125.0),
        goes_on: true,
        losses: BTreeMap::new(),
    }
}

/// A run whose data mean harm: so many steps in each phase, so many questions about photographs of this width.
fn run(count: usize, questions: usize, width: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
        fs::write(folder.path().join(name), bytes).unwrap();
    };
    put(RECIPE, format!("[run]\nname = {HOSTILE:?}\n").replace("\\0", "").replace("\\u{202e}", "").as_bytes());
    let lines = [steps("phase1", count), steps("phase2", count), steps(HOSTILE, 1)].concat();
    let lines: Vec<String> = lines.iter().map(|line| serde_json::to_string(line).unwrap()).collect();
    put("metrics.jsonl", lines.join("\n").as_bytes());
    put("eval.json", br#"{"existence.accuracy": 0.975, "<script>": 0.5, "answers.exact": null}"#);
    put(SUMMARY, &serde_json::to_vec(&summary()).unwrap());
    let said = |when: &str, right| Utterance { when: when.into(), answer: HOSTILE.into(), right };
    let sample = |i: usize| Shown {
        image: format!("samples/{i:02}.png"),
        before: Vec::new(),
        attention: Some(format!("attention/{i:02}.png")),
        question: HOSTILE.into(),
        expected: Some(HOSTILE.into()),
        said: vec![said("halfway", false), said("after training", true)],
    };
    let samples: Vec<Shown> = (0..questions).map(sample).collect();
    for (i, shown) in samples.iter().enumerate() {
        put(&shown.image, &png(&photograph(width, width * 3 / 4, i as u32)).unwrap());
        put(shown.attention.as_ref().unwrap(), &png(&photograph(2 * width, width, i as u32)).unwrap());
    }
    put(SAMPLES, &serde_json::to_vec(&samples).unwrap());
    let found = Similarity {
        images: vec!["samples/00.png".into(), "../outside.png".into()],
        captions: vec![HOSTILE.into(), "a red circle".into()],
        scores: vec![vec![3.0, 1.0], vec![2.0, 2.5]],
    };
    put(SIMILARITY, &serde_json::to_vec(&found).unwrap());
    folder
}

/// Fails unless every element is closed in its order; returns the elements' names.
fn elements(html: &str) -> Vec<String> {
    let (mut open, mut all): (Vec<String>, Vec<String>) = Default::default();
    let mut rest = html;
    while let Some(start) = rest.find('<') {
        let end = start + rest[start..].find('>').expect("a tag that ends");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        let name: String = tag.trim_start_matches('/').chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        if tag.starts_with('/') {
            assert_eq!(open.pop().as_deref(), Some(name.as_str()), "closed by </{name}>");
            continue;
        }
        let is_void = tag.starts_with('!') || tag.ends_with('/') || matches!(name.as_str(), "meta" | "img");
        if !is_void {
            open.push(name.clone());
        }
        if matches!(name.as_str(), "script" | "style") {
            rest = &rest[rest.find(&format!("</{name}>")).expect("an end")..];
        }
        all.push(name);
    }
    assert!(open.is_empty(), "left open: {open:?}");
    all
}

fn assert_sound(html: &str) {
    let elements = elements(html);
    assert_eq!(elements.iter().filter(|name| *name == "script").count(), 1, "the page's own script alone");
    for id in SECTIONS {
        let begin = html.find(&format!("<section id=\"{id}\"")).unwrap_or_else(|| panic!("no section {id}"));
        let length = html[begin..].find("</section>").unwrap();
        assert!(length > 120, "section {id} is empty: {}", &html[begin..begin + length]);
    }
    for outside in ["http:", "https:", "<link", "@import", "url("] {
        assert!(!html.contains(outside), "{outside} is fetched from elsewhere");
    }
}

#[test]
fn data_that_mean_harm_are_text() {
    let folder = run(60, 2, 128);
    let html = page(folder.path()).unwrap();
    assert_sound(&html);
    assert!(!html.contains("<img src=x") && !html.contains("<script>alert"));
    assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;"));
    assert!(html.contains("../outside.png is not a place in the run&#39;s folder"));
}

#[test]
fn what_the_run_has_is_shown() {
    let folder = run(60, 2, 128);
    write(folder.path()).unwrap();
    let html = fs::read_to_string(folder.path().join("report.html")).unwrap();
    for part in [
        "1\u{202f}234\u{202f}567",
        "2m 05s, since the run was gone on with",
        "The axis is logarithmic",
        "Loss of phase1",
        ">97.5<",
        "not known: the run was gone on with later",
        "✗ wrong",
        "✓ right",
        "2 of 2 after training",
        "class=\"own\"",
        "2 of 2 images find their own caption first",
        "href=\"./metrics.jsonl\"",
        "data:image/jpeg;base64,",
    ] {
        assert!(html.contains(part), "{part}");
    }
}

#[test]
fn a_run_that_has_just_begun_has_every_section() {
    let folder = tempfile::tempdir().unwrap();
    let text = page(folder.path()).unwrap_err().to_string();
    assert!(text.contains("not a run's folder"), "{text}");
    fs::write(folder.path().join(RECIPE), "[run]\nname = \"new\"\n").unwrap();
    let html = page(folder.path()).unwrap();
    assert_sound(&html);
    assert!(html.contains("No step was taken yet") && html.contains("Not measured yet"));
}

#[test]
fn a_long_run_over_photographs_stays_below_three_megabytes() {
    let folder = run(50_000, 26, 320);
    let html = page(folder.path()).unwrap();
    assert!(html.len() < 3_000_000, "{} bytes", html.len());
    assert!(html.contains("These are the first"));
    let most = html.split("points=\"").skip(1).map(|line| line.split('"').next().unwrap().split(' ').count()).max();
    assert!(most.is_some_and(|most| (900..=1001).contains(&most)), "{most:?} points");
}

#[test]
fn damaged_files_are_named() {
    for name in ["eval.json", SUMMARY, SAMPLES, SIMILARITY, RECIPE] {
        let folder = run(2, 1, 16);
        fs::write(folder.path().join(name), "{\"phase\": [").unwrap();
        let text = format!("{:#}", page(folder.path()).unwrap_err());
        assert!(text.contains(name), "{name}: {text}");
    }
    let folder = run(2, 1, 16);
    fs::write(folder.path().join(SIMILARITY), r#"{"images": ["a"], "captions": ["b"], "scores": [[1, 2]]}"#).unwrap();
    let text = page(folder.path()).unwrap_err().to_string();
    assert!(text.contains("as many captions, rows and columns"), "{text}");
}

fn mutated(folder: &Path, name: &str, place: usize, byte: u8) {
    let path = folder.join(name);
    let mut bytes = fs::read(&path).unwrap();
    let place = place % bytes.len();
    bytes[place] = byte;
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn changed_files_give_a_sound_page_or_an_error(which in 0usize..6, place in any::<usize>(), byte in any::<u8>(), numbers in any::<bool>()) {
        let folder = run(3, 1, 16);
        let name = ["metrics.jsonl", "eval.json", SUMMARY, SAMPLES, SIMILARITY, "samples/00.png"][which];
        mutated(folder.path(), name, place, if numbers { b'0' + byte % 10 } else { byte });
        if let Ok(html) = page(folder.path()) {
            assert_sound(&html);
        }
    }
}

#[test]
fn runs_are_compared_on_one_page_and_the_bad_ones_are_named() {
    let (a, b, bad) = (run(30, 2, 64), run(20, 2, 64), run(1, 1, 64));
    let recipe = fs::read_to_string(b.path().join(RECIPE)).unwrap();
    fs::write(b.path().join(RECIPE), format!("{recipe}[phase2]\nlr = 2e-3\nrules = [{{ match = \"<b>\" }}]\n"))
        .unwrap();
    fs::write(bad.path().join("eval.json"), "{").unwrap();
    let none = a.path().join("none");
    let folders = [a.path(), b.path(), bad.path(), &none].map(Path::to_path_buf);
    let (comparison, errors) = Comparison::read(&folders);
    assert_eq!((comparison.len(), errors.len()), (2, 2));
    let errors = format!("{:#} {:#}", errors[0], errors[1]);
    assert!(errors.contains("eval.json:1") && errors.contains("none: not a run's folder"), "{errors}");
    let page = comparison.page().unwrap();
    for expected in
        ["phase2.lr", "0.002", "phase2.rules.0.match", "&lt;b&gt;", "97.5", "Loss of phase1", "data:image/png"]
    {
        assert!(page.contains(expected), "{expected}");
    }
    assert!(!page.contains("run.name"), "what is the same is no difference");
    assert!(!page.contains("<script>alert") && !page.contains("<img src=x") && !page.contains("<b>\""));
    let text = comparison.text().unwrap();
    let name = a.path().file_name().unwrap().to_str().unwrap();
    assert!(text.contains(name) && text.contains("phase2.lr") && text.contains("existence"), "{text}");
    // Another picture: the question is not the same any more.
    fs::write(b.path().join("samples/00.png"), png(&photograph(64, 48, 99)).unwrap()).unwrap();
    let (comparison, _) = Comparison::read(&folders);
    assert_eq!(comparison.page().unwrap().matches("class=\"card\"").count(), 1);
}
