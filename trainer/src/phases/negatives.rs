//! Hard negatives for image–text matching: drawn in proportion to the contrastive similarity (Li et al. 2021, "ALBEF").

use rand::{Rng, RngExt};

/// For every row of `scores` (n, n) one column other than its own, drawn with probability ∝ exp(score) among those
/// that `allowed` accepts; the row's own index where none is left.
pub(super) fn draw(scores: &[f64], n: usize, allowed: impl Fn(usize, usize) -> bool, rng: &mut impl Rng) -> Vec<usize> {
    (0..n)
        .map(|row| draw_one(&scores[row * n..(row + 1) * n], row, &allowed, rng))
        .collect()
}

fn draw_one(scores: &[f64], row: usize, allowed: &impl Fn(usize, usize) -> bool, rng: &mut impl Rng) -> usize {
    let candidates: Vec<usize> = (0..scores.len()).filter(|&j| j != row && allowed(row, j)).collect();
    let largest = candidates.iter().map(|&j| scores[j]).fold(f64::NEG_INFINITY, f64::max);
    let weight = |j: usize| (scores[j] - largest).exp();
    let mut left = rng.random::<f64>() * candidates.iter().map(|&j| weight(j)).sum::<f64>();
    for &j in &candidates {
        left -= weight(j);
        if left <= 0.0 {
            return j;
        }
    }
    candidates.last().copied().unwrap_or(row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn negatives_are_drawn_by_similarity_and_never_true() {
        let n = 4;
        // Row 0 is close to 1 and 2; 2 is also true of it.
        let scores = [
            9.0, 2.0, 2.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 9.0,
        ];
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut counts = [0; 4];
        for _ in 0..4000 {
            let drawn = draw(&scores, n, |i, j| (i, j) != (0, 2), &mut rng);
            assert!(drawn.iter().enumerate().all(|(i, &j)| i != j));
            counts[drawn[0]] += 1;
        }
        assert_eq!((counts[0], counts[2]), (0, 0));
        // e² / (e² + e⁰) = 0.88 of 4000, give or take four standard deviations of 20.
        assert!((counts[1] as f64 - 3523.0).abs() < 82.0, "{counts:?}");
    }

    #[test]
    fn without_a_candidate_the_own_index_comes_back() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert_eq!(draw(&[0.0; 4], 2, |_, _| false, &mut rng), [0, 1]);
    }
}
