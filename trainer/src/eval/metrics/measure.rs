//! A figure that can be resampled: a function of sums over items.

use super::interval::{Interval, bootstrap, wilson};
use std::collections::BTreeMap;

/// From the items' sums to the figure.
pub type Formula = fn(&[f64]) -> f64;

/// One figure with all that its value and interval follow from.
#[derive(Debug, Clone)]
pub struct Measure {
    /// Its name within its task, such as `random.f1`.
    pub name: String,
    /// What guessing reaches: chance, or always giving the most frequent answer. None where neither is known.
    pub guess: Option<f64>,
    formula: Formula,
    /// Whether it is a mean of scores from 0 to 1.
    is_share: bool,
    items: usize,
    /// Sums per cluster: items of the same image or sentence, which err together.
    clusters: BTreeMap<usize, Vec<f64>>,
}

impl Measure {
    /// The figure `formula` gives of the sums over `rows`: each an item's cluster and what it adds.
    pub fn new(
        name: impl Into<String>,
        formula: Formula,
        rows: impl IntoIterator<Item = (usize, Vec<f64>)>,
    ) -> Measure {
        let (mut items, mut clusters) = (0, BTreeMap::<usize, Vec<f64>>::new());
        for (cluster, row) in rows {
            items += 1;
            match clusters.get_mut(&cluster) {
                Some(sums) => sums.iter_mut().zip(&row).for_each(|(sum, x)| *sum += x),
                None => drop(clusters.insert(cluster, row)),
            }
        }
        Measure { name: name.into(), guess: None, formula, is_share: false, items, clusters }
    }

    /// The mean of scores from 0 to 1, each with its item's cluster.
    pub fn mean(name: impl Into<String>, scores: impl IntoIterator<Item = (usize, f64)>) -> Measure {
        let rows = scores.into_iter().map(|(cluster, score)| (cluster, vec![score, 1.0]));
        Measure { is_share: true, ..Measure::new(name, share, rows) }
    }

    /// With what guessing reaches.
    pub fn guessing(self, guess: f64) -> Measure {
        Measure { guess: Some(guess), ..self }
    }

    /// Items it rests on.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The figure; not a number without items.
    pub fn value(&self) -> f64 {
        let width = self.clusters.values().next().map_or(0, Vec::len);
        let mut sums = vec![0.0; width];
        for cluster in self.clusters.values() {
            sums.iter_mut().zip(cluster).for_each(|(sum, x)| *sum += x);
        }
        if sums.is_empty() { f64::NAN } else { (self.formula)(&sums) }
    }

    /// Its 95 % interval: Wilson's for a share of independent items that are right or wrong, else a bootstrap over clusters.
    /// Where no resample differs that tells nothing of the spread: a share then has Wilson's of as many items as clusters,
    /// other figures have none.
    pub fn interval(&self, seed: u64) -> Option<Interval> {
        let binary = |sums: &Vec<f64>| sums[1] == 1.0 && (sums[0] == 0.0 || sums[0] == 1.0);
        let clusters = self.clusters.len() as f64;
        if self.is_share && self.clusters.len() == self.items && self.clusters.values().all(binary) {
            return wilson(self.value() * clusters, clusters);
        }
        let sums: Vec<Vec<f64>> = self.clusters.values().cloned().collect();
        match bootstrap(&sums, seed, self.formula)? {
            Interval { low, high } if low < high => Some(Interval { low, high }),
            _ if self.is_share => wilson(self.value() * clusters, clusters),
            _ => None,
        }
    }
}

/// The first sum's share of the second; 0 of nothing.
pub fn share(sums: &[f64]) -> f64 {
    if sums[1] == 0.0 { 0.0 } else { sums[0] / sums[1] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_independent_items_has_wilsons_interval() {
        let measure = Measure::mean("x", [(0, 1.0), (1, 0.0), (2, 1.0), (3, 1.0)]).guessing(0.5);
        assert_eq!((measure.value(), measure.items(), measure.guess), (0.75, 4, Some(0.5)));
        assert_eq!(measure.interval(0), wilson(3.0, 4.0));
    }

    #[test]
    fn clusters_and_parts_are_resampled() {
        let clustered = Measure::mean("x", [(0, 1.0), (0, 1.0), (1, 0.0), (1, 0.0)]);
        assert_eq!(clustered.interval(0), Some(Interval { low: 0.0, high: 1.0 }));
        let never = Measure::mean("x", [(0, 0.0), (0, 0.0), (1, 0.0), (1, 0.0)]);
        assert_eq!(never.interval(0), wilson(0.0, 2.0), "nothing right in two clusters is not surely nothing");
        let score = Measure::new("x", share, [(0, vec![0.0, 1.0]), (1, vec![0.0, 1.0])]);
        assert_eq!(score.interval(0), None, "Wilson's is for shares");
        let parts = Measure::mean("x", (0..50).map(|i| (i, 0.3 + 0.4 * (i % 2) as f64)));
        let interval = parts.interval(0).unwrap();
        assert!(interval.low > 0.4 && interval.high < 0.6 && interval.low < 0.5 && interval.high > 0.5);
    }

    #[test]
    fn without_items_there_is_no_figure() {
        let none = Measure::mean("x", []);
        assert!(none.value().is_nan());
        assert_eq!(none.interval(0), None);
    }
}
