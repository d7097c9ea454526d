//! First, last and best losses of each phase.

use crate::metrics::{EVAL_LOSS, StepMetrics};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A loss and the step at which it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct At {
    /// The phase's step.
    pub step: usize,
    /// The loss of that step's batch alone, or of what is held out.
    pub loss: f64,
}

/// The course of a loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Losses {
    /// The first measured.
    pub first: At,
    pub last: At,
    /// The lowest, the first of equal ones.
    pub best: At,
}

/// The losses of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct OfPhase {
    /// Steps taken on its losses.
    pub steps: usize,
    /// Of each step's batch.
    pub train: Option<Losses>,
    /// On held-out data, where that was measured on the way.
    pub heldout: Option<Losses>,
}

impl Losses {
    /// Of measurements in their order; those that are no numbers are passed over.
    fn of(measured: impl Iterator<Item = At>) -> Option<Losses> {
        let mut found = measured.filter(|at| at.loss.is_finite());
        let first = found.next()?;
        let start = Losses { first, last: first, best: first };
        Some(found.fold(start, |losses, at| Losses {
            last: at,
            best: if at.loss < losses.best.loss { at } else { losses.best },
            ..losses
        }))
    }
}

/// The losses of each phase by its name.
pub fn losses(steps: &[StepMetrics]) -> BTreeMap<String, OfPhase> {
    let mut phases = BTreeMap::<String, Vec<&StepMetrics>>::new();
    for step in steps {
        phases.entry(step.phase.clone()).or_default().push(step);
    }
    let of = |steps: Vec<&StepMetrics>| OfPhase {
        steps: steps.len(),
        train: Losses::of(steps.iter().map(|step| At { step: step.step, loss: step.loss })),
        heldout: Losses::of(steps.iter().filter_map(|step| {
            let loss = *step.parts.get(EVAL_LOSS)?;
            Some(At { step: step.step, loss })
        })),
    };
    phases.into_iter().map(|(phase, steps)| (phase, of(steps))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_loss_is_the_best_and_what_is_no_number_counts_for_nothing() {
        let step = |step, loss, heldout: Option<f64>| StepMetrics {
            phase: "phase2".into(),
            step,
            loss,
            parts: heldout.map(|loss| (EVAL_LOSS.to_string(), loss)).into_iter().collect(),
            ..StepMetrics::default()
        };
        let steps = [
            step(1, f64::NAN, None),
            step(2, 3.0, Some(2.5)),
            step(3, 1.0, None),
            step(4, 1.0, Some(4.0)),
            step(5, 2.0, None),
        ];
        let found = losses(&steps)["phase2"];
        let places = |losses: Option<Losses>| losses.map(|l| (l.first.step, l.last.step, l.best.step));
        assert_eq!((found.steps, places(found.train)), (5, Some((2, 5, 3))));
        assert_eq!(places(found.heldout), Some((2, 4, 2)));
        assert_eq!(losses(&steps[..1])["phase2"].train, None);
        assert!(losses(&[]).is_empty());
    }
}
