//! A model's parts, small and whole: folders as tools leave them.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures/parity")
        .join(name)
}

/// Copies a fixture's model into a folder of its own.
fn model(name: &str, folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), folder.join(file)).expect("a copy");
    }
}

fn write(path: PathBuf, value: &Value) {
    fs::write(path, value.to_string()).expect("written");
}

/// Two image encoders with their processors, CLIP's and BLIP-2's, a BERT and a language model with a foreign tokenizer of 41
/// ids, and six images with `data.json`, LLaVA conversations about them.
pub(crate) fn parts() -> TempDir {
    let root = TempDir::new().expect("a folder");
    encoder("clip-quick-gelu", &root.path().join("vision"));
    encoder("blip2-retrieval", &root.path().join("blip2"));
    for (name, part) in [("llama2-full-heads", "decoder"), ("../bert", "bert")] {
        model(name, &root.path().join(part));
        tokenizer(&root.path().join(part));
    }
    let records: Vec<Value> = (0..6u8).map(|i| sample(root.path(), i)).collect();
    write(root.path().join("data.json"), &records.into());
    root
}

fn encoder(name: &str, folder: &Path) {
    model(name, folder);
    let processor = json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true, "size": { "shortest_edge": 12 }, "resample": 3,
        "do_center_crop": true, "crop_size": { "height": 12, "width": 12 },
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true,
        "image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.26, 0.27], "do_convert_rgb": true,
    });
    write(folder.join("preprocessor_config.json"), &processor);
}

/// Words of a vocabulary that fills the language model's table: a token for images needs a row more.
fn tokenizer(folder: &Path) {
    let mut words: Vec<String> = [
        "<unk>",
        "<s>",
        "</s>",
        "user",
        ":",
        "assistant",
        "what",
        "is",
        "it",
        "red",
        "blue",
    ]
    .map(String::from)
    .to_vec();
    words.extend((words.len()..41).map(|i| format!("word{i}")));
    let vocabulary: serde_json::Map<String, Value> = words
        .iter()
        .enumerate()
        .map(|(i, word)| (word.clone(), i.into()))
        .collect();
    let special = |id: u32, token: &str| {
        json!({ "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
                "special": true })
    };
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "normalizer": { "type": "Lowercase" }, "pre_tokenizer": { "type": "BertPreTokenizer" },
        "post_processor": null, "decoder": null,
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>" },
    });
    write(folder.join("tokenizer.json"), &tokenizer);
    let config = json!({ "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>" });
    write(folder.join("tokenizer_config.json"), &config);
}

/// An image of one colour, or the other, and what is said of it.
fn sample(root: &Path, i: u8) -> Value {
    let (name, red) = (format!("{i}.png"), i.is_multiple_of(2));
    let colour = if red { [200 + i, 20, 20] } else { [20, 20, 200 + i] };
    let image = image::RgbImage::from_fn(20, 14, |x, _| image::Rgb(colour.map(|c| c + x as u8)));
    image.save(root.join(&name)).expect("an image");
    let split = if i < 4 { "train" } else { "heldout" };
    json!({ "id": i.to_string(), "image": name, "split": split, "conversations": [
        { "from": "human", "value": "<image>\nwhat is it" },
        { "from": "gpt", "value": if red { "red" } else { "blue" } },
    ] })
}
