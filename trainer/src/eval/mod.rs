//! What a trained model can do, measured on what it has never seen.
//!
//! Two ways lead here. A run ends with its own table ([`scenes`], [`corpus`]), measured on what its recipe held out; and
//! `lenslet eval --tasks` measures any model on files in the formats that benchmarks are published in ([`tasks`]), by
//! [`runner`]. Both count by the same [`metrics`].

pub mod answers;
pub mod asking;
pub mod comparing;
pub mod corpus;
mod looking;
pub mod metrics;
pub mod pictures;
pub mod records;
pub mod report;
pub mod runner;
pub mod scenes;
pub mod subject;
pub mod table;
pub mod tasks;

pub use metrics::YesNo;

use std::collections::BTreeMap;

/// Figures by flat name, such as `existence.adversarial.f1`: shares from 0 to 1.
pub type Figures = BTreeMap<String, f64>;
