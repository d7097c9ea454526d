//! What a model's folder holds, as tools leave it: a fixture's weights, an image processor, a tokenizer.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/parity").join(name)
}

/// Copies a fixture's model into a folder of its own.
pub(crate) fn model(name: &str, folder: &Path) {
    fs::create_dir_all(folder).expect("a folder");
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(name).join(file), folder.join(file)).expect("a copy");
    }
}

pub(crate) fn write(path: PathBuf, value: &Value) {
    fs::write(path, value.to_string()).expect("written");
}

/// CLIP's image processor, for images of this side.
pub(crate) fn processor(folder: &Path, side: u64) {
    let processor = json!({
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": true, "size": { "shortest_edge": side }, "resample": 3,
        "do_center_crop": true, "crop_size": { "height": side, "width": side },
        "do_rescale": true, "rescale_factor": 1.0 / 255.0, "do_normalize": true,
        "image_mean": [0.48, 0.45, 0.40], "image_std": [0.26, 0.26, 0.27], "do_convert_rgb": true,
    });
    write(folder.join("preprocessor_config.json"), &processor);
}

/// A tokenizer of whole words that fills a vocabulary of `size`: these, behind three special ones, and others.
pub(crate) fn tokenizer(folder: &Path, words: &[&str], size: usize) {
    let named = ["<unk>", "<s>", "</s>"].iter().chain(words).map(|word| word.to_string());
    let others = (3 + words.len()..size).map(|i| format!("word{i}"));
    let vocabulary: serde_json::Map<String, Value> =
        named.chain(others).enumerate().map(|(i, word)| (word, i.into())).collect();
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
