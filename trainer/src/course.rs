//! A phase in the course of a run: steps are logged and shown, checkpoints made, signals heeded.

use crate::checkpoint::{Checkpoint, Checkpoints, Place, Seal, read_weights, write_numbers};
use crate::interrupt;
use crate::metrics::{EVAL_LOSS, MetricsLog, StepMetrics};
use crate::phases::Phase;
use crate::phases::fit::{Flow, Step};
use crate::pipeline::{Begin, RunOptions};
use crate::progress::Progress;
use crate::recipe::Recipe;
use crate::run_folder::{RECIPE, RunFolder, write_whole};
use crate::shell::Command;
use crate::step_logger::StepLogger;
use anyhow::{Context, Result};
use engine::{Device, Optimizer, Params};
use model::{FolderPlan, VlmConfig};
use std::path::Path;

/// Sees each step, with the weights and the optimiser as the step left them and a measure of weights on held-out data, and
/// says whether to go on.
pub type Observe<'o> = dyn FnMut(&Step, &mut Params, &mut Optimizer, &Measure<'_>) -> Result<Flow> + 'o;
/// The phase's loss on held-out data.
pub type Measure<'m> = dyn Fn(&Params) -> Result<f64> + 'm;

/// A model in training.
pub trait Trained {
    /// What is done.
    fn recipe(&self) -> &Recipe;

    /// Its weights.
    fn params(&self) -> &Params;

    /// Its weights, to be changed.
    fn params_mut(&mut self) -> &mut Params;

    /// Makes it anew, untrained, on a device.
    ///
    /// # Errors
    /// When it does not fit there, or a part of it cannot be read.
    fn remake_on(&mut self, device: &Device) -> Result<()>;

    /// What it is made of, where it is a vision-language model.
    fn vlm(&self) -> Option<&VlmConfig> {
        None
    }

    /// Trains one phase, from its start or from a checkpoint in it, to its end or until `observe` says to stop. A phase the
    /// recipe leaves out does nothing. A phase that is over leaves the running average of the weights in their place, where
    /// one was kept.
    fn train(&mut self, phase: Phase, from: Option<(&Path, &Place)>, observe: &mut Observe<'_>) -> Result<Flow>;

    /// Its folder as it will be written.
    fn folder_plan(&self) -> Result<FolderPlan>;
}

/// What accompanies a run's phases.
pub struct Course<'r> {
    folder: &'r mut RunFolder,
    checkpoints: Checkpoints,
    log: MetricsLog,
    logger: StepLogger,
    seal: Seal,
    /// Where the run that is gone on with was.
    from: Option<(Checkpoint, Place)>,
}

impl<'r> Course<'r> {
    /// The course of a run from its start, on a device that can do `peak` FLOP/s, on data that `seal` is of.
    pub fn start(folder: &'r mut RunFolder, keep: usize, peak: Option<f64>, seal: Seal) -> Result<Course<'r>> {
        Ok(Course {
            checkpoints: Checkpoints::of(folder.path(), keep),
            log: MetricsLog::open(&folder.file("metrics.jsonl"))?,
            logger: StepLogger::over(folder.path(), peak),
            seal,
            from: None,
            folder,
        })
    }

    /// Begins at the start, or goes on from a checkpoint; what came after it is forgotten.
    pub fn begin(&mut self, options: &RunOptions, from: Option<(Checkpoint, Place)>) -> Result<()> {
        self.logger.profile(options.profile);
        if options.begin == Begin::New {
            return Ok(());
        }
        self.log.cut(from.as_ref().map_or(0, |(_, place)| place.metrics_bytes))?;
        let number = from.as_ref().map_or(0, |(found, _)| found.number);
        self.logger.from_step(number)?;
        self.checkpoints.tidy(number)?;
        match &from {
            Some((found, _)) => outln!("goes on from {}", found.path.display()),
            None => outln!("no checkpoint yet: begins at the start"),
        }
        self.from = from;
        Ok(())
    }

    /// Whether it goes on from a checkpoint.
    pub fn goes_on(&self) -> bool {
        self.from.is_some()
    }

    /// The end of the course: what watched it, for the evaluation.
    pub fn end(self) -> StepLogger {
        self.logger
    }

    /// Trains a phase; one that was over before does nothing. `halfway` is called when half of its steps are taken.
    ///
    /// # Errors
    /// Those of training, with the checkpoint to go on from; [`interrupt::Stopped`] when a signal asked to stop.
    pub fn phase(
        &mut self,
        model: &mut impl Trained,
        phase: Phase,
        halfway: &mut dyn FnMut(&Params) -> Result<()>,
    ) -> Result<()> {
        let from = match &self.from {
            Some((_, place)) if place.phase.comes_after(phase) => return Ok(()),
            Some((found, place)) if place.phase == phase => Some((found.path.clone(), place.clone())),
            _ => None,
        };
        let from = from.map(|(path, mut place)| {
            phase.training(model.recipe()).iter().for_each(|training| place.extend(training));
            (path, place)
        });
        let next = self.train(model, phase, from, halfway).map_err(|error| {
            let last = self.checkpoints.newest().ok().and_then(|(found, _)| found);
            let advice = match last {
                Some(last) => format!("{} is the last good checkpoint", last.path.display()),
                None => "there is no checkpoint yet".to_string(),
            };
            error.context(format!("{} stopped; {advice}", phase.name()))
        })?;
        match next {
            Flow::Continue | Flow::EarlyStop => Ok(()),
            Flow::Interrupted => {
                let go_on = Command::new("train --resume latest").flag("--out", self.folder.path());
                let message = format!("stopped as asked; go on with\n  {go_on}");
                Err(interrupt::Stopped(message).into())
            }
        }
    }

    fn train(
        &mut self,
        model: &mut impl Trained,
        phase: Phase,
        from: Option<(std::path::PathBuf, Place)>,
        halfway: &mut dyn FnMut(&Params) -> Result<()>,
    ) -> Result<Flow> {
        let steps_of = |phase: Phase| phase.training(model.recipe()).map_or(0, |t| t.steps);
        let (steps, first) = (steps_of(phase), steps_of(Phase::Align));
        let before = if phase == Phase::Instruct { first } else { 0 };
        let every = model.recipe().checkpoints.every;
        let aligned = model.recipe().phase2.as_ref().filter(|_| phase == Phase::Instruct);
        let aligned = aligned.map_or(0, |phase| phase.align_every);
        let rules = phase.training(model.recipe());
        let (measured, patience) = rules.map_or((0, 0), |training| (training.eval_every, training.patience));
        let place = from.as_ref().map(|(_, place)| place.clone());
        let mut place = place.unwrap_or_else(|| Place::start(phase, 0));
        let mut progress = Progress::new(phase.name(), steps, place.step);
        let keeper =
            Keeper { recipe: model.recipe().clone(), phase, seal: self.seal.clone(), plan: model.folder_plan()? };
        let from = from.as_ref().map(|(path, place)| (path.as_path(), place));
        let config = model.vlm().cloned();
        let (log, checkpoints, folder) = (&mut self.log, &self.checkpoints, &mut *self.folder);
        let logger = &mut self.logger;
        let next = model.train(phase, from, &mut |step, params, optimizer, measure| {
            place.num_tokens += step.accuracy.map_or(0, |(_, all)| all as u64);
            let own = step.phase == phase;
            let number = before + step.step;
            let mut line = metrics(step, if own { 0 } else { first }, place.num_tokens);
            logger.see(&mut line, step, (&keeper.recipe, config.as_ref(), phase), params)?;
            let mut better = false;
            // What is measured is this phase's loss: behind a step on phase 1's it waits for the next.
            let due = |step: usize| step.checked_rem(measured) == Some(0);
            let late = (step.step - 1).checked_rem(aligned) == Some(0) && due(step.step - 1);
            if own && (due(step.step) || step.step > 1 && late) {
                optimizer.swap_average(params)?;
                let loss = measure(params);
                optimizer.swap_average(params)?;
                let loss = loss?;
                line.parts.insert(EVAL_LOSS.into(), loss);
                better = place.measured(loss, number);
            }
            log.append(&line)?;
            logger.log(number, &line)?;
            progress.measured(&line);
            progress.step(own.then_some(step.loss), step.samples);
            place.step = step.step;
            if step.step == steps / 2 {
                halfway(params)?;
            }
            let enough = patience > 0 && place.best.is_some_and(|best| best.since >= patience);
            let (done, asked) = (step.step == steps || enough, interrupt::asked());
            place.over = done;
            if done || asked || better || number.checked_rem(every) == Some(0) {
                place.metrics_bytes = log.settle()?;
                let precious = place.best.map(|best| best.checkpoint);
                checkpoints.save(number, precious, |path| keeper.write(path, &place, params, optimizer))?;
                folder.keep();
            }
            Ok(match (asked, enough) {
                (true, _) => Flow::Interrupted,
                (false, true) => Flow::EarlyStop,
                (false, false) => Flow::Continue,
            })
        })?;
        progress.finish();
        if let (Some(best), true, true) = (place.best, patience > 0, next != Flow::Interrupted) {
            let best = self.checkpoints.at(best.checkpoint)?;
            outln!("{}: the best held-out loss is that of {}", phase.name(), best.path.display());
            read_weights(&best.path, model.params_mut())?;
        }
        Ok(next)
    }
}

/// What a checkpoint is written from, beside what changes with each step.
struct Keeper {
    recipe: Recipe,
    phase: Phase,
    seal: Seal,
    plan: FolderPlan,
}

impl Keeper {
    /// Fills a checkpoint's folder. The model in it has the running average of the weights where one is kept.
    fn write(&self, folder: &Path, place: &Place, params: &mut Params, optimizer: &mut Optimizer) -> Result<()> {
        place.write(folder)?;
        self.seal.write(folder)?;
        write_whole(&folder.join(RECIPE), self.recipe.to_toml().as_bytes())?;
        write_numbers(folder, &self.recipe, self.phase, params, optimizer)?;
        optimizer.swap_average(params)?;
        let written = self.plan.write(folder, params);
        optimizer.swap_average(params)?;
        written.context("the model cannot be saved")
    }
}

/// A step as it is logged, behind `before` steps of its phase.
fn metrics(step: &Step, before: usize, num_tokens: u64) -> StepMetrics {
    let (seconds, waited) = step.seconds;
    StepMetrics {
        phase: step.phase.name().into(),
        step: before + step.step,
        loss: step.loss,
        lr: step.lr,
        grad_norm: step.grad_norm,
        samples_per_s: step.samples as f64 / seconds.max(1e-9),
        mean_token_accuracy: step.accuracy.map(|(right, all)| right as f64 / all.max(1) as f64),
        num_tokens,
        data_wait_share: Some(waited / seconds.max(1e-9)),
        parts: step.parts.iter().map(|(name, value)| (name.to_string(), *value)).collect(),
        ..StepMetrics::default()
    }
}
