//! CIDEr-D (Vedantam et al. 2015), as `pycocoevalcap` computes it.

use super::bleu::ngrams;
use std::collections::{HashMap, HashSet};

/// The longest n-grams.
const LONGEST: usize = 4;
/// How far lengths may differ.
const SIGMA: f64 = 6.0;

/// Each caption's score, from 0 to 10: the mean similarity to its references in n-grams weighted by how few images have
/// them. The weights come from `references`, those of all images together, so that a score depends on the whole set and is
/// 0 where there is one image only.
pub fn scores(captions: &[Vec<String>], references: &[Vec<Vec<String>>]) -> Vec<f64> {
    let weights = Weights::new(references);
    let score = |(caption, references): (&Vec<String>, &Vec<Vec<String>>)| {
        let caption = weights.vector(caption);
        let sum: f64 = references.iter().map(|r| similarity(&caption, &weights.vector(r))).sum();
        10.0 * sum / (LONGEST * references.len().max(1)) as f64
    };
    captions.iter().zip(references).map(score).collect()
}

/// In how many images' references each n-gram occurs.
struct Weights<'a> {
    images: HashMap<&'a [String], usize>,
    log_all: f64,
}

/// A text's n-grams, weighted: per length the weights and their norm.
struct Vector<'a> {
    weights: [HashMap<&'a [String], f64>; LONGEST],
    norms: [f64; LONGEST],
    /// Its bigrams: the reference takes these for its length.
    length: usize,
}

impl<'a> Weights<'a> {
    fn new(references: &'a [Vec<Vec<String>>]) -> Weights<'a> {
        let mut images = HashMap::new();
        for image in references {
            let all: HashSet<&[String]> = image.iter().flat_map(|r| (1..=LONGEST).flat_map(|n| r.windows(n))).collect();
            for ngram in all {
                *images.entry(ngram).or_default() += 1;
            }
        }
        Weights { images, log_all: (references.len() as f64).ln() }
    }

    fn vector<'t>(&self, tokens: &'t [String]) -> Vector<'t> {
        let weigh = |(ngram, count): (&'t [String], usize)| {
            let images = self.images.get(ngram).copied().unwrap_or(0).max(1);
            (ngram, count as f64 * (self.log_all - (images as f64).ln()))
        };
        let weights: [HashMap<_, _>; LONGEST] =
            std::array::from_fn(|n| ngrams(tokens, n + 1).into_iter().map(weigh).collect());
        let norm = |weights: &HashMap<_, f64>| weights.values().map(|w| w * w).sum::<f64>().sqrt();
        Vector { norms: std::array::from_fn(|n| norm(&weights[n])), weights, length: tokens.len().saturating_sub(1) }
    }
}

/// The sum over n of clipped cosines, less for texts of different length.
fn similarity(caption: &Vector<'_>, reference: &Vector<'_>) -> f64 {
    let delta = caption.length.abs_diff(reference.length) as f64;
    let penalty = (-(delta * delta) / (2.0 * SIGMA * SIGMA)).exp();
    let cosine = |n: usize| {
        let own = caption.weights[n].iter();
        let dot: f64 =
            own.filter_map(|(ngram, &weight)| reference.weights[n].get(ngram).map(|r| weight.min(*r) * r)).sum();
        match caption.norms[n] * reference.norms[n] {
            0.0 => dot,
            norms => dot / norms,
        }
    };
    penalty * (0..LONGEST).map(cosine).sum::<f64>()
}
