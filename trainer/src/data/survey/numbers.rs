//! How a data set's numbers are spread, and what occurs twice in it.

use serde::Serialize;
use std::collections::HashMap;
use std::hash::Hash;

/// Groups of duplicates that are named, and names of each.
const NAMED: usize = 3;

/// Items that are copies of others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Copies, the first of each group not counted.
    pub copies: usize,
    /// Groups of equal items.
    pub groups: usize,
    /// The largest groups, a few names each.
    pub largest: Vec<Vec<String>>,
}

impl Duplicates {
    /// Groups of names under the same key.
    pub(super) fn of<K: Hash + Eq>(items: impl Iterator<Item = (K, String)>) -> Duplicates {
        let mut groups: HashMap<K, (usize, Vec<String>)> = HashMap::new();
        for (key, name) in items {
            let (count, names) = groups.entry(key).or_default();
            *count += 1;
            if names.len() < NAMED {
                names.push(name);
            }
        }
        let mut groups: Vec<_> = groups.into_values().filter(|(count, _)| *count > 1).collect();
        groups.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        Duplicates {
            copies: groups.iter().map(|(count, _)| count - 1).sum(),
            groups: groups.len(),
            largest: groups.into_iter().take(NAMED).map(|(_, names)| names).collect(),
        }
    }
}

impl std::fmt::Display for Duplicates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.copies)?;
        if self.copies == 0 {
            return Ok(());
        }
        let groups: Vec<String> = self.largest.iter().map(|names| names.join(" = ")).collect();
        write!(f, " (in {} groups, such as {})", self.groups, groups.join("; "))
    }
}

/// How numbers are spread.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: usize,
    /// Half of them are at most this.
    pub median: usize,
    /// Nine in ten are at most this.
    pub p90: usize,
    /// All but one in a hundred are at most this.
    pub p99: usize,
    /// The most.
    pub max: usize,
    pub mean: f64,
}

impl Spread {
    /// None of no numbers.
    pub fn of(mut values: Vec<usize>) -> Option<Spread> {
        values.sort_unstable();
        let at = |share: usize| values[(values.len() * share).div_ceil(100).saturating_sub(1)];
        Some(Spread {
            min: *values.first()?,
            median: at(50),
            p90: at(90),
            p99: at(99),
            max: *values.last()?,
            mean: values.iter().sum::<usize>() as f64 / values.len() as f64,
        })
    }
}
