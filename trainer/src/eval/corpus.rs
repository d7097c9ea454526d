//! Measuring on conversations from disk that were kept out of training.

use super::answers::{Asked, answers};
use super::comparing::{comparer, retrieval};
use super::metrics::Measure;
use super::pictures::blank;
use super::{Figures, figures};
use crate::data::corpus::{Corpus, Sample};
use crate::data::{Pair, Prepare};
use anyhow::Result;
use engine::Params;
use model::Vlm;
use std::collections::BTreeMap;

/// Retrieval between the images and their first answers, read as captions. Empty without a Q-Former.
pub fn alignment(vlm: &Vlm, params: &Params, prepare: &Prepare, heldout: &Corpus, count: usize) -> Result<Figures> {
    let Some(comparer) = comparer(vlm, params, prepare) else {
        return Ok(Figures::new());
    };
    let pair = |sample: &Sample| Pair {
        image: heldout.images[sample.image].clone(),
        caption: sample.turns[0].answer.clone(),
        scene: None,
    };
    let pairs: Vec<Pair> = heldout.samples.iter().take(count).map(pair).collect();
    retrieval(&comparer, &pairs)
}

/// The share of first questions answered word for word, of the most frequent answer, and of a blank image.
pub fn instruction(vlm: &Vlm, params: &Params, prepare: &Prepare, heldout: &Corpus, count: usize) -> Result<Figures> {
    let samples = &heldout.samples[..heldout.samples.len().min(count)];
    let turns = |s: &Sample| vec![(s.turns[0].question.clone(), s.turns[0].answer.clone())];
    let seen: Vec<Asked> = samples
        .iter()
        .map(|s| Asked {
            image: heldout.images[s.image].clone(),
            turns: turns(s),
        })
        .collect();
    let unseen: Vec<Asked> = samples
        .iter()
        .map(|s| Asked {
            image: blank(&prepare.processor),
            turns: turns(s),
        })
        .collect();
    let mut frequency = BTreeMap::<&str, usize>::new();
    for asked in &seen {
        *frequency.entry(asked.turns[0].1.as_str()).or_default() += 1;
    }
    let majority = frequency.values().copied().max().unwrap_or(0) as f64 / samples.len().max(1) as f64;
    let exact = |prefix, asked: &[Asked]| -> Result<Figures> {
        let right = exact(&answers(vlm, params, prepare, asked)?, asked, prepare)?;
        let scores = samples
            .iter()
            .zip(right)
            .map(|(sample, right)| (sample.image, f64::from(u8::from(right))));
        Ok(figures(prefix, &[Measure::mean("answers.exact", scores)]))
    };
    let mut found = exact("", &seen)?;
    found.extend(exact("control.blank.", &unseen)?);
    found.insert("answers.majority".into(), majority);
    Ok(found)
}

/// Which answers are the expected ones, as the tokenizer sees it: case and spacing that it drops do not count.
fn exact(said: &[Vec<String>], asked: &[Asked], prepare: &Prepare) -> Result<Vec<bool>> {
    let right = |(said, asked): (&Vec<String>, &Asked)| {
        let ids = prepare.tokenizer.encode(&asked.turns[0].1)?;
        Ok(said[0] == prepare.tokenizer.decode(&ids)?)
    };
    said.iter().zip(asked).map(right).collect()
}
