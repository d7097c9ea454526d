//! Right answers to yes-or-no questions, as POPE counts them (Li et al. 2023).

use super::Measure;
use super::measure::share;

/// Answers counted.
#[derive(Debug, Clone, Copy, Default)]
struct YesNo {
    true_yes: usize,
    false_yes: usize,
    true_no: usize,
    /// Anything but yes, wrongly.
    missed: usize,
}

impl YesNo {
    /// One more; what is neither yes nor no is wrong.
    fn add(&mut self, expected_yes: bool, answered: &str) {
        match (expected_yes, answered) {
            (true, "yes") => self.true_yes += 1,
            (true, _) => self.missed += 1,
            (false, "no") => self.true_no += 1,
            (false, _) => self.false_yes += 1,
        }
    }

    fn row(&self) -> Vec<f64> {
        [self.true_yes, self.false_yes, self.true_no, self.missed].map(|n| n as f64).to_vec()
    }
}

/// POPE's figures of (true yes, false yes, true no, missed).
const FORMULAS: [(&str, super::Formula); 5] = [
    ("accuracy", |n| share(&[n[0] + n[2], n.iter().sum()])),
    ("precision", precision),
    ("recall", recall),
    ("f1", |n| {
        let (precision, recall) = (precision(n), recall(n));
        share(&[2.0 * precision * recall, precision + recall])
    }),
    ("yes_share", |n| share(&[n[0] + n[1], n.iter().sum()])),
];

fn precision(n: &[f64]) -> f64 {
    share(&[n[0], n[0] + n[1]])
}

fn recall(n: &[f64]) -> f64 {
    share(&[n[0], n[0] + n[3]])
}

/// The five figures of answers, each (cluster, whether yes is right, the answer); guessing is always yes or always no,
/// whichever is better.
pub fn measures<'a>(prefix: &str, answers: &[(usize, bool, &'a str)]) -> Vec<Measure> {
    let row = |&(cluster, yes, answer): &(usize, bool, &'a str)| {
        let mut one = YesNo::default();
        one.add(yes, answer);
        (cluster, one.row())
    };
    let always = |answer: &str| {
        let mut counts = YesNo::default();
        answers.iter().for_each(|&(_, yes, _)| counts.add(yes, answer));
        counts.row()
    };
    let (yes, no) = (always("yes"), always("no"));
    FORMULAS
        .iter()
        .map(|&(key, formula)| {
            let measure = Measure::new(format!("{prefix}{key}"), formula, answers.iter().map(row));
            match key {
                "yes_share" => measure,
                _ => measure.guessing(formula(&yes).max(formula(&no))),
            }
        })
        .collect()
}

/// How POPE's script reads an answer: no where its first sentence has the word `no`, `No` or `not`, else yes.
pub fn pope_reads(answer: &str) -> &'static str {
    let sentence = answer.split('.').next().unwrap_or_default().replace(',', "");
    match sentence.split(' ').any(|word| matches!(word, "No" | "not" | "no")) {
        true => "no",
        false => "yes",
    }
}

/// Whether a statement is taken for true: the answer's first word that decides. `true` and `yes` say so, `false`, `no` and
/// `not` deny it; None where none of them occurs.
pub fn says_true(answer: &str) -> Option<bool> {
    let lower = answer.to_lowercase();
    let mut words = lower.split(|c: char| !c.is_alphanumeric());
    words.find_map(|word| match word {
        "true" | "yes" => Some(true),
        "false" | "no" | "not" => Some(false),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_neither_is_wrong_both_ways() {
        let measures = measures("x.", &[(0, true, "red"), (1, false, "red"), (2, true, "yes")]);
        let values: Vec<(&str, f64)> = measures.iter().map(|m| (m.name.as_str(), m.value())).collect();
        assert_eq!(values[0], ("x.accuracy", 1.0 / 3.0));
        assert_eq!((values[1].1, values[2].1, values[4].1), (0.5, 0.5, 2.0 / 3.0));
        assert_eq!(measures[0].guess, Some(2.0 / 3.0), "always yes");
    }

    #[test]
    fn answers_about_statements_are_read_by_their_first_word_that_decides() {
        for (answer, read) in [
            ("True.", Some(true)),
            ("the statement is false", Some(false)),
            ("It is not true", Some(false)),
            ("Yes, it is.", Some(true)),
            ("a red circle", None),
            ("untrue", None),
            ("", None),
        ] {
            assert_eq!(says_true(answer), read, "{answer}");
        }
    }
}
