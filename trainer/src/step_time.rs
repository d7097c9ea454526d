//! How long training will take, told from a few of its steps.

use crate::course::Trained;
use crate::phases::Phase;
use crate::phases::fit::Flow;
use crate::progress::duration;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Steps taken of each phase; the first is slower than the rest and does not count where there are others.
const STEPS: usize = 6;
/// After this time no further step is begun.
const ENOUGH: Duration = Duration::from_secs(10);

/// Takes a few steps of every phase, which change the model and are not kept, and says how long all steps will take.
pub fn estimate(model: &mut impl Trained) -> Result<String> {
    let (mut whole, mut told) = (0.0, Vec::new());
    for phase in Phase::of(model.recipe()) {
        let Some(training) = phase.training(model.recipe()) else {
            continue;
        };
        let (begin, mut seconds) = (Instant::now(), Vec::new());
        model.train(phase, None, &mut |step, _, _, _| {
            seconds.push(step.seconds.0);
            let enough = seconds.len() >= STEPS || begin.elapsed() >= ENOUGH;
            Ok(if enough { Flow::Interrupted } else { Flow::Continue })
        })?;
        let each = mean(&seconds);
        whole += each * training.steps as f64;
        told.push(format!("{each:.2} s a step of {}", phase.name()));
    }
    Ok(format!(
        "about {} of training, an estimate from a few steps ({}); evaluation comes on top",
        duration(Duration::from_secs_f64(whole)),
        told.join(", ")
    ))
}

/// The mean of all but the first.
fn mean(seconds: &[f64]) -> f64 {
    let counted = match seconds {
        [_, rest @ ..] if !rest.is_empty() => rest,
        all => all,
    };
    counted.iter().sum::<f64>() / counted.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::mean;

    #[test]
    fn the_first_step_counts_only_where_it_is_alone() {
        assert_eq!(mean(&[9.0, 1.0, 2.0]), 1.5);
        assert_eq!((mean(&[9.0]), mean(&[])), (9.0, 0.0));
    }
}
