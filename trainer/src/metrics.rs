//! `metrics.jsonl`: one line a step, names as TRL's where it has them.

use crate::run_folder::LineLog;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// What one optimiser step gave.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// `phase1` or `phase2`.
    pub phase: String,
    /// The phase's steps, counted from 1. Those that phase 2 takes on phase 1's losses count on from its last.
    pub step: usize,
    /// The loss that was stepped on.
    pub loss: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// The gradients' L2 norm before clipping.
    pub grad_norm: f64,
    /// Images per second since the step before.
    pub samples_per_s: f64,
    /// Share of target tokens that are the model's first choice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_token_accuracy: Option<f64>,
    /// Target tokens so far in this phase.
    pub num_tokens: u64,
    /// The loss's parts, or whatever else a phase measures, each under its own name in the line.
    #[serde(flatten)]
    pub parts: BTreeMap<String, f64>,
}

/// Writes metrics as they come.
#[derive(Debug)]
pub struct MetricsLog(LineLog);

impl MetricsLog {
    /// Opens `path` for appending.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<MetricsLog> {
        Ok(MetricsLog(LineLog::open(path)?))
    }

    /// Forgets the lines behind the first `bytes`: they belong to steps that were lost.
    ///
    /// # Errors
    /// When the file is shorter.
    pub fn cut(&mut self, bytes: u64) -> Result<()> {
        self.0.cut(bytes)
    }

    /// Brings all lines to the disk and returns the file's length in bytes.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn settle(&self) -> Result<u64> {
        self.0.sync()?;
        self.0.bytes()
    }

    /// Appends one line.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn append(&mut self, step: &StepMetrics) -> Result<()> {
        self.0.append(&serde_json::to_string(step)?)
    }
}

/// Reads a `metrics.jsonl`.
///
/// # Errors
/// Names the file and the line that is not a step's metrics.
pub fn read(path: &Path) -> Result<Vec<StepMetrics>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let numbered = text.lines().enumerate();
    numbered
        .map(|(index, line)| {
            let place = || format!("{}:{}: not a step's metrics", path.display(), index + 1);
            serde_json::from_str(line).with_context(place)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(number: usize) -> StepMetrics {
        StepMetrics {
            phase: "phase1".into(),
            step: number,
            loss: 1.5,
            lr: 1e-3,
            grad_norm: 0.25,
            samples_per_s: 800.0,
            mean_token_accuracy: None,
            num_tokens: 64,
            parts: BTreeMap::from([("itc".into(), 1.0), ("itm".into(), 0.5)]),
        }
    }

    #[test]
    fn lines_are_flat_and_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        let mut log = MetricsLog::open(&path).unwrap();
        let mut second = step(2);
        second.mean_token_accuracy = Some(0.75);
        log.append(&step(1)).unwrap();
        log.append(&second).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let first = r#"{"phase":"phase1","step":1,"loss":1.5,"lr":0.001,"grad_norm":0.25,"samples_per_s":800.0,"num_tokens":64,"itc":1.0,"itm":0.5}"#;
        assert_eq!(text.lines().next(), Some(first));
        assert_eq!(read(&path).unwrap(), [step(1), second]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsLog::open(&path).unwrap().append(&step(1)).unwrap();
        LineLog::open(&path).unwrap().append("{\"phase\":").unwrap();
        let text = read(&path).unwrap_err().to_string();
        assert!(text.ends_with("metrics.jsonl:2: not a step's metrics"), "{text}");
    }
}
