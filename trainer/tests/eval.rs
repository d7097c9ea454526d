//! `lenslet eval --tasks` from outside, with small untrained models and pictures of noise.

use engine::{DType, Device};
use image::{Rgb, RgbImage};
use model::{AdapterConfig, AdapterKind, Chat, DecoderConfig, ImageProcessor, Pretrained};
use model::{QFormerConfig, Tokenizer, VisionConfig, Vlm, VlmConfig};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

#[allow(unreachable_pub)]
#[path = "../../model/tests/common/data.rs"]
mod data;

const WORDS: &str = "is there a dog cat in the image ? this statement true of picture false answer or . yes no describe one \
                     sentence red two under how many what";
/// The tokenizer of models with 31 ids, eight of which are special tokens.
const FEW_WORDS: &str = "a photo of dog cat red two the";
/// Images, and the classes, captions and objects of each.
const IMAGES: usize = 6;

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

/// What a call that must fail says.
fn fails(arguments: &[&str]) -> String {
    let output = lenslet(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    errors
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A model that answers, compares and matches at random.
fn vision_model() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let tokenizer = Tokenizer::word_level([WORDS]).expect("words");
    let config = VlmConfig {
        vocab_size: tokenizer.vocab_size(),
        vision: VisionConfig {
            image_size: 24,
            num_hidden_layers: 1,
            ..VisionConfig::default()
        },
        qformer: Some(QFormerConfig {
            num_query_tokens: 2,
            hidden_size: 16,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 32,
            projection: 8,
            ..QFormerConfig::default()
        }),
        adapter: AdapterConfig {
            kind: AdapterKind::Both,
            ..AdapterConfig::default()
        },
        decoder: DecoderConfig {
            num_hidden_layers: 1,
            max_position_embeddings: 128,
            ..DecoderConfig::default()
        },
        ..VlmConfig::default()
    };
    let (vlm, params) = Vlm::build(&config, &Device::cpu(), DType::F32, 1).expect("a model");
    let whole = Pretrained {
        chat: Chat::own(&tokenizer).expect("roles"),
        processor: ImageProcessor {
            size: 24,
            ..ImageProcessor::default()
        },
        vlm,
        params,
        tokenizer,
    };
    whole.save(folder.path()).expect("saved");
    folder
}

/// A model of the reference's, with a vocabulary and an image processor of ours.
fn published_model(name: &str, size: usize) -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/parity")
        .join(name);
    fs::copy(
        source.join("model.safetensors"),
        folder.path().join("model.safetensors"),
    )
    .expect("a copy");
    // OpenAI's way of saying that a text is summed up at its largest id.
    let config = fs::read_to_string(source.join("config.json")).expect("a configuration");
    fs::write(
        folder.path().join("config.json"),
        config.replace("\"eos_token_id\": 30", "\"eos_token_id\": 2"),
    )
    .expect("written");
    Tokenizer::word_level([FEW_WORDS])
        .expect("words")
        .save(folder.path())
        .expect("saved");
    let processor = ImageProcessor {
        size,
        ..ImageProcessor::default()
    };
    processor.save(folder.path()).expect("saved");
    folder
}

/// Files of every task about six pictures of noise.
struct Benchmarks {
    folder: TempDir,
}

impl Benchmarks {
    fn new() -> Benchmarks {
        let folder = TempDir::new().expect("a folder");
        let root = folder.path();
        for class in ["dog", "red_cat", "empty"] {
            fs::create_dir_all(root.join("classes").join(class)).expect("made");
        }
        fs::create_dir_all(root.join("images")).expect("made");
        let mut zip = zip::ZipWriter::new(fs::File::create(root.join("dev.zip")).expect("a zip"));
        let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        let [mut pope, mut vsr, mut vqa, mut lines, mut nlvr] = [const { String::new() }; 5];
        for i in 0..IMAGES {
            let path = root.join(format!("images/{i}.png"));
            noise(i as u32).save(&path).expect("an image");
            let class = ["dog", "red_cat"][i % 2];
            fs::copy(&path, root.join(format!("classes/{class}/{i}.png"))).expect("a copy");
            let label = ["yes", "no"][i % 2];
            pope += &format!(
                "{{\"image\": \"{i}.png\", \"text\": \"Is there a dog in the image?\", \"label\": \"{label}\"}}\n"
            );
            let relation = ["under", "in"][i % 2];
            vsr += &format!(
                "{{\"image\": \"{i}.png\", \"caption\": \"The dog is {relation} the cat.\", \"label\": {}, \
                 \"relation\": \"{relation}\"}}\n",
                i % 2
            );
            let people = ["\"two\""; 10].join(", ");
            vqa += &format!("{{\"image\": \"{i}.png\", \"question\": \"How many?\", \"answers\": [{people}]}}\n");
            lines += &format!(
                "{{\"file\": \"{i}.png\", \"captions\": [\"a dog {i}\", \"the red dog\"], \
                 \"objects\": [{{\"category\": \"dog\"}}]}}\n"
            );
            nlvr += &format!(
                "{{\"sentence\": \"a {}\", \"label\": \"true\", \"identifier\": \"{}-{}\"}}\n",
                i / 2,
                i / 2,
                i % 2
            );
            for order in 0..6 {
                zip.start_file(format!("dev-{}-{}-{order}.png", i / 2, i % 2), stored)
                    .expect("an entry");
                zip.write_all(&fs::read(&path).expect("the image")).expect("written");
            }
        }
        zip.finish().expect("a whole zip");
        for (name, lines) in [
            ("coco_pope_random.json", &pope),
            ("coco_pope_popular.json", &pope),
            ("vsr.jsonl", &vsr),
            ("vqa.jsonl", &vqa),
            ("lines.jsonl", &lines),
            ("dev.json", &nlvr),
        ] {
            fs::write(root.join(name), lines).expect("written");
        }
        Benchmarks { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `--data` and `--images` of some tasks.
    fn arguments(&self, tasks: &str) -> Vec<String> {
        let at = |task: &str, name: &str| format!("{task}={}", text(&self.path(name)));
        let mut arguments = vec![
            "--tasks".into(),
            tasks.into(),
            "--images".into(),
            text(&self.path("images")).into(),
        ];
        for task in tasks.split(',') {
            let file = match task {
                "pope" => ".",
                "vsr" => "vsr.jsonl",
                "vqa" => "vqa.jsonl",
                "nlvr" => "dev.json",
                "zeroshot" => "classes",
                _ => "lines.jsonl",
            };
            arguments.extend(["--data".into(), at(task, file)]);
            if task == "nlvr" {
                arguments.extend(["--images".into(), at("nlvr", "dev.zip")]);
            }
        }
        arguments
    }
}

fn noise(seed: u32) -> RgbImage {
    RgbImage::from_fn(30, 20, |x, y| {
        let mix = |c: u32| ((x + 1) * (seed * 7 + 3) + (y + c) * (seed * 13 + 5)) as u8;
        Rgb([mix(1), mix(40), mix(90)])
    })
}

/// Runs an evaluation into a new folder; returns what it printed and its results.
fn evaluate(model: &Path, arguments: &[String], more: &[&str]) -> (String, Value, TempDir) {
    let out = TempDir::new().expect("a folder");
    let mut all = vec![
        "eval",
        "--model",
        text(model),
        "--output",
        text(out.path()),
        "--log-samples",
    ];
    all.extend(arguments.iter().map(String::as_str));
    all.extend(more);
    let shown = works(&all);
    let results = fs::read(out.path().join("results.json")).expect("results.json");
    (shown, serde_json::from_slice(&results).expect("JSON"), out)
}

fn samples(out: &TempDir, task: &str) -> Vec<Value> {
    let lines = fs::read_to_string(out.path().join(format!("samples_{task}.jsonl"))).expect("samples");
    lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect()
}

#[test]
fn all_tasks_are_measured_with_intervals_and_controls() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    let tasks = "pope,vsr,nlvr,vqa,caption,chair,retrieval,zeroshot,matching";
    let arguments = benchmarks.arguments(tasks);
    let (shown, results, out) = evaluate(model.path(), &arguments, &["--max-tokens", "6", "--batch-size", "4"]);
    for (task, figure, control, items) in [
        ("pope", "random.f1", "text_only", 6),
        ("pope", "all.accuracy", "text_only", 12),
        ("vsr", "accuracy", "text_only", 6),
        ("vsr", "under", "text_only", 3),
        ("nlvr", "accuracy", "text_only", 36),
        ("nlvr", "consistency", "text_only", 3),
        ("vqa", "accuracy", "text_only", 6),
        ("caption", "cider", "text_only", 6),
        ("chair", "chair_i", "text_only", 6),
        ("retrieval", "text_to_image.r1", "shuffled", 12),
        ("zeroshot", "top1", "shuffled", 6),
        ("matching", "accuracy", "shuffled", 12),
    ] {
        let found = &results["results"][task][figure];
        let number = |key: &str| {
            found[key]
                .as_f64()
                .unwrap_or_else(|| panic!("{task} {figure} has no {key}: {found}"))
        };
        for key in ["value", "blank", control] {
            assert!((0.0..=10.0).contains(&number(key)), "{task} {figure}: {found}");
        }
        if found["low"].is_number() {
            assert!(
                number("low") <= number("value") && number("value") <= number("high"),
                "{task} {figure}: {found}"
            );
        }
        assert_eq!(found["items"], items, "{task} {figure}");
        assert!(shown.contains(figure), "{shown}");
    }
    for (task, count) in [
        ("pope", 12),
        ("nlvr", 36),
        ("caption", 6),
        ("zeroshot", 6),
        ("retrieval", 6),
    ] {
        let samples = samples(&out, task);
        assert_eq!(samples.len(), count, "{task}");
        assert!(
            samples
                .iter()
                .all(|sample| sample["blank"].is_string() && sample["score"].is_number()),
            "{task}"
        );
    }
    // What is logged is what the figure is made of.
    let right: f64 = samples(&out, "pope")
        .iter()
        .filter_map(|sample| sample["score"].as_f64())
        .sum();
    assert_eq!(results["results"]["pope"]["all.accuracy"]["value"], right / 12.0);
    // Without an image, and with a blank one, all are asked the same and answer the same.
    let answers = samples(&out, "caption");
    for key in ["blank", "without"] {
        assert!(answers.iter().all(|sample| sample[key] == answers[0][key]), "{key}");
    }

    // Items do not see each other.
    let (_, alone, _) = evaluate(model.path(), &arguments, &["--max-tokens", "6", "--batch-size", "1"]);
    assert_eq!(alone["results"], results["results"]);
}

#[test]
fn an_answer_is_what_generate_says() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    let arguments = benchmarks.arguments("caption");
    let prompt = "caption=What is there?";
    let (_, _, out) = evaluate(
        model.path(),
        &arguments,
        &["--prompt", prompt, "--max-tokens", "5", "--no-controls"],
    );
    for (i, sample) in samples(&out, "caption").iter().enumerate().take(3) {
        let image = benchmarks.path(&format!("images/{i}.png"));
        let generate = [
            "generate",
            "--model",
            text(model.path()),
            "--image",
            text(&image),
            "--max-tokens",
            "5",
        ];
        let said = works(&[&generate[..], &["--prompt", "What is there?"]].concat());
        assert_eq!(sample["answer"], said.trim(), "{sample}");
        assert!(sample.get("blank").is_none(), "no controls were asked for");
    }
}

#[test]
fn published_models_that_compare_are_measured_and_nothing_else() {
    let benchmarks = Benchmarks::new();
    for (name, size) in [("clip-gelu", 15), ("siglip", 12), ("blip2-retrieval", 12)] {
        let model = published_model(name, size);
        let arguments = benchmarks.arguments("retrieval,zeroshot");
        let prompts = ["--prompt", "zeroshot=a photo of a {}", "--prompt", "zeroshot=the {}"];
        let (shown, results, _) = evaluate(model.path(), &arguments, &prompts);
        assert!(
            shown.contains("image_to_text.r10") && shown.contains("shuffled"),
            "{name}: {shown}"
        );
        assert_eq!(results["results"]["zeroshot"]["top1"]["guess"], 0.5, "{name}");
        // With one image for all, each class has as many of them as it has images.
        assert_eq!(results["results"]["zeroshot"]["top1"]["blank"], 0.5, "{name}");
        let cannot = |tasks: &str| {
            let arguments = benchmarks.arguments(tasks);
            let mut all = vec!["eval", "--model", text(model.path())];
            all.extend(arguments.iter().map(String::as_str));
            fails(&all)
        };
        let said = cannot("retrieval,pope");
        assert!(
            said.contains("pope: this model cannot do it; it takes a vision-language model"),
            "{name}: {said}"
        );
        if name != "blip2-retrieval" {
            let said = cannot("matching");
            assert!(said.contains("matching: this model cannot do it"), "{name}: {said}");
        }
    }
}

#[test]
fn what_cannot_be_measured_is_said_before_anything_is_computed() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    let (path, none) = (text(model.path()), text(&benchmarks.path("none.json")).to_string());
    let (images, pope) = (
        text(&benchmarks.path("images")).to_string(),
        text(&benchmarks.path(".")).to_string(),
    );
    let pope_data = format!("pope={pope}");
    fs::write(
        benchmarks.path("bad.json"),
        "{\"image\": \"9.png\", \"text\": \"?\", \"label\": \"yes\"}",
    )
    .expect("written");
    let bad = format!("pope={}", text(&benchmarks.path("bad.json")));
    let eval = |more: &[&str]| fails(&[&["eval", "--model", path, "--tasks", "pope"], more].concat());
    for (more, naming) in [
        (vec![], "--data pope=PATH"),
        (vec!["--data", &pope_data], "--images pope=DIR"),
        (vec!["--data", &pope], "expected TASK=VALUE"),
        (
            vec!["--data", &pope_data, "--data", "vsr=x"],
            "`vsr` is not among --tasks",
        ),
        (
            vec!["--data", &format!("pope={none}"), "--images", &images],
            "none.json",
        ),
        (vec!["--data", &pope_data, "--images", &none], "none.json"),
        (vec!["--data", &bad, "--images", &images], "no image `9.png`"),
        (
            vec!["--data", &pope_data, "--images", &images, "--prompt", "pope=Yes or no?"],
            "the place of the question",
        ),
        (
            vec!["--data", &pope_data, "--images", &images, "--device", "cuda:7"],
            "--device cpu works everywhere",
        ),
        (
            vec!["--data", &pope_data, "--images", &images, "--images", &images],
            "--images is given twice",
        ),
    ] {
        let said = eval(&more);
        assert!(said.contains(naming), "{more:?}: `{naming}` is not in {said}");
    }
    let said = fails(&["eval", "--model", path]);
    assert!(
        said.contains("recipe.resolved.toml") && said.contains("--tasks"),
        "{said}"
    );

    let out = TempDir::new().expect("a folder");
    fs::write(out.path().join("results.json"), "precious").expect("written");
    let said = eval(&["--data", &pope_data, "--images", &images, "--output", text(out.path())]);
    assert!(said.contains("exists already"), "{said}");
    assert_eq!(
        fs::read_to_string(out.path().join("results.json")).expect("there"),
        "precious"
    );
}

#[test]
fn a_language_model_sees_nothing() {
    let benchmarks = Benchmarks::new();
    let model = published_model("llama2-grouped-tied", 12);
    let arguments = benchmarks.arguments("pope");
    let mut all = vec!["eval", "--model", text(model.path())];
    all.extend(arguments.iter().map(String::as_str));
    let said = fails(&all);
    assert!(said.contains("a language model, which sees no images"), "{said}");
}

#[test]
fn a_damaged_image_is_named() {
    let (model, benchmarks) = (vision_model(), Benchmarks::new());
    fs::write(benchmarks.path("images/3.png"), "no picture at all").expect("written");
    let arguments = benchmarks.arguments("vsr");
    let mut all = vec!["eval", "--model", text(model.path())];
    all.extend(arguments.iter().map(String::as_str));
    let said = fails(&all);
    assert!(
        said.contains("3.png") && said.contains("not a PNG, JPEG or WebP"),
        "{said}"
    );
}

#[test]
fn real_files_are_read() {
    let model = vision_model();
    let short = ["--limit", "3", "--max-tokens", "4", "--no-controls"];
    if let Some(nlvr) = data::folder("nlvr") {
        let (data, images) = (nlvr.join("dev.json"), nlvr.join("dev-images.zip"));
        let arguments = [
            "--tasks",
            "nlvr",
            "--data",
            &format!("nlvr={}", text(&data)),
            "--images",
            text(&images),
        ];
        let (_, results, out) = evaluate(model.path(), &arguments.map(String::from), &short);
        assert_eq!(results["results"]["nlvr"]["accuracy"]["items"], 18);
        let llava = fs::read_to_string(nlvr.join("dev-llava.jsonl")).expect("conversations");
        let asked = &samples(&out, "nlvr")[0]["question"].to_string();
        assert!(
            llava.contains(asked.trim_matches('"')),
            "asked as models are trained to be: {asked}"
        );
    }
    if let Some(coco) = data::folder("coco_cc") {
        let (lines, vsr) = (coco.join("coco_cc.jsonl"), coco.join("vsr_overlap.jsonl"));
        let mut arguments = vec!["--tasks".to_string(), "vsr,caption,chair,retrieval,matching".into()];
        arguments.extend([
            "--data".into(),
            format!("vsr={}", text(&vsr)),
            "--images".into(),
            text(&coco.join("images")).into(),
        ]);
        for task in ["caption", "chair", "retrieval", "matching"] {
            arguments.extend(["--data".into(), format!("{task}={}", text(&lines))]);
        }
        let (_, results, _) = evaluate(model.path(), &arguments, &short);
        let items = |task: &str, figure: &str| results["results"][task][figure]["items"].clone();
        assert_eq!(
            (
                items("caption", "bleu4"),
                items("chair", "recall"),
                items("vsr", "accuracy")
            ),
            (3.into(), 3.into(), 3.into())
        );
        assert_eq!(
            (items("retrieval", "text_to_image.r1"), items("matching", "f1")),
            (15.into(), 6.into())
        );
    }
}
