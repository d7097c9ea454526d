//! What a checkpoint holds beside the model: where the run was, and the numbers its next step depends on.

use crate::phases::Phase;
use crate::recipe::{Recipe, Training};
use crate::run_folder::{MAX_FILE, write_whole};
use anyhow::{Context, Result, ensure};
use engine::{Optimizer, Params};
use model::read_file;
use model::weights::{Entry, TensorFile, write_tensors};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Goes up when older checkpoints cannot be gone on from.
const VERSION: u32 = 1;
const PLACE: &str = "trainer_state.json";
const NUMBERS: &str = "optimizer.safetensors";

/// Where a run was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    version: u32,
    /// The phase it was in.
    pub phase: Phase,
    /// Steps of that phase taken.
    pub step: usize,
    /// Target tokens so far in that phase.
    pub num_tokens: u64,
    /// Length of `metrics.jsonl`, in bytes: lines behind it belong to steps that were lost.
    pub metrics_bytes: u64,
    /// The best held-out loss so far in that phase.
    pub best: Option<Best>,
    /// Whether the phase is over, be it before its last step.
    pub over: bool,
}

/// A held-out loss and where it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    pub loss: f64,
    /// The checkpoint with the weights that reached it.
    pub checkpoint: usize,
    /// Evaluations since that were no better.
    pub since: usize,
}

impl Place {
    pub fn start(phase: Phase, metrics_bytes: u64) -> Place {
        Place { version: VERSION, phase, step: 0, num_tokens: 0, metrics_bytes, best: None, over: false }
    }

    /// Takes note of a held-out loss at checkpoint `number`; whether it is the best so far.
    pub fn measured(&mut self, loss: f64, number: usize) -> bool {
        let better = self.best.is_none_or(|best| loss < best.loss);
        match &mut self.best {
            Some(best) if !better => best.since += 1,
            best => {
                *best = Some(Best { loss, checkpoint: number, since: 0 });
            }
        }
        better
    }

    /// Takes a phase up again that is to take more steps now, unless it ended early.
    pub fn extend(&mut self, training: &Training) {
        let early = training.patience > 0 && self.best.is_some_and(|best| best.since >= training.patience);
        self.over &= early || self.step >= training.steps;
    }

    /// Writes it into a checkpoint's folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join(PLACE), &serde_json::to_vec_pretty(self)?)
    }

    /// Reads it from there.
    ///
    /// # Errors
    /// When it is absent, damaged, or of another version.
    pub fn read(folder: &Path) -> Result<Place> {
        let path = folder.join(PLACE);
        let text = read_file(&path, MAX_FILE).with_context(|| path.display().to_string())?;
        let place: Place =
            serde_json::from_slice(&text).with_context(|| format!("{}: not where a run was", path.display()))?;
        ensure!(
            place.version == VERSION,
            "{}: version {}, this program goes on from version {VERSION}",
            path.display(),
            place.version
        );
        Ok(place)
    }
}

/// Writes all numbers that the next step of `phase` depends on: the optimiser's, and frozen parameters that an earlier phase
/// trained. Parameters that no phase trains are made again as they were made first.
pub fn write_numbers(
    folder: &Path,
    recipe: &Recipe,
    phase: Phase,
    params: &Params,
    optimizer: &Optimizer,
) -> Result<()> {
    let settled = settled(recipe, phase, params).map(|(name, id)| (name, params.master(id)));
    let entries: Vec<Entry<'_>> =
        optimizer.state(params).into_iter().chain(settled).map(|(name, tensor)| Entry::new(name, tensor)).collect();
    Ok(write_tensors(&folder.join(NUMBERS), &entries, &[])?)
}

/// Reads back what [`write_numbers`] wrote.
///
/// # Errors
/// When a number is absent or of another shape: the checkpoint is of another model or recipe.
pub fn read_numbers(
    folder: &Path,
    recipe: &Recipe,
    place: &Place,
    params: &mut Params,
    optimizer: &mut Optimizer,
) -> Result<()> {
    let file = TensorFile::open(&folder.join(NUMBERS))?;
    let device = params.device().clone();
    let value = |name: &str| {
        file.tensor(name, &device)
            .map_err(|error| engine::Error::Param { name: name.into(), message: error.to_string() })
    };
    let settled: Vec<_> = settled(recipe, place.phase, params).collect();
    for (name, id) in settled {
        params.set(id, &value(&name)?)?;
    }
    optimizer
        .restore(params, place.step as u64, value)
        .with_context(|| format!("{}: not of this recipe's model", file.path().display()))
}

/// Reads the weights of a checkpoint alone: their running average where one was kept.
pub fn read_weights(folder: &Path, params: &mut Params) -> Result<()> {
    let file = TensorFile::open(&folder.join(NUMBERS))?;
    for id in params.ids().filter(|&id| !params.is_frozen(id)).collect::<Vec<_>>() {
        let name = params.name(id);
        let average = format!("average.{name}");
        let kept = match file.shape(&average) {
            Some(_) => average,
            None => format!("master.{name}"),
        };
        let value = file.tensor(&kept, params.device())?;
        params.set(id, &value)?;
    }
    Ok(())
}

/// Parameters frozen now that an earlier phase trained, with their names in the file.
fn settled<'p>(
    recipe: &Recipe,
    phase: Phase,
    params: &'p Params,
) -> impl Iterator<Item = (String, engine::ParamId)> + use<'p> {
    let earlier: Vec<Training> =
        Phase::of(recipe).take_while(|&before| before != phase).filter_map(|before| before.training(recipe)).collect();
    let frozen = |training: &Training, name: &str| {
        let rule = training.rules.iter().find(|rule| rule.fits(name));
        rule.is_some_and(|rule| rule.freeze)
    };
    let settled = move |id: engine::ParamId| {
        let name = params.name(id);
        (params.is_frozen(id) && earlier.iter().any(|training| !frozen(training, name)))
            .then(|| (format!("settled.{name}"), id))
    };
    params.ids().filter_map(settled)
}
