//! What a trained model can do, measured on what it has never seen.

pub mod answers;
pub mod corpus;
pub mod retrieval;
pub mod scenes;
pub mod table;

use std::collections::BTreeMap;

/// Figures by flat name, such as `existence.adversarial.f1`: shares from 0 to 1.
pub type Figures = BTreeMap<String, f64>;

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

    /// Accuracy, precision and recall of yes, F1 and the share answered yes, as POPE reports them (Li et al. 2023).
    pub fn figures(&self, name: &str, into: &mut Figures) {
        let share = |part: usize, whole: usize| part as f64 / whole.max(1) as f64;
        let all = self.true_yes + self.false_yes + self.true_no + self.missed;
        if all == 0 {
            return;
        }
        let (precision, recall) = (
            share(self.true_yes, self.true_yes + self.false_yes),
            share(self.true_yes, self.true_yes + self.missed),
        );
        let f1 = if precision + recall > 0.0 {
            2.0 * precision * recall / (precision + recall)
        } else {
            0.0
        };
        let rows = [
            ("accuracy", share(self.true_yes + self.true_no, all)),
            ("precision", precision),
            ("recall", recall),
            ("f1", f1),
            ("yes_share", share(self.true_yes + self.false_yes, all)),
        ];
        into.extend(rows.map(|(key, value)| (format!("{name}.{key}"), value)));
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
}
