//! `metrics.jsonl`: one line a step, names as TRL's where it has them.

use crate::data::passed_over::PassedOver;
use crate::run_folder::LineLog;
use anyhow::{Context, Result};
use model::read_file;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// The loss on held-out data among a step's parts, where it was measured.
pub const EVAL_LOSS: &str = "eval_loss";

/// What one optimiser step gave.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
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
    /// Tokens per second since the step before: those of the images, as the last part of the model takes them (a decoder's
    /// image slots; in phase 1 the Q-Former's queries), and those of the texts, padding left out. Phase 1's captions count
    /// once, though three losses read them.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tokens_per_s: Option<f64>,
    /// Share of the step spent waiting for data.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub data_wait_share: Option<f64>,
    /// Memory in use: of the process where it computes on the CPU, else the most that tensors have held on the device.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_bytes: Option<u64>,
    /// Model FLOP/s utilisation (Chowdhery et al. 2022): what the model's arithmetic needs per second, over what the device
    /// can do at the most; recomputation does not count.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mfu: Option<f64>,
    /// Share of target tokens that are the model's first choice.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mean_token_accuracy: Option<f64>,
    /// Target tokens so far in this phase.
    pub num_tokens: u64,
    /// The loss's parts, or whatever else a phase measures, each under its own name in the line.
    #[serde(flatten)]
    pub parts: BTreeMap<String, f64>,
}

impl StepMetrics {
    /// All that was measured, under TensorBoard's tags: `phase1/loss`, `throughput/tokens_per_s`, `memory/bytes`, …
    pub fn scalars(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        let of_phase = [
            ("loss", Some(self.loss)),
            ("lr", Some(self.lr)),
            ("grad_norm", Some(self.grad_norm)),
            ("mean_token_accuracy", self.mean_token_accuracy),
            ("num_tokens", Some(self.num_tokens as f64)),
        ];
        let of_run = [
            ("throughput/samples_per_s", Some(self.samples_per_s)),
            ("throughput/tokens_per_s", self.tokens_per_s),
            ("throughput/data_wait_share", self.data_wait_share),
            ("throughput/mfu", self.mfu),
            ("memory/bytes", self.memory_bytes.map(|bytes| bytes as f64)),
        ];
        let parts = self.parts.iter().map(|(name, value)| (name.as_str(), Some(*value)));
        let of_phase = of_phase.into_iter().chain(parts);
        let of_phase = of_phase.map(|(name, value)| (format!("{}/{name}", self.phase), value));
        let of_run = of_run.map(|(tag, value)| (tag.to_string(), value));
        of_phase.chain(of_run).filter_map(|(tag, value)| Some((tag, value?)))
    }
}

/// The largest `metrics.jsonl` read, in bytes.
const MAX_LOG: u64 = 1 << 30;

/// Writes metrics as they come.
#[derive(Debug)]
pub struct MetricsLog(LineLog);

impl MetricsLog {
    /// Opens `path` for appending.
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
    pub fn settle(&self) -> Result<u64> {
        self.0.sync()?;
        self.0.bytes()
    }

    /// Appends one line.
    pub fn append(&mut self, step: &StepMetrics) -> Result<()> {
        self.0.append(&serde_json::to_string(step)?)
    }
}

/// Reads a `metrics.jsonl`. Lines that are no step's metrics, as a process that was killed may leave its last, are left out and
/// named.
pub fn read(path: &Path) -> Result<Vec<StepMetrics>> {
    let text = read_file(path, MAX_LOG).with_context(|| format!("{}: cannot be read", path.display()))?;
    let (mut steps, mut damaged) = (Vec::new(), PassedOver::default());
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(step) => steps.push(step),
            Err(_) => damaged.add("lines that are no step's metrics", format!("{}:{}", path.display(), index + 1)),
        }
    }
    for line in damaged.lines() {
        errln!("{line}");
    }
    Ok(steps)
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
            num_tokens: 64,
            parts: BTreeMap::from([("itc".into(), 1.0), ("itm".into(), 0.5)]),
            ..StepMetrics::default()
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
    fn tags_are_grouped_and_hold_what_was_measured() {
        let mut line = step(1);
        (line.memory_bytes, line.mfu) = (Some(1 << 20), Some(0.5));
        let tags: Vec<(String, f64)> = line.scalars().collect();
        for (tag, value) in
            [("phase1/itc", 1.0), ("phase1/lr", 1e-3), ("memory/bytes", 1048576.0), ("throughput/mfu", 0.5)]
        {
            assert!(tags.contains(&(tag.into(), value)), "{tag} in {tags:?}");
        }
        assert_eq!(tags.len(), 9, "what was not measured has no tag: {tags:?}");
    }

    #[test]
    fn a_damaged_line_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("metrics.jsonl");
        MetricsLog::open(&path).unwrap().append(&step(1)).unwrap();
        LineLog::open(&path).unwrap().append("{\"phase\":").unwrap();
        assert_eq!(read(&path).unwrap(), [step(1)]);
    }
}
