//! BLEU of a whole set of captions (Papineni et al. 2002), as `pycocoevalcap` computes it.

use super::Measure;
use std::collections::HashMap;

/// The longest n-grams.
const LONGEST: usize = 4;

/// How often each n-gram of `n` tokens occurs.
pub(super) fn ngrams(tokens: &[String], n: usize) -> HashMap<&[String], usize> {
    let mut counts = HashMap::new();
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_default() += 1;
    }
    counts
}

/// What one caption adds: its length, that of the reference closest in length (the shorter of two), and per n the
/// n-grams it has and those that a reference has, too, at most as often.
pub fn row(caption: &[String], references: &[Vec<String>]) -> Vec<f64> {
    let closest = references.iter().map(Vec::len).min_by_key(|len| (len.abs_diff(caption.len()), *len));
    let mut row = vec![caption.len() as f64, closest.unwrap_or(0) as f64];
    for n in 1..=LONGEST {
        let counts = ngrams(caption, n);
        let references: Vec<_> = references.iter().map(|reference| ngrams(reference, n)).collect();
        let most = |ngram: &[String]| references.iter().filter_map(|r| r.get(ngram)).max().copied().unwrap_or(0);
        let right: usize = counts.iter().map(|(ngram, &count)| count.min(most(ngram))).sum();
        row.extend([counts.values().sum::<usize>() as f64, right as f64]);
    }
    row
}

/// BLEU-`N` of the sums of rows. The tiny terms, which keep captions without a match above zero, are the reference's own.
fn bleu<const N: usize>(sums: &[f64]) -> f64 {
    const SMALL: f64 = 1e-9;
    const TINY: f64 = 1e-15;
    let precision = |n: usize| (sums[3 + 2 * n] + TINY) / (sums[2 + 2 * n] + SMALL);
    let product: f64 = (0..N).map(precision).product();
    let ratio = (sums[0] + TINY) / (sums[1] + SMALL);
    let brevity = if ratio < 1.0 { (1.0 - 1.0 / ratio).exp() } else { 1.0 };
    product.powf(1.0 / N as f64) * brevity
}

/// BLEU-1 to BLEU-4 of captions, each with its cluster, tokens and references.
pub fn measures(rows: &[(usize, Vec<f64>)]) -> Vec<Measure> {
    let formulas: [super::Formula; LONGEST] = [bleu::<1>, bleu::<2>, bleu::<3>, bleu::<4>];
    let measure =
        |(i, formula): (usize, super::Formula)| Measure::new(format!("bleu{}", i + 1), formula, rows.to_vec());
    formulas.into_iter().enumerate().map(measure).collect()
}
