//! Right answers to yes-or-no questions, as POPE counts them (Li et al. 2023).

use super::Measure;
use super::measure::share;
use crate::eval::Figures;

/// Right answers to yes-or-no questions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct YesNo {
    /// Yes, rightly.
    pub true_yes: usize,
    /// Yes, wrongly.
    pub false_yes: usize,
    /// No, rightly.
    pub true_no: usize,
    /// Anything but yes, wrongly.
    pub missed: usize,
}

impl YesNo {
    /// Counts one answer.
    pub fn add(&mut self, expected_yes: bool, answered: &str) {
        match (expected_yes, answered) {
            (true, "yes") => self.true_yes += 1,
            (true, _) => self.missed += 1,
            (false, "no") => self.true_no += 1,
            (false, _) => self.false_yes += 1,
        }
    }

    /// Accuracy, precision and recall of yes, F1 and the share answered yes, as POPE reports them.
    pub fn figures(&self, name: &str, into: &mut Figures) {
        let sums = self.row();
        if sums.iter().sum::<f64>() > 0.0 {
            into.extend(FORMULAS.map(|(key, formula)| (format!("{name}.{key}"), formula(&sums))));
        }
    }

    fn row(&self) -> Vec<f64> {
        [self.true_yes, self.false_yes, self.true_no, self.missed]
            .map(|n| n as f64)
            .to_vec()
    }
}

impl std::ops::AddAssign for YesNo {
    fn add_assign(&mut self, other: YesNo) {
        self.true_yes += other.true_yes;
        self.false_yes += other.false_yes;
        self.true_no += other.true_no;
        self.missed += other.missed;
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
    fn figures_are_popes() {
        let mut counts = YesNo::default();
        for (yes, answer) in [
            (true, "yes"),
            (true, "yes"),
            (true, "no"),
            (false, "yes"),
            (false, "no"),
            (false, "no"),
        ] {
            counts.add(yes, answer);
        }
        let mut figures = Figures::new();
        counts.figures("x", &mut figures);
        assert_eq!(figures["x.accuracy"], 4.0 / 6.0);
        assert_eq!(figures["x.precision"], 2.0 / 3.0);
        assert_eq!(figures["x.recall"], 2.0 / 3.0);
        assert!((figures["x.f1"] - 2.0 / 3.0).abs() < 1e-12);
        assert_eq!(figures["x.yes_share"], 0.5);
    }

    #[test]
    fn an_answer_that_is_neither_is_wrong_both_ways() {
        let mut counts = YesNo::default();
        counts.add(true, "red");
        counts.add(false, "red");
        let mut figures = Figures::new();
        counts.figures("x", &mut figures);
        assert_eq!(figures["x.accuracy"], 0.0);
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
