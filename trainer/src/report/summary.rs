//! `summary.json`: on what a run is computed, how large its model is, and in the end what it took.

use crate::compute::name;
use crate::report::losses::OfPhase;
use crate::run_folder::RunFolder;
use anyhow::Result;
use engine::{Device, Params};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The file in a run's folder.
pub const SUMMARY: &str = "summary.json";

/// A run in a few words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// The program's version.
    pub version: String,
    /// What computes.
    pub device: String,
    /// Threads of the processor.
    pub threads: usize,
    /// The type of weights and activations.
    pub dtype: String,
    /// The model's parameters.
    pub parameters: usize,
    /// Those that are trained.
    pub trainable: usize,
    /// Memory that the run was expected to take at the most.
    pub estimate_bytes: u64,
    /// FLOP/s that MFU is a share of, where they are known.
    pub peak_flops: Option<f64>,
    /// The memory it took at the most.
    pub peak_memory_bytes: Option<u64>,
    /// How long it took, once it is over; of a run that was gone on with, since then.
    pub seconds: Option<f64>,
    /// Whether it was gone on with.
    pub goes_on: bool,
    /// First, last and best losses of each phase, once it is over.
    #[serde(default)]
    pub losses: BTreeMap<String, OfPhase>,
}

impl Summary {
    /// Of a run that begins.
    pub fn of(params: &Params, device: &Device, estimate_bytes: u64, peak_flops: Option<f64>) -> Summary {
        let (parameters, trainable) = params.count();
        Summary {
            version: env!("CARGO_PKG_VERSION").into(),
            device: name(device),
            threads: rayon::current_num_threads(),
            dtype: params.dtype().to_string(),
            parameters,
            trainable,
            estimate_bytes,
            peak_flops,
            peak_memory_bytes: None,
            seconds: None,
            goes_on: false,
            losses: BTreeMap::new(),
        }
    }

    /// Writes it into the run's folder.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        folder.write(SUMMARY, &serde_json::to_vec_pretty(self)?)
    }
}
