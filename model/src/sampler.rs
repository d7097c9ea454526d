//! Choosing the next token.

use crate::error::{Result, input};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// How the next token is drawn from the logits: the penalty first, then temperature, top-k, top-p and min-p, each on what
/// the one before it left. Names, order and formulas are those of `transformers`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampler {
    /// Divides the logits; at 0 the likeliest token is taken.
    pub temperature: f64,
    /// Only this many of the likeliest tokens and those as likely as the last of them; 0 for all.
    pub top_k: usize,
    /// Only the likeliest tokens that together reach this probability (Holtzman et al. 2020).
    pub top_p: f64,
    /// Only tokens at least this many times as likely as the likeliest (Nguyen et al. 2024); 0 for all.
    pub min_p: f64,
    /// Divides positive logits of tokens in the prompt or the answer and multiplies negative ones (Keskar et al. 2019);
    /// 1 for none.
    pub repetition_penalty: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }
}

/// A sampler at work.
#[derive(Debug)]
pub(crate) struct Draws {
    settings: Sampler,
    rng: ChaCha8Rng,
}

/// Tokens that may be drawn, the likeliest first, each with its weight beside the likeliest's 1.
struct Kept {
    ids: Vec<usize>,
    weights: Vec<f64>,
}

impl Sampler {
    /// Fails when a setting is out of its range.
    pub(crate) fn validate(&self) -> Result<()> {
        let refuse = |what, value: f64, range: &str| input(what, format!("{value} is not {range}"));
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse("temperature", self.temperature, "a finite number of at least 0");
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p, "in 0 < p ≤ 1");
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return refuse("min_p", self.min_p, "in 0 ≤ p ≤ 1");
        }
        if !(self.repetition_penalty.is_finite() && self.repetition_penalty > 0.0) {
            let range = "a finite number above 0";
            return refuse("repetition_penalty", self.repetition_penalty, range);
        }
        Ok(())
    }

    /// The probability with which each token is drawn, given its logit and the tokens `seen` in prompt and answer: 0 for
    /// those that are cut.
    ///
    /// ```
    /// let sampler = model::Sampler { temperature: 1.0, top_k: 2, ..Default::default() };
    /// let p = sampler.probabilities(&[0.0, 2.0, 2.0, 1.0], &[])?;
    /// assert_eq!(p, [0.0, 0.5, 0.5, 0.0]);
    /// # Ok::<(), model::Error>(())
    /// ```
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn probabilities(&self, logits: &[f64], seen: &[u32]) -> Result<Vec<f64>> {
        self.validate()?;
        let mut probabilities = vec![0.0; logits.len()];
        let kept = self.kept(self.penalised(logits, seen.iter().copied()));
        let total: f64 = kept.weights.iter().sum();
        for (id, weight) in kept.ids.into_iter().zip(kept.weights) {
            probabilities[id] = weight / total;
        }
        Ok(probabilities)
    }

    /// Scores after the repetition penalty, which counts a token once however often it was seen.
    pub(crate) fn penalised(&self, scores: &[f64], seen: impl Iterator<Item = u32>) -> Vec<f64> {
        let mut scores = scores.to_vec();
        if self.repetition_penalty == 1.0 {
            return scores;
        }
        for id in seen.collect::<HashSet<u32>>() {
            if let Some(score) = scores.get_mut(id as usize) {
                *score = match *score < 0.0 {
                    true => *score * self.repetition_penalty,
                    false => *score / self.repetition_penalty,
                };
            }
        }
        scores
    }

    fn kept(&self, scores: Vec<f64>) -> Kept {
        if self.temperature == 0.0 {
            return Kept { ids: vec![likeliest(&scores) as usize], weights: vec![1.0] };
        }
        let mut ids: Vec<usize> = (0..scores.len()).collect();
        // Of equals the last comes first, as the reference has it.
        ids.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
        if let Some(&last) = self.top_k.checked_sub(1).and_then(|last| ids.get(last)) {
            ids.truncate(ids.partition_point(|&id| scores[id] >= scores[last]));
        }
        let highest = ids.first().map_or(0.0, |&id| scores[id]);
        let weight = |&id: &usize| ((scores[id] - highest) / self.temperature).exp();
        let mut weights: Vec<f64> = ids.iter().map(weight).collect();
        weights.truncate(nucleus(&weights, self.top_p));
        let likely = weights.iter().take_while(|&&weight| weight >= self.min_p).count();
        weights.truncate(likely.max(1));
        ids.truncate(weights.len());
        Kept { ids, weights }
    }
}

/// How many of the weights, largest first, remain when the tail that has at most 1 − `top_p` of their sum is cut.
fn nucleus(weights: &[f64], top_p: f64) -> usize {
    if top_p >= 1.0 {
        return weights.len();
    }
    let cut = (1.0 - top_p) * weights.iter().sum::<f64>();
    let mut tail = 0.0;
    let dropped = weights.iter().rev().take_while(|&&weight| {
        tail += weight;
        tail <= cut
    });
    (weights.len() - dropped.count()).max(1)
}

impl Draws {
    pub(crate) fn new(settings: Sampler) -> Draws {
        Draws { settings, rng: ChaCha8Rng::seed_from_u64(settings.seed) }
    }

    /// An id, given each id's logit and the ids in prompt and answer so far.
    pub(crate) fn draw(&mut self, logits: &[f64], seen: impl Iterator<Item = u32>) -> u32 {
        let Kept { ids, weights } = self.settings.kept(self.settings.penalised(logits, seen));
        if let [only] = ids[..] {
            return only as u32;
        }
        let mut left = self.rng.random::<f64>() * weights.iter().sum::<f64>();
        let drawn = weights.iter().position(|weight| {
            left -= weight;
            left < 0.0
        });
        ids.get(drawn.unwrap_or(0)).map_or(0, |&id| id as u32)
    }
}

/// The id of the largest logit, the first among equals.
pub(crate) fn likeliest(logits: &[f64]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).reduce(better).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f64; 4] = [1.0, 3.0, 2.0, -1.0];

    fn drawn(settings: Sampler) -> Vec<usize> {
        let mut draws = Draws::new(settings);
        let mut counts = vec![0; LOGITS.len()];
        for _ in 0..4000 {
            counts[draws.draw(&LOGITS, [].into_iter()) as usize] += 1;
        }
        counts
    }

    fn warm() -> Sampler {
        Sampler { temperature: 1.0, ..Sampler::default() }
    }

    #[test]
    fn zero_temperature_takes_the_likeliest() {
        assert_eq!(drawn(Sampler::default()), [0, 4000, 0, 0]);
        assert_eq!(likeliest(&[2.0, 2.0]), 0);
        assert_eq!(Sampler::default().probabilities(&LOGITS, &[]).unwrap(), [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let penalty = Sampler { top_p: 0.95, min_p: 0.01, ..warm() };
        for settings in [warm(), Sampler { top_k: 2, ..warm() }, penalty] {
            let counts = drawn(settings);
            let probabilities = settings.probabilities(&LOGITS, &[]).unwrap();
            assert!((probabilities.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            for (count, p) in counts.iter().zip(probabilities) {
                // Five standard deviations of a binomial.
                let slack = 5.0 * (4000.0 * p * (1.0 - p)).sqrt();
                assert!((*count as f64 - 4000.0 * p).abs() <= slack, "{settings:?}: {counts:?}");
            }
        }
    }

    #[test]
    fn a_seed_repeats_its_draws() {
        let settings = |seed| Sampler { temperature: 2.0, seed, ..Sampler::default() };
        assert_eq!(drawn(settings(7)), drawn(settings(7)));
        assert_ne!(drawn(settings(7)), drawn(settings(8)));
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let bad = [
            ("temperature", Sampler { temperature: f64::NAN, ..warm() }),
            ("top_p", Sampler { top_p: 0.0, ..warm() }),
            ("min_p", Sampler { min_p: 1.5, ..warm() }),
            ("repetition_penalty", Sampler { repetition_penalty: 0.0, ..warm() }),
        ];
        for (name, sampler) in bad {
            let error = sampler.probabilities(&LOGITS, &[]).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
    }

    #[test]
    fn no_logits_and_infinite_ones_do_no_harm() {
        assert!(warm().probabilities(&[], &[]).unwrap().is_empty());
        assert_eq!(Draws::new(warm()).draw(&[], [].into_iter()), 0);
        let p = warm().probabilities(&[f64::NEG_INFINITY, 0.0], &[0, 9]).unwrap();
        assert_eq!(p, [0.0, 1.0]);
    }
}
