//! The readers, and whole folders for each to start from. A file whose name starts with `=` is never changed.

use super::Result;
use clap::Parser;
use engine::{DType, Device};
use image::{DynamicImage, ImageFormat, RgbImage};
use model::weights::TensorFile;
use model::{Chat, ImageProcessor, Message, Role, Tokenizer};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use trainer::checkpoint::Checkpoints;
use trainer::data::formats::{Ask, Format};
use trainer::data::images::ImageSource;
use trainer::data::record::Select;
use trainer::eval::pictures::Pictures;
use trainer::eval::tasks::{self, Name, Source};
use trainer::recipe::Recipe;

/// A folder's files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// One reader.
pub(crate) struct Reader {
    /// Its name on the command line.
    pub name: &'static str,
    /// Folders that it reads whole.
    pub seeds: fn() -> Result<Vec<Files>>,
    /// Has it read a folder; that it is refused is as good as that it is not.
    pub read: fn(&Path),
}

/// All of them.
pub(crate) const READERS: [Reader; 12] = [
    Reader { name: "template", seeds: templates, read: template },
    Reader { name: "tokenizer", seeds: tokenizers, read: tokenizer },
    Reader { name: "model", seeds: models, read: load },
    Reader { name: "safetensors", seeds: tensors, read: tensor_file },
    Reader { name: "image", seeds: images, read: image_files },
    Reader { name: "records", seeds: record_files, read: records },
    Reader { name: "webdataset", seeds: tars, read: webdataset },
    Reader { name: "zip", seeds: zips, read: zip_archive },
    Reader { name: "parquet", seeds: tables, read: parquet },
    Reader { name: "recipe", seeds: recipes, read: recipe },
    Reader { name: "benchmark", seeds: benchmarks, read: benchmark },
    Reader { name: "run", seeds: runs, read: run },
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn one(name: &str, bytes: impl Into<Vec<u8>>) -> Files {
    Files::from([(name.to_string(), bytes.into())])
}

/// The small files of a folder.
fn folder(path: &Path) -> Result<Files> {
    let mut files = Files::new();
    for entry in std::fs::read_dir(path)? {
        let path = entry?.path();
        if path.is_file() && path.metadata()?.len() < 1 << 20 {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(files)
}

fn chat_cases() -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(fixtures().join("chat.json"))?)?)
}

fn templates() -> Result<Vec<Files>> {
    let cases = chat_cases()?;
    let template = |case: &Value| one("chat_template.jinja", case["template"].as_str().unwrap_or_default());
    Ok(cases["cases"].as_array().into_iter().flatten().map(template).collect())
}

fn template(folder: &Path) {
    static TOKENIZER: OnceLock<Option<Tokenizer>> = OnceLock::new();
    let read = || {
        let place = tempfile::tempdir().ok()?;
        let text = chat_cases().ok()?["tokenizer"].to_string();
        std::fs::write(place.path().join("tokenizer.json"), text).ok()?;
        Tokenizer::load(&place.path().join("tokenizer.json")).ok()
    };
    let Some(tokenizer) = TOKENIZER.get_or_init(read) else {
        return;
    };
    let Ok(chat) = Chat::open(folder, tokenizer) else {
        return;
    };
    let said = [(Role::User, "What is it?"), (Role::Assistant, "A red circle."), (Role::User, "é")];
    let messages = said.map(|(role, text)| Message::text(role, text));
    let _ = chat.prompt(tokenizer, &messages);
    let _ = chat.turn(tokenizer, &messages[..2]);
}

fn tokenizers() -> Result<Vec<Files>> {
    let whole = chat_cases()?["tokenizer"].clone();
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let sequence = json!({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Prepend", "prepend": "▁"},
        replace(json!({"String": " "}), "▁"), replace(json!({"Regex": " {2,}"}), " "), {"type": "Strip", "strip_left": true,
        "strip_right": true}, {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
        "strip_accents": null, "lowercase": true}]});
    let split = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\p{L}+"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true}, {"type": "FixedLength", "length": 5}, {"type": "BertPreTokenizer"}]});
    let decoder = json!({"type": "Sequence", "decoders": [replace(json!({"String": "▁"}), " "), {"type": "ByteFallback"},
        {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    let around = json!({"type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}},
        {"Sequence": {"id": "B", "type_id": 1}}], "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}});
    let map = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAAAAAAAAAA"});
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false,
        "vocab": [["<unk>", 0.0], ["▁", -1.0], ["a", -2.0], ["is", -3.5], ["red", -4.0]]});
    let words = json!({"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "a": 4, "is": 5, "##s": 6, "i": 7});
    let pieces = json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100, "vocab": words});
    let pairs = json!({"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
        "vocab": {"<unk>": 0, "a": 1, "b": 2, "ab": 3, "<0x0A>": 4}, "merges": [["a", "b"]]});
    let changed = [
        ("normalizer", sequence),
        ("pre_tokenizer", split),
        ("decoder", decoder),
        ("post_processor", around),
        ("normalizer", map),
        ("model", unigram),
        ("model", pieces),
        ("model", pairs),
    ];
    let with = |(part, value): (&str, Value)| {
        let mut changed = whole.clone();
        changed[part] = value;
        one("tokenizer.json", changed.to_string())
    };
    Ok(changed.into_iter().map(with).chain([one("tokenizer.json", whole.to_string())]).collect())
}

fn tokenizer(folder: &Path) {
    let path = folder.join("tokenizer.json");
    // One that takes all its time takes it once.
    let loaded = Tokenizer::load(&path);
    let opened = loaded.is_ok().then(|| Tokenizer::open(folder).ok()).flatten();
    for tokenizer in loaded.ok().into_iter().chain(opened) {
        for text in ["What is it?", "", "日本語 👩\u{200d}👧 \u{0}", &"a b".repeat(200)] {
            if let Ok(ids) = tokenizer.encode(text) {
                let _ = tokenizer.decode(&ids);
            }
        }
    }
}

fn models() -> Result<Vec<Files>> {
    let mut all = Vec::new();
    for case in lenslet_tests::cases() {
        let mut files = folder(&case)?;
        files.remove("expected.safetensors");
        let weights: Vec<String> = files.keys().filter(|name| name.ends_with(".safetensors")).cloned().collect();
        for name in weights {
            let bytes = files.remove(&name).unwrap_or_default();
            files.insert(format!("={name}"), bytes);
        }
        let processor = json!({"image_processor_type": "CLIPImageProcessor", "do_resize": true, "size": {"shortest_edge": 12},
            "do_center_crop": true, "crop_size": {"height": 12, "width": 12}, "resample": 3, "do_rescale": true,
            "rescale_factor": 0.0039, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]});
        files.insert("preprocessor_config.json".into(), processor.to_string().into());
        files.insert("generation_config.json".into(), r#"{"eos_token_id": [2, 3], "num_beams": 2, "top_k": 5}"#.into());
        all.push(files);
    }
    Ok(all)
}

fn load(folder: &Path) {
    let _ = model::hf::load(folder, &Device::cpu(), DType::F32, true);
    if let Ok(processor) = ImageProcessor::open(folder) {
        let _ = processor.square(&RgbImage::new(30, 20));
    }
}

fn tensors() -> Result<Vec<Files>> {
    let small = ["parity/llava", "parity/llama3-rope-bf16", "bert"];
    let file = |name: &&str| std::fs::read(fixtures().join(name).join("model.safetensors"));
    small.iter().map(|name| Ok(one("model.safetensors", file(name)?))).collect()
}

fn tensor_file(folder: &Path) {
    let Ok(file) = TensorFile::open(&folder.join("model.safetensors")) else {
        return;
    };
    for name in file.names() {
        let _ = file.tensor(name, &Device::cpu());
    }
}

/// Pictures of several kinds, each as it is written by the `image` library.
fn pictures() -> Result<Vec<(&'static str, Vec<u8>)>> {
    let colours = DynamicImage::from(RgbImage::from_fn(23, 17, |x, y| {
        image::Rgb([(x * 11) as u8, (y * 15) as u8, (x * y) as u8])
    }));
    let kinds = [
        ("rgb.png", colours.clone(), ImageFormat::Png),
        ("grey.png", colours.to_luma8().into(), ImageFormat::Png),
        ("deep.png", colours.to_rgba16().into(), ImageFormat::Png),
        ("rgb.jpg", colours.clone(), ImageFormat::Jpeg),
        ("grey.jpg", colours.to_luma8().into(), ImageFormat::Jpeg),
        ("rgba.webp", colours.to_rgba8().into(), ImageFormat::WebP),
    ];
    let written = |(name, picture, format): (&'static str, DynamicImage, ImageFormat)| {
        let mut bytes = Cursor::new(Vec::new());
        picture.write_to(&mut bytes, format)?;
        Ok((name, bytes.into_inner()))
    };
    kinds.into_iter().map(written).collect()
}

fn images() -> Result<Vec<Files>> {
    Ok(pictures()?.into_iter().map(|(name, bytes)| one(name, bytes)).collect())
}

fn image_files(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let _ = model::open_image(&entry.path());
    }
}

fn record_files() -> Result<Vec<Files>> {
    let turns = json!([{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "a dog"}]);
    let llava = json!([{"id": "1", "image": "a.jpg", "conversations": turns}, {"id": 2, "image": ["a.jpg"], "system": "s",
        "split": "train", "conversations": turns}]);
    let parts = json!([{"type": "image"}, {"type": "text", "text": "What?"}]);
    let messages = json!({"images": ["a.jpg"], "messages": [{"role": "system", "content": "s"},
        {"role": "user", "content": parts}, {"role": "assistant", "content": "a dog"}]});
    let completion = json!({"image": "a.jpg", "prompt": "What?", "completion": "a dog"});
    let coco =
        json!({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "a dog"}]});
    Ok(vec![
        one("llava.json", llava.to_string()),
        one("messages.jsonl", format!("{messages}\n{messages}")),
        one("completion.jsonl", completion.to_string()),
        one("coco.json", coco.to_string()),
        one("coco.jsonl", r#"{"file_name": "a.jpg", "captions": ["a dog"]}"#),
    ])
}

fn records(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let format = match path.file_stem().and_then(|stem| stem.to_str()) {
            Some("llava") => Format::Llava,
            Some("messages") => Format::Messages,
            Some("completion") => Format::Completion,
            _ => Format::Coco,
        };
        let split = Select { split: Some("train".into()), field: "split".into(), ..Select::default() };
        for select in [Select::default(), split] {
            let _ = format.open(&path, Some(folder), &select, &Ask::default());
        }
    }
}

/// Adds a member to a tar.
fn member(tar: &mut tar::Builder<Vec<u8>>, name: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    Ok(tar.append_data(&mut header, name, bytes)?)
}

fn tars() -> Result<Vec<Files>> {
    let pictures = pictures()?;
    let mut plain = tar::Builder::new(Vec::new());
    let mut linked = tar::Builder::new(Vec::new());
    for (i, (name, bytes)) in pictures.iter().enumerate() {
        let ending = name.rsplit('.').next().unwrap_or_default();
        member(&mut plain, &format!("./x/{i}.{ending}"), bytes)?;
        member(&mut plain, &format!("./x/{i}.txt"), b"a dog")?;
        member(&mut linked, &format!("{}/{i}.{ending}", "long".repeat(40)), bytes)?;
        member(&mut linked, &format!("{}/{i}.json", "long".repeat(40)), br#"{"caption": "a dog", "split": "train"}"#)?;
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    linked.append_link(&mut header, "link.png", "other.png")?;
    Ok(vec![one("a.tar", plain.into_inner()?), one("a.tar", linked.into_inner()?)])
}

fn webdataset(folder: &Path) {
    read_all(Format::Webdataset, &folder.join("a.tar"));
}

/// Reads all records of an archive, and their images.
fn read_all(format: Format, path: &Path) {
    let Ok((found, source)) = format.open(path, None, &Select::default(), &Ask::default()) else {
        return;
    };
    for name in found.records.iter().flat_map(|record| &record.content.images) {
        let _ = source.load(name);
    }
}

fn zips() -> Result<Vec<Files>> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let stored = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for (name, bytes) in pictures()? {
        zip.start_file(format!("x/{name}"), stored)?;
        zip.write_all(&bytes)?;
    }
    Ok(vec![one("a.zip", zip.finish()?.into_inner())])
}

fn zip_archive(folder: &Path) {
    let Ok(source) = ImageSource::open(&folder.join("a.zip")) else {
        return;
    };
    for name in source.names().unwrap_or_default() {
        let _ = source.load(&name);
    }
}

fn tables() -> Result<Vec<Files>> {
    Ok(vec![one("a.parquet", std::fs::read(fixtures().join("captions.parquet"))?)])
}

fn parquet(folder: &Path) {
    read_all(Format::Parquet, &folder.join("a.parquet"));
}

fn recipes() -> Result<Vec<Files>> {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../recipes");
    Ok(folder(&all)?.into_values().map(|text| one("r.toml", text)).collect())
}

fn recipe(folder: &Path) {
    let path = folder.join("r.toml");
    if let Ok(text) = std::fs::read_to_string(&path) {
        let _ = Recipe::parse(&text, &path, &["run.seed=1".into()]);
    }
}

fn benchmarks() -> Result<Vec<Files>> {
    let files = [
        (
            "pope.json",
            r#"{"question_id": 1, "image": "a.jpg", "text": "Is there a dog in the image?", "label": "yes"}"#,
        ),
        ("vsr.jsonl", r#"{"image": "a.jpg", "caption": "The dog is under it.", "label": 1, "relation": "under"}"#),
        ("nlvr.json", r#"{"sentence": "a", "label": "true", "identifier": "12-0", "directory": "2"}"#),
        ("vqa.json", r#"[{"image": "a.jpg", "question": "How many?", "answers": ["2", {"answer": "two"}]}]"#),
        ("questions.json", r#"{"questions": [{"question_id": 7, "image_id": 42, "question": "How many?"}]}"#),
        ("annotations.json", r#"{"annotations": [{"question_id": 7, "answers": [{"answer": "2"}]}]}"#),
        (
            "captions.json",
            r#"{"images": [{"id": 1, "file_name": "a.jpg"}], "categories": [{"id": 18, "name": "dog"}],
            "annotations": [{"image_id": 1, "caption": "a dog"}, {"image_id": 1, "category_id": 18}]}"#,
        ),
        ("lines.jsonl", r#"{"file": "a.jpg", "captions": ["a dog"], "objects": [{"category": "dog"}]}"#),
    ];
    Ok(files.map(|(name, text)| one(name, text)).into())
}

fn benchmark(folder: &Path) {
    let names =
        [Name::Pope, Name::Vsr, Name::Nlvr, Name::Vqa, Name::Caption, Name::Chair, Name::Retrieval, Name::Matching];
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let data: Vec<PathBuf> = files.map(|entry| entry.path()).collect();
    let Ok(pictures) = Pictures::open(folder) else { return };
    for name in names {
        let source = Source { data: data.clone(), ..Source::default() };
        let _ = tasks::open(name, &source, &pictures);
    }
}

/// A run of two steps, with all that it leaves.
fn runs() -> Result<Vec<Files>> {
    let place = tempfile::tempdir()?;
    let out = place.path().join("run");
    let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trainer/tests/recipes/tiny.toml");
    let words = ["lenslet", "train", "--recipe"].map(PathBuf::from);
    let words = words.into_iter().chain([tiny, "--out".into(), out.clone()]);
    trainer::commands::run(trainer::cli::Cli::try_parse_from(words)?)?;
    let mut files = Files::new();
    for inner in ["", "checkpoint-50"] {
        for (name, bytes) in folder(&out.join(inner)).unwrap_or_default() {
            files.insert(format!("{inner}/{name}").trim_start_matches('/').into(), bytes);
        }
    }
    Ok(vec![files])
}

fn run(folder: &Path) {
    let _ = trainer::report::html::write(folder);
    if let Ok((Some(checkpoint), _)) = Checkpoints::of(folder, 2).newest() {
        drop(checkpoint);
    }
}
