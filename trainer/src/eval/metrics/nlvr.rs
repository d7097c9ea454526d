//! NLVR's two figures (Suhr et al. 2017), as its `metrics_images.py` computes them.

use super::Measure;
use std::collections::BTreeMap;

/// One picture's answer.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// The sentence, which several pictures and the orders of their boxes share.
    pub sentence: usize,
    /// Whether it is true of the picture.
    pub label: bool,
    /// Whether the answer was right.
    pub right: bool,
}

/// Accuracy over all pictures, and consistency: the share of sentences with every picture right.
pub fn measures(answers: &[Answered]) -> Vec<Measure> {
    let yes = answers.iter().filter(|answer| answer.label).count();
    let majority = 2 * yes >= answers.len();
    let guess = yes.max(answers.len() - yes) as f64 / answers.len().max(1) as f64;
    let score = |answer: &Answered| (answer.sentence, f64::from(u8::from(answer.right)));
    let mut sentences = BTreeMap::<usize, (bool, bool)>::new();
    for answer in answers {
        let (right, guessed) = sentences.entry(answer.sentence).or_insert((true, true));
        *right &= answer.right;
        *guessed &= answer.label == majority;
    }
    let whole = |(&sentence, &(right, _)): (&usize, &(bool, bool))| (sentence, f64::from(u8::from(right)));
    let guessed = sentences.values().filter(|(_, guessed)| *guessed).count();
    vec![
        Measure::mean("accuracy", answers.iter().map(score)).guessing(guess),
        Measure::mean("consistency", sentences.iter().map(whole))
            .guessing(guessed as f64 / sentences.len().max(1) as f64),
    ]
}
