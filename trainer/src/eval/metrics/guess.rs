//! What guessing reaches by giving the most frequent answer.

use std::collections::HashMap;
use std::hash::Hash;

/// The share of the `k` most frequent of some values.
pub fn most_frequent<T: Hash + Eq>(values: impl IntoIterator<Item = T>, k: usize) -> f64 {
    let mut counts = HashMap::<T, usize>::new();
    values.into_iter().for_each(|value| *counts.entry(value).or_default() += 1);
    let all: usize = counts.values().sum();
    let mut counts: Vec<usize> = counts.into_values().collect();
    counts.sort_unstable_by(|a, b| b.cmp(a));
    counts.iter().take(k).sum::<usize>() as f64 / all.max(1) as f64
}

/// The share of questions answered right by whoever knows, without an image, the most frequent answer to each question; to all
/// that are asked once, the most frequent of theirs. `asked`: each question with all answers that count as right.
pub fn by_question<Q: Hash + Eq, A: Hash + Eq>(asked: impl IntoIterator<Item = (Q, Vec<A>)>) -> f64 {
    let mut groups = HashMap::<Q, Vec<Vec<A>>>::new();
    for (question, right) in asked {
        groups.entry(question).or_default().push(right);
    }
    let all: usize = groups.values().map(Vec::len).sum();
    let (single, several): (Vec<_>, Vec<_>) = groups.into_values().partition(|group| group.len() == 1);
    let groups = [single.into_iter().flatten().collect()].into_iter().chain(several);
    let guessed: usize = groups.map(|group| most(&group)).sum();
    guessed as f64 / all.max(1) as f64
}

/// How often the most frequent answer is right.
fn most<A: Hash + Eq>(group: &[Vec<A>]) -> usize {
    let mut counts = HashMap::<&A, usize>::new();
    for answer in group.iter().flatten() {
        *counts.entry(answer).or_default() += 1;
    }
    counts.values().copied().max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_answer_to_each_question_is_guessed() {
        let asked = |rows: &[(&'static str, &[&'static str])]| by_question(rows.iter().map(|(q, a)| (*q, a.to_vec())));
        assert_eq!(asked(&[("a", &["1"]), ("a", &["1"]), ("a", &["2"]), ("b", &["2"]), ("b", &["2"])]), 0.8);
        assert_eq!(asked(&[("a", &["1"]), ("b", &["1"]), ("c", &["2"])]), 2.0 / 3.0, "asked once each");
        assert_eq!(asked(&[("a", &["1", "2"]), ("a", &["2", "3"])]), 1.0, "each of several counts");
        assert_eq!(asked(&[]), 0.0);
        assert_eq!(most_frequent(["x", "y", "x", "z"], 1), 0.5);
        assert_eq!(most_frequent(["x", "y", "x", "z"], 5), 1.0);
    }
}
