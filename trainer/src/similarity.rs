//! How alike a model that compares finds held-out images and captions, each with each, for pictures.

use crate::data::Pair;
use crate::eval::contrastive::{Comparer, Features};
use crate::report::attention_png::png;
use crate::run_folder::RunFolder;
use crate::session::Dataset;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// The file in a run's folder.
pub const SIMILARITY: &str = "similarity.json";
/// Images and captions compared.
const PAIRS: usize = 12;

/// Scores of images and captions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Similarity {
    /// The images, relative to the run's folder.
    pub images: Vec<String>,
    /// Each image's own caption.
    pub captions: Vec<String>,
    /// One row per image, one column per caption: the contrastive loss's logits.
    pub scores: Vec<Vec<f32>>,
}

/// Compares held-out pairs and writes images and scores into the run's folder.
pub fn write(comparer: &Comparer<'_>, data: &Dataset, folder: &RunFolder) -> Result<()> {
    let pairs = pairs(data)?;
    if pairs.is_empty() {
        return Ok(());
    }
    let mut features = Features::default();
    comparer.add_images(&comparer.pixels_of(pairs.iter().map(|pair| &pair.image))?, &mut features)?;
    let captions: Vec<String> = pairs.iter().map(|pair| pair.caption.clone()).collect();
    let scores = comparer.scores(&features, &comparer.texts(&captions)?)?;
    let mut images = Vec::with_capacity(pairs.len());
    for (i, pair) in pairs.iter().enumerate() {
        let name = format!("similarity/{i:02}.png");
        folder.write(&name, &png(&pair.image)?)?;
        images.push(name);
    }
    let found = Similarity { images, captions, scores };
    folder.write(SIMILARITY, &serde_json::to_vec(&found)?)
}

/// Pairs whose captions differ; of the training images where nothing is held out.
fn pairs(data: &Dataset) -> Result<Vec<Pair>> {
    let some: Vec<Pair> = match data {
        Dataset::Scenes(source) => {
            let numbers = (1 << 31)..(1 << 31) + 4 * PAIRS as u64;
            numbers.map(|index| source.scenes.held_out(index)).collect()
        }
        Dataset::Corpus { train, heldout } => {
            // A picture is made of what can be read.
            let corpus = heldout.as_deref().unwrap_or(&train.corpus);
            let some = corpus.samples.iter().take(4 * PAIRS);
            some.filter_map(|sample| corpus.pair(sample).ok()).collect()
        }
    };
    let mut found: Vec<Pair> = Vec::new();
    for pair in some {
        if found.len() < PAIRS && found.iter().all(|other| other.caption != pair.caption) {
            found.push(pair);
        }
    }
    Ok(found)
}
