//! How far a figure could be off because the items measured are few: 95 % confidence intervals.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The normal distribution's 97.5 % quantile.
const Z: f64 = 1.959_963_984_540_054;
/// Resamples of a bootstrap.
const RESAMPLES: usize = 1000;

/// A range that holds the true figure 95 times of 100.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Its lower end.
    pub low: f64,
    /// Its upper end.
    pub high: f64,
}

/// Wilson's score interval (1927) for `right` of `all` independent items; it stays within 0 to 1 and is not empty at the
/// ends. None without items.
pub fn wilson(right: f64, all: f64) -> Option<Interval> {
    if all <= 0.0 {
        return None;
    }
    let (p, z2) = (right / all, Z * Z / all);
    let centre = (p + z2 / 2.0) / (1.0 + z2);
    let half = Z / (1.0 + z2) * (p * (1.0 - p) / all + z2 / (4.0 * all)).sqrt();
    Some(Interval { low: (centre - half).max(0.0), high: (centre + half).min(1.0) })
}

/// The percentile bootstrap (Efron 1979) of a figure that is a function of sums over items: whole clusters, whose sums are
/// given, are drawn with replacement, because items of one cluster (an image, a sentence) err together. None for fewer than
/// two clusters.
pub fn bootstrap(clusters: &[Vec<f64>], seed: u64, figure: impl Fn(&[f64]) -> f64) -> Option<Interval> {
    if clusters.len() < 2 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut drawn: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let mut sums = vec![0.0; clusters[0].len()];
            for _ in 0..clusters.len() {
                let cluster = &clusters[rng.random_range(0..clusters.len())];
                sums.iter_mut().zip(cluster).for_each(|(sum, x)| *sum += x);
            }
            figure(&sums)
        })
        .filter(|figure| figure.is_finite())
        .collect();
    drawn.sort_by(f64::total_cmp);
    let last = drawn.len().checked_sub(1)?;
    let quantile = |share: f64| {
        let place = share * last as f64;
        let (below, above) = (drawn[place.floor() as usize], drawn[place.ceil() as usize]);
        below + (above - below) * place.fract()
    };
    Some(Interval { low: quantile(0.025), high: quantile(0.975) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilsons_interval_is_not_empty_at_the_ends() {
        let none = wilson(0.0, 10.0).unwrap();
        assert_eq!(none.low, 0.0);
        assert!((none.high - 0.277_532_799).abs() < 1e-8, "{none:?}");
        let half = wilson(50.0, 100.0).unwrap();
        assert!((half.low - 0.403_831_530).abs() < 1e-8 && (half.low + half.high - 1.0).abs() < 1e-12);
        assert_eq!(wilson(0.0, 0.0), None);
    }

    #[test]
    fn items_that_err_together_count_as_one() {
        let mean = |sums: &[f64]| sums[0] / sums[1];
        let single: Vec<Vec<f64>> = (0..400).map(|i| vec![f64::from(i % 2), 1.0]).collect();
        let paired: Vec<Vec<f64>> = (0..40).map(|i| vec![10.0 * f64::from(i % 2), 10.0]).collect();
        let width = |clusters: &[Vec<f64>]| bootstrap(clusters, 3, mean).map(|i| i.high - i.low).unwrap();
        // √(0.25/400)·2·1.96 = 0.098, and √10 times as much.
        assert!((width(&single) - 0.098).abs() < 0.01, "{}", width(&single));
        assert!((width(&paired) - 0.31).abs() < 0.04, "{}", width(&paired));
        assert_eq!(bootstrap(&single, 3, mean), bootstrap(&single, 3, mean), "the seed decides");
    }

    #[test]
    fn one_cluster_says_nothing_of_its_spread() {
        assert_eq!(bootstrap(&[vec![1.0, 1.0]], 0, |s| s[0]), None);
        assert_eq!(bootstrap(&[], 0, |s| s[0]), None);
        assert_eq!(bootstrap(&[vec![0.0], vec![0.0]], 0, |s| 1.0 / s[0]), None, "no finite figure");
    }
}
