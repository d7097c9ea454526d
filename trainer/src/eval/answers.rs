//! Short answers to many questions, all of an image's questions in one pass.
//!
//! The questions about an image share it and do not see each other, so each is answered as if asked alone. With
//! greedy decoding an answer is the expected one exactly when, fed the expected answer, the model's first choice is
//! right at every token; what it says instead is known up to its first wrong token.

use crate::data::Prepare;
use anyhow::Result;
use engine::{Graph, Params};
use image::RgbImage;
use model::{IGNORE, Vlm};

/// Images answered about at once.
const BATCH: usize = 32;

/// An image and questions with the answers expected.
pub struct Asked {
    /// The image.
    pub image: RgbImage,
    /// Questions and answers.
    pub turns: Vec<(String, String)>,
}

/// What the model says to each question of each image: the expected answer, or the words up to the first wrong one.
pub fn answers(vlm: &Vlm, params: &Params, prepare: &Prepare, asked: &[Asked]) -> Result<Vec<Vec<String>>> {
    let mut all = Vec::with_capacity(asked.len());
    for batch in asked.chunks(BATCH) {
        let graph = Graph::inference(params);
        let pixels = prepare.tensor(params, &prepare.pixels(batch.iter().map(|a| &a.image))?)?;
        let rows: Vec<_> = batch.iter().map(|a| a.turns.clone()).collect();
        let text = prepare.text(&rows, true)?;
        let found = vlm
            .loss(&graph, &graph.input(pixels), &text)?
            .predictions
            .to_vec::<i32>()?;
        for (row, asked) in batch.iter().enumerate() {
            let places = row * text.tokens..(row + 1) * text.tokens;
            let said = |segment: i32| {
                let mine = places
                    .clone()
                    .filter(|&i| text.segments[i] == segment && text.targets[i] != IGNORE);
                first_words(mine.map(|i| (found[i], text.targets[i])), prepare)
            };
            all.push((1..=asked.turns.len() as i32).map(said).collect::<Result<_>>()?);
        }
    }
    Ok(all)
}

/// The predicted tokens up to the first that differs from its target, as text.
fn first_words(tokens: impl Iterator<Item = (i32, i32)>, prepare: &Prepare) -> Result<String> {
    let mut ids = Vec::new();
    for (found, target) in tokens {
        ids.push(found as u32);
        if found != target {
            break;
        }
    }
    Ok(prepare.tokenizer.decode(&ids)?)
}
