//! How alike a model with a Q-Former finds held-out images and captions, each with each, for pictures.

use crate::data::Pair;
use crate::data::corpus::Sample;
use crate::data::scenes::Split;
use crate::eval::comparing::{Features, comparer};
use crate::report::attention_png::png;
use crate::run_folder::RunFolder;
use crate::session::{Dataset, Session};
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

/// Compares held-out pairs, if the run teaches that, and writes images and scores into its folder.
///
/// # Errors
/// Those of the model and of the file system.
pub fn write(session: &Session, folder: &RunFolder) -> Result<()> {
    let Some(comparer) = comparer(&session.vlm, &session.params, &session.prepare) else {
        return Ok(());
    };
    let pairs = pairs(session);
    if session.recipe.phase1.is_none() || pairs.is_empty() {
        return Ok(());
    }
    let mut features = Features::default();
    let pixels = session.prepare.pixels(pairs.iter().map(|pair| &pair.image))?;
    comparer.add_images(&pixels, &mut features)?;
    let captions: Vec<String> = pairs.iter().map(|pair| pair.caption.clone()).collect();
    let scores = comparer.scores(&features, &comparer.texts(&captions)?)?;
    let mut images = Vec::with_capacity(pairs.len());
    for (i, pair) in pairs.iter().enumerate() {
        let name = format!("similarity/{i:02}.png");
        folder.write(&name, &png(&pair.image)?)?;
        images.push(name);
    }
    let found = Similarity {
        images,
        captions,
        scores,
    };
    folder.write(SIMILARITY, &serde_json::to_vec(&found)?)
}

/// Pairs whose captions differ; of the training images where nothing is held out.
fn pairs(session: &Session) -> Vec<Pair> {
    let mut found: Vec<Pair> = Vec::new();
    let mut add = |pair: Pair| {
        if found.len() < PAIRS && found.iter().all(|other| other.caption != pair.caption) {
            found.push(pair);
        }
    };
    match &session.data {
        Dataset::Scenes(source) => {
            for index in (1 << 31)..(1 << 31) + 4 * PAIRS as u64 {
                let scene = source.scenes.scene(Split::HeldOut, index);
                let mut rng = source.scenes.text_rng(Split::HeldOut, index, 7);
                add(Pair {
                    image: scene.render(source.scenes.image_size),
                    caption: scene.any_caption(&mut rng).to_string(),
                    scene: None,
                });
            }
        }
        Dataset::Corpus { train, heldout } => {
            let corpus = heldout.as_ref().unwrap_or(&train.corpus);
            let pair = |sample: &Sample| Pair {
                image: corpus.images[sample.image].clone(),
                caption: sample.turns[0].answer.clone(),
                scene: None,
            };
            corpus.samples.iter().take(4 * PAIRS).map(pair).for_each(add);
        }
    }
    found
}
