//! What a run's steps cost: tokens per second, memory and utilisation, for every step's line; and TensorBoard's copy of it.

use crate::eval::Figures;
use crate::flops::Flops;
use crate::memory;
use crate::metrics::StepMetrics;
use crate::phases::Phase;
use crate::phases::fit::Step;
use crate::profile::{self, Profiler};
use crate::recipe::Recipe;
use crate::report::tensorboard::Board;
use anyhow::Result;
use engine::{Device, Kind, Params};
use model::VlmConfig;
use std::path::{Path, PathBuf};

/// Where TensorBoard's files lie in a run's folder.
pub const FOLDER: &str = "tensorboard";

/// What is known of a run beside its losses.
#[derive(Debug)]
pub struct StepLogger {
    folder: PathBuf,
    board: Option<Board>,
    /// FLOP/s the device can do, where that is known.
    peak: Option<f64>,
    /// What the model takes in a phase.
    flops: Option<(Phase, Flops)>,
    profiler: Option<Profiler>,
}

impl StepLogger {
    /// Over the run in `folder`, on a device that can do `peak` FLOP/s.
    pub fn over(folder: &Path, peak: Option<f64>) -> StepLogger {
        StepLogger { folder: folder.join(FOLDER), board: None, peak, flops: None, profiler: None }
    }

    /// From now on with the kernels of some steps, if `wanted`.
    pub fn profile(&mut self, wanted: bool) {
        let folder = self.folder.with_file_name(profile::FOLDER);
        self.profiler = wanted.then(|| Profiler::into(folder));
    }

    /// Takes up behind the first `step` steps of the run; those that came after are forgotten.
    pub fn from_step(&mut self, step: usize) -> Result<()> {
        self.board = Some(Board::start(&self.folder, step)?);
        Ok(())
    }

    /// Completes the line of a step that `phase` took.
    pub fn see(
        &mut self,
        line: &mut StepMetrics,
        step: &Step,
        (recipe, config, phase): (&Recipe, Option<&VlmConfig>, Phase),
        params: &Params,
    ) -> Result<()> {
        // What is frozen changes between phases and at no other time.
        if self.flops.as_ref().is_none_or(|(known, _)| *known != phase) {
            self.flops = config.map(|config| (phase, Flops::of(recipe, config, params)));
        }
        let (seconds, _) = step.seconds;
        if let Some((_, flops)) = &self.flops {
            let tokens = step.samples * flops.image_tokens(step.phase) + step.text_tokens;
            let done = flops.step(step.phase, step.samples, step.text_tokens);
            line.tokens_per_s = Some(tokens as f64 / seconds.max(1e-9));
            line.mfu = self.peak.map(|peak| done / seconds.max(1e-9) / peak);
        }
        if let Some(profiler) = &mut self.profiler {
            profiler.see(phase, seconds)?;
        }
        line.memory_bytes = in_use(params.device());
        Ok(())
    }

    /// Hands the whole line of the run's step `number` to TensorBoard.
    pub fn log(&mut self, number: usize, line: &StepMetrics) -> Result<()> {
        self.board()?.step(number, line)
    }

    /// Hands the evaluation of the trained model to TensorBoard.
    pub fn evaluated(&mut self, figures: &Figures) -> Result<()> {
        self.board()?.figures(figures)
    }

    fn board(&mut self) -> Result<&mut Board> {
        match self.board {
            Some(ref mut board) => Ok(board),
            None => Ok(self.board.insert(Board::start(&self.folder, 0)?)),
        }
    }
}

/// Bytes this process holds; where another device computes, the most that tensors have held there.
fn in_use(device: &Device) -> Option<u64> {
    match device.kind() {
        Kind::Cpu | Kind::Emulated => memory::resident().map(|resident| resident.current),
        Kind::Cuda(_) | Kind::Trace => Some(device.memory().peak_reserved as u64),
    }
}
