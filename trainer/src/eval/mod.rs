//! What a trained model can do, measured on what it has never seen.
//!
//! Two ways lead here. A run ends with its own table ([`scenes`], [`corpus`]), measured on what its recipe held out; and
//! `lenslet eval --tasks` measures any model on files in the formats that benchmarks are published in ([`tasks`]), by
//! [`runner`]. Both count by the same [`metrics`].

pub mod contrastive;
pub mod corpus;
mod features;
pub mod generate;
pub mod metrics;
pub mod pictures;
pub mod records;
pub mod report;
pub mod runner;
pub mod scenes;
pub mod subject;
pub mod table;
pub mod tasks;
pub mod teacher_forced;
pub mod training_questions;

use metrics::Measure;
use std::collections::BTreeMap;

/// Figures by flat name, such as `existence.adversarial.f1`: shares from 0 to 1. The ends of their 95 % intervals are
/// `interval.existence.adversarial.f1.low` and `.high`, what is left of them with a blank image
/// `control.blank.existence.adversarial.f1`. What they rest on is counted as `items.…`: see [`table::notes`].
pub type Figures = BTreeMap<String, f64>;

/// Measures as figures, with their intervals unless they are controls.
pub fn figures(prefix: &str, measures: &[Measure]) -> Figures {
    let mut figures = Figures::new();
    for measure in measures {
        let key = format!("{prefix}{}", measure.name);
        if let Some(interval) = measure.interval(0).filter(|_| !prefix.starts_with("control.")) {
            figures.insert(format!("interval.{key}.low"), interval.low);
            figures.insert(format!("interval.{key}.high"), interval.high);
        }
        figures.insert(key, measure.value());
    }
    figures
}
