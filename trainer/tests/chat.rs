//! `lenslet generate` and `lenslet chat` from outside, with small untrained models.

use engine::{DType, Device};
use model::{
    AdapterConfig, AdapterKind, Chat, DecoderConfig, ImageProcessor, Pretrained, Tokenizer, VisionConfig, Vlm,
    VlmConfig,
};
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const WORDS: &str = "what is it a red blue green circle square left right of the and there two three";

fn lenslet(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lenslet"));
    command.args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = command.spawn().expect("the binary starts");
    let mut stdin = running.stdin.take().expect("a pipe");
    stdin.write_all(input.as_bytes()).expect("it reads");
    drop(stdin);
    running.wait_with_output().expect("it ends")
}

/// Standard output and error of a call that must succeed.
fn works(arguments: &[&str], input: &str) -> (String, String) {
    let output = lenslet(arguments, input);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let (out, errors) = (text(output.stdout), text(output.stderr));
    assert!(output.status.success(), "{arguments:?}: {errors}");
    (out, errors)
}

/// What a call that must fail says.
fn fails(arguments: &[&str]) -> String {
    let output = lenslet(arguments, "");
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
    errors
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// A vision-language model that says something at random, and an image beside it.
fn vision_model() -> (TempDir, PathBuf) {
    let folder = TempDir::new().expect("a folder");
    let tokenizer = Tokenizer::word_level([WORDS]).expect("words");
    let config = VlmConfig {
        vocab_size: tokenizer.vocab_size(),
        vision: VisionConfig { image_size: 24, num_hidden_layers: 1, ..VisionConfig::default() },
        adapter: AdapterConfig { kind: AdapterKind::Mlp, ..AdapterConfig::default() },
        decoder: DecoderConfig { num_hidden_layers: 2, max_position_embeddings: 96, ..DecoderConfig::default() },
        ..VlmConfig::default()
    };
    let (vlm, params) = Vlm::build(&config, &Device::cpu(), DType::F32, 1).expect("a model");
    let processor = ImageProcessor { size: 24, ..ImageProcessor::default() };
    let chat = Chat::own(&tokenizer).expect("roles");
    let whole = Pretrained { vlm, params, tokenizer, processor, chat };
    whole.save(folder.path()).expect("saved");
    let image = folder.path().join("an image.png");
    image::RgbImage::from_fn(30, 20, |x, y| image::Rgb([x as u8 * 8, y as u8 * 12, 90]))
        .save(&image)
        .expect("an image");
    (folder, image)
}

/// A language model in the reference's format with a vocabulary of ours.
fn language_model() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/llama2-grouped-tied");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), folder.path().join(name)).expect("a copy");
    }
    Tokenizer::word_level([WORDS]).expect("words").save(folder.path()).expect("saved");
    folder
}

#[test]
fn a_conversation_goes_through_a_pipe() {
    let (folder, image) = vision_model();
    let (model, saved) = (text(folder.path()), folder.path().join("saved.json"));
    let lines = [
        "what is it",
        &format!("/image {}", text(&image)),
        "",
        "is it red",
        "/image no-such-file.png",
        "/image",
        "/dance",
        "what is it and is there a circle",
        &format!("/save {}", text(&saved)),
        &format!("/save {}", text(&saved)),
        "/help",
        "/reset",
        "what is it",
        "/quit",
        "is it blue",
    ];
    let chat = ["chat", "--model", model, "--max-tokens", "6"];
    let (out, errors) = works(&chat, &lines.join("\n"));
    let answers: Vec<&str> = out.lines().collect();
    assert_eq!(answers.len(), 4, "{out}");
    assert_eq!(answers[0], answers[3], "after /reset");
    assert_eq!(errors.matches("tokens/s]").count(), 4, "{errors}");
    for expected in
        ["no-such-file.png", "/image needs a file", "`/dance` is no command", "exists already", "/save FILE"]
    {
        assert!(errors.contains(expected), "{expected}: {errors}");
    }
    let saved: Value = serde_json::from_slice(&fs::read(&saved).expect("a file")).expect("JSON");
    let messages = saved["messages"].as_array().expect("messages");
    let roles: Vec<&str> = messages.iter().filter_map(|message| message["role"].as_str()).collect();
    assert_eq!(roles, ["user", "assistant"].repeat(3));
    assert_eq!(messages[2]["content"][0]["type"], "image");
    assert_eq!(messages[3]["content"][0]["text"], answers[1]);
    assert_eq!(saved["images"].as_array().map(Vec::len), Some(1));
    // A first question is what `generate` asks.
    let generate = ["generate", "--model", model, "--max-tokens", "6", "--prompt", "what is it"];
    assert_eq!(works(&generate, "").0.trim_end(), answers[0]);
    // The conversation ends with the input, too.
    let (out, _) = works(&[&chat[..], &["--image", text(&image)]].concat(), "what is it");
    assert_eq!(out, works(&[&generate[..], &["--image", text(&image)]].concat(), "").0);
}

#[test]
fn a_conversation_that_is_full_says_so() {
    let (folder, _) = vision_model();
    let question = "what is it and is there a red circle left of the blue square\n".repeat(8);
    let (out, errors) = works(&["chat", "--model", text(folder.path()), "--max-tokens", "20"], &question);
    assert!(errors.contains("/reset starts a new conversation"), "{errors}");
    assert!(!out.is_empty());
}

#[test]
fn settings_reach_a_language_model() {
    let folder = language_model();
    let model = text(folder.path());
    let ask = |more: &[&str]| {
        let base = ["generate", "--model", model, "--prompt", "a red circle and", "--max-tokens", "10"];
        works(&[&base[..], more].concat(), "").0
    };
    let plain = ask(&["--raw"]);
    assert!(plain.split_whitespace().count() <= 10);
    assert_ne!(ask(&["--raw", "--repetition-penalty", "4"]), plain);
    let drawn = |seed| ask(&["--raw", "--temperature", "9", "--seed", seed]);
    assert_eq!(drawn("1"), drawn("1"));
    assert_ne!(drawn("1"), drawn("2"));
    assert_eq!(ask(&["--raw", "--top-k", "1"]), plain);
    assert_eq!(ask(&["--raw", "--num-beams", "3"]).lines().count(), 1);
    let second = drawn("1").split_whitespace().nth(1).expect("two words").to_string();
    let stopped = ask(&["--raw", "--temperature", "9", "--seed", "1", "--stop", &format!(" {second}")]);
    assert!(!stopped.contains(&format!(" {second}")) && drawn("1").starts_with(stopped.trim_end()), "{stopped}");
    // Its own layout of conversations, in another type and by another thread.
    assert_eq!(ask(&["--dtype", "bf16", "--threads", "1"]).lines().count(), 1);
}

/// LLaVA in the reference's format, with a vocabulary of ours in which `<image>` is its image token.
fn llava() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/llava");
    for name in ["config.json", "model.safetensors"] {
        fs::copy(source.join(name), folder.path().join(name)).expect("a copy");
    }
    let words = format!("{WORDS} user assistant : one four five six seven eight nine ten over under above");
    let tokenizer = Tokenizer::word_level([words.as_str()]).expect("words");
    assert_eq!(tokenizer.vocab_size(), 39);
    tokenizer.save(folder.path()).expect("saved");
    let path = folder.path().join("tokenizer.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    let mut image = json["added_tokens"][0].clone();
    (image["id"], image["content"]) = (39.into(), "<image>".into());
    json["added_tokens"].as_array_mut().expect("a list").push(image);
    fs::write(path, json.to_string()).expect("written");
    let processor = r#"{"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 12},
        "crop_size": {"height": 12, "width": 12}, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}"#;
    fs::write(folder.path().join("preprocessor_config.json"), processor).expect("written");
    folder
}

#[test]
fn llava_sees_images_where_the_conversation_has_them() {
    let (folder, (_other, image)) = (llava(), vision_model());
    let (model, image) = (text(folder.path()), text(&image));
    let lines = format!("what is it\n/image {image}\nand it\n/image {image}\n");
    let chat = ["chat", "--model", model, "--image", image, "--max-tokens", "4"];
    let (out, errors) = works(&chat, &lines);
    assert_eq!(errors.matches("tokens/s]").count(), 2, "{errors}");
    let generate = ["generate", "--model", model, "--image", image, "--max-tokens", "4", "--prompt"];
    let once = works(&[&generate[..], &["what is it"]].concat(), "").0;
    assert_eq!(out.lines().next(), once.lines().next());
    // Two images in one question, and in front of a prompt as it is.
    works(&[&generate[..], &["what is it", "--image", image]].concat(), "");
    works(&[&generate[..], &["what is it", "--image", image, "--raw"]].concat(), "");
}

#[test]
fn mistakes_are_explained() {
    let ((vision, image), language) = (vision_model(), language_model());
    let generate = |more: &[&str]| fails(&[&["generate", "--prompt", "what is it", "--model"], more].concat());
    let said = generate(&[text(language.path()), "--image", text(&image)]);
    assert!(said.contains("sees no images"), "{said}");
    let said = generate(&["no/such-model"]);
    assert!(said.contains("hf download no/such-model"), "{said}");
    let said = generate(&[text(vision.path()), "--num-beams", "2", "--temperature", "1"]);
    assert!(said.contains("num_beams: 2 with temperature 1"), "{said}");
    let said = generate(&[text(vision.path()), "--image", text(&image), "--image", text(&image)]);
    assert!(said.contains("2 images; this model takes one, in front of the first question"), "{said}");
    let said = generate(&[text(vision.path()), "--device", "gpu"]);
    assert!(said.contains("device `gpu` is not known"), "{said}");
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/siglip");
    let said = generate(&[text(&clip)]);
    assert!(said.contains("compares and writes nothing"), "{said}");
    let bare = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity/qwen2-tied");
    let said = generate(&[text(&bare)]);
    assert!(said.contains("tokenizer.json"), "{said}");
}

/// Each would take this very process with it, or all its time and memory.
#[test]
fn what_strangers_templates_and_tokenizers_do_is_bounded() {
    let (folder, image) = vision_model();
    let generate = ["generate", "--model", text(folder.path()), "--image", text(&image), "--prompt", "what is it"];
    let doubled = "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}";
    let takes_long = format!("{doubled}{{% set first = ns.l %}}{doubled}{{{{ first == ns.l }}}}");
    for (template, said) in [
        ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".to_string(), "nests too deep"),
        (format!("{{{{ {}1 }}}}", "1 + ".repeat(100_000)), "nests too deep"),
        (takes_long, "more than 2 seconds"),
    ] {
        let path = folder.path().join("chat_template.jinja");
        fs::write(&path, template).expect("written");
        let errors = fails(&generate);
        assert!(errors.contains("chat_template.jinja: ") && errors.contains(said), "{errors}");
        fs::remove_file(path).expect("removed");
    }
    let path = folder.path().join("tokenizer.json");
    let whole: Value = serde_json::from_slice(&fs::read(&path).expect("a file")).expect("JSON");
    let replace =
        |from: &str, to: &str| serde_json::json!({"type": "Replace", "pattern": {"String": from}, "content": to});
    let grows = vec![replace("ℵ", "ℵℵ"); 60];
    let zeros = "A".repeat(64);
    for (field, part, said) in [
        ("normalizer", serde_json::json!({"type": "Sequence", "normalizers": grows}), "normalizer: makes a text up to"),
        (
            "normalizer",
            serde_json::json!({"type": "Precompiled", "precompiled_charsmap": zeros}),
            "cannot be used: damaged",
        ),
        ("pre_tokenizer", serde_json::json!({"type": "FixedLength", "length": 0}), "cannot be used: damaged"),
        (
            "post_processor",
            serde_json::json!({"type": "TemplateProcessing", "special_tokens": {}, "pair": [],
                "single": [{"Sequence": {"id": "B", "type_id": 0}}]}),
            "expected one text `A`, found `B`",
        ),
    ] {
        let mut changed = whole.clone();
        changed[field] = part;
        fs::write(&path, changed.to_string()).expect("written");
        let errors = fails(&generate);
        assert!(errors.contains("tokenizer.json: ") && errors.contains(said), "{errors}");
    }
}
