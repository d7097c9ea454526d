//! A model's parts, small and whole, and images to train on.

#[path = "folders.rs"]
pub(crate) mod folders;

use folders::{model, processor, tokenizer, write};
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// Two image encoders with their processors, CLIP's and BLIP-2's, a BERT and a language model with a foreign tokenizer of 41
/// ids, and six images with `data.json`, LLaVA conversations about them.
pub(crate) fn parts() -> TempDir {
    let root = TempDir::new().expect("a folder");
    encoder("clip-quick-gelu", &root.path().join("vision"));
    encoder("blip2-retrieval", &root.path().join("blip2"));
    for (name, part) in [("llama2-full-heads", "decoder"), ("../bert", "bert")] {
        model(name, &root.path().join(part));
        // All of its table's rows: a token for images needs one more.
        let words = ["user", ":", "assistant", "what", "is", "it", "red", "blue"];
        tokenizer(&root.path().join(part), &words, 41);
    }
    let records: Vec<Value> = (0..6u8).map(|i| sample(root.path(), i)).collect();
    write(root.path().join("data.json"), &records.into());
    root
}

fn encoder(name: &str, folder: &Path) {
    model(name, folder);
    processor(folder, 12);
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
