//! Learning-rate schedules.

/// The shape after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// Stays at the peak.
    Constant,
    /// Half a cosine from the peak to the floor.
    Cosine,
    /// A straight line from the peak to the floor.
    Linear,
}

/// A learning rate per step: a linear warm-up, then a curve.
///
/// ```
/// use engine::{Curve, Schedule};
/// let schedule = Schedule { curve: Curve::Linear, peak: 1.0, floor: 0.0, warmup: 2, steps: 10 };
/// assert_eq!(schedule.at(0), 0.5);
/// assert_eq!(schedule.at(1), 1.0);
/// assert_eq!(schedule.at(6), 0.5);
/// assert_eq!(schedule.at(10), 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape after warm-up.
    pub curve: Curve,
    /// The largest learning rate.
    pub peak: f64,
    /// The learning rate at the end.
    pub floor: f64,
    /// Steps of warm-up; step `i < warmup` gets `peak · (i + 1) / warmup`.
    pub warmup: usize,
    /// Steps in all, warm-up included.
    pub steps: usize,
}

impl Schedule {
    /// The learning rate of step `step`, counted from 0.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * (step + 1) as f64 / self.warmup as f64;
        }
        let span = self.steps.saturating_sub(self.warmup).max(1);
        let progress = ((step - self.warmup) as f64 / span as f64).min(1.0);
        let share = match self.curve {
            Curve::Constant => 1.0,
            Curve::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
            Curve::Linear => 1.0 - progress,
        };
        self.floor + (self.peak - self.floor) * share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_warms_up_and_ends_where_it_should() {
        for (curve, end, middle) in [(Curve::Constant, 2.0, 2.0), (Curve::Cosine, 0.2, 1.1), (Curve::Linear, 0.2, 1.1)]
        {
            let schedule = Schedule { curve, peak: 2.0, floor: 0.2, warmup: 4, steps: 24 };
            assert_eq!(schedule.at(0), 0.5);
            assert_eq!(schedule.at(3), 2.0);
            assert!((schedule.at(14) - middle).abs() < 1e-12, "{curve:?}");
            assert!((schedule.at(24) - end).abs() < 1e-12 && (schedule.at(99) - end).abs() < 1e-12, "{curve:?}");
        }
    }

    #[test]
    fn no_warmup_and_no_steps_do_not_divide_by_zero() {
        let schedule = Schedule { curve: Curve::Cosine, peak: 1.0, floor: 0.0, warmup: 0, steps: 0 };
        assert_eq!(schedule.at(0), 1.0);
    }
}
