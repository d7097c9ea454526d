//! The training loop both phases share: batches made ahead, forward, backward, step, one report per step.

use super::Phase;
use super::ahead::ahead;
use crate::recipe::{self, Training};
use anyhow::{Context, Error, Result, ensure};
use engine::{AdamW, Curve, GradientArena, Graph, Kind, Optimizer, Params, Schedule, Tensor, Var, ops};
use model::IGNORE;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::time::Instant;

/// Steps whose batches are made ahead.
const AHEAD: usize = 2;

/// Whether training goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// With the next step, if there is one.
    Continue,
    /// The phase is over before its last step.
    EarlyStop,
    /// Not for now.
    Interrupted,
}

/// What a phase trains on and for.
pub trait Objective: Sync {
    /// Part of a step's batch, on the host.
    type Batch: Send + Sync;
    /// What a step's parts know of each other.
    type Together: Sync;
    /// The part of `size` images behind the first `start` of the phase, the same whenever it is asked for; `progress` runs
    /// from 0 to 1.
    fn batch(&self, start: u64, size: usize, progress: f64) -> Result<Self::Batch>;
    /// What a part's mean loss counts beside the others of its step: how many terms it is the mean of.
    fn weight(&self, _: &Self::Batch) -> f64 {
        1.0
    }
    /// What the part's predictions should have been; [`IGNORE`] where nothing is asked.
    fn targets<'b>(&self, _: &'b Self::Batch) -> &'b [i32] {
        &[]
    }
    /// Tokens of text in a part, without padding and without places for images.
    fn text_tokens(&self, _: &Self::Batch) -> usize {
        0
    }
    /// What a step's parts have to know of each other before any of them learns, from a first pass over all; `graph` is the
    /// pass that a part will learn by. None: each part is learned for itself.
    fn together<'p>(&self, _: &[Self::Batch], _: &dyn Fn(usize) -> Graph<'p>) -> Result<Option<Self::Together>> {
        Ok(None)
    }
    /// The losses of a part, the `number`-th of its step.
    fn losses(
        &self,
        graph: &Graph<'_>,
        batch: &Self::Batch,
        together: Option<(&Self::Together, usize)>,
    ) -> Result<Losses>;
}

/// The losses of one batch.
pub struct Losses {
    /// Whose losses they are.
    pub phase: Phase,
    /// What is minimised: a scalar.
    pub total: Var,
    /// What it is made of; empty where it is one mean over [`Objective::weight`] terms.
    pub parts: Vec<Part>,
    /// The likeliest token at each of the batch's targets, I32.
    pub predictions: Option<Tensor>,
}

/// One of the losses that a total is made of.
pub struct Part {
    /// Its name in the metrics.
    pub name: &'static str,
    /// Unweighted.
    pub loss: Tensor,
    /// Its factor in the total.
    pub weight: f64,
    /// How many terms it is the mean of.
    pub terms: f64,
}

/// One optimiser step, as it is logged.
#[derive(Debug, Clone)]
pub struct Step {
    /// Counted from 1.
    pub step: usize,
    /// The phase whose losses the step was taken on; phase 2 takes some on phase 1's.
    pub phase: Phase,
    /// The weighted loss, averaged over accumulated parts.
    pub loss: f64,
    /// Its parts, likewise.
    pub parts: Vec<(&'static str, f64)>,
    /// Learning rate of groups with factor 1.
    pub lr: f64,
    /// Norm of the gradients before clipping.
    pub grad_norm: f64,
    /// Answer tokens predicted right, and how many there were.
    pub accuracy: Option<(usize, usize)>,
    /// Images seen in this step.
    pub samples: usize,
    /// Tokens of text in it, without padding.
    pub text_tokens: usize,
    /// Seconds the step took, and of these seconds spent waiting for data.
    pub seconds: (f64, f64),
}

/// The optimiser that [`fit`] begins a phase with, over the parameters as they are grouped now.
///
/// # Errors
/// When there is no memory for its state.
pub fn optimizer(params: &Params, training: &Training, seed: u64) -> Result<Optimizer> {
    Ok(Optimizer::new(params, adamw(training, seed))?)
}

/// Trains from the step that `optimizer` has come to up to `training.steps`. `observe` sees each step, with the weights and
/// the optimiser as the step left them, and says whether to go on. What a step does depends on the seed, its number and
/// what the steps before left, and on nothing else.
///
/// # Errors
/// Those of data, of the model, and a loss or gradient that is not finite, before anything is changed by it.
pub fn fit<O: Objective>(
    objective: &O,
    params: &mut Params,
    optimizer: &mut Optimizer,
    training: &Training,
    seed: u64,
    mut observe: impl FnMut(&Step, &mut Params, &mut Optimizer) -> Result<Flow>,
) -> Result<Flow> {
    let schedule = schedule(training);
    let (shards, parts) = (training.shards, training.accumulate * training.shards);
    let size = training.batch_size / shards;
    let first = optimizer.steps() as usize;
    let batch = |index: usize| {
        let progress = index as f64 / (training.steps * parts) as f64;
        objective.batch((index * size) as u64, size, progress)
    };
    ahead(first * parts..training.steps * parts, AHEAD * parts, batch, |batches| {
        for step in first..training.steps {
            let begin = Instant::now();
            let batches: Vec<O::Batch> = batches.take(parts).collect::<Result<_>>()?;
            let waited = begin.elapsed().as_secs_f64();
            let graph = |part: usize| {
                let seed = seed ^ ((step * parts + part) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Graph::training(params, seed).with_recomputation(training.recompute)
            };
            let losses = learn(objective, &batches, optimizer.separate_gradients(params, shards)?, graph)?;
            let lr = schedule.at(step);
            let report = optimizer.step(params, lr);
            let report = report.map_err(|error| refused(error, &losses).context(format!("step {}", step + 1)))?;
            // Read only now: before, the device would have had to wait for the host in the midst of the step.
            let sum = Sum::read(objective, &batches, losses)?;
            let done = Step {
                step: step + 1,
                phase: sum.phase.context("a step without a batch")?,
                loss: sum.loss,
                parts: sum.parts,
                lr,
                grad_norm: report.grad_norm,
                accuracy: sum.accuracy,
                samples: training.batch_size * training.accumulate,
                text_tokens: batches.iter().map(|batch| objective.text_tokens(batch)).sum(),
                seconds: (begin.elapsed().as_secs_f64(), waited),
            };
            match observe(&done, params, optimizer)? {
                Flow::Continue => {}
                other => return Ok(other),
            }
        }
        Ok(Flow::Continue)
    })
}

/// The mean loss on the first `images` images of an objective's data, all of them, in batches of at most `size`, without
/// dropout. Each part of it is the mean over its own terms, however the images are divided; contrast and matching compare
/// what is in one batch.
///
/// # Errors
/// Those of data and of the model; when there is nothing to predict.
pub fn measure<O: Objective>(objective: &O, params: &Params, images: usize, size: usize) -> Result<f64> {
    let images = images.max(1);
    let count = images.div_ceil(size.max(1));
    // By name: the factor in the total, the sum over all terms, and how many they are.
    let mut sums = BTreeMap::<&str, (f64, f64, f64)>::new();
    for index in 0..count {
        // As equal as possible: a last batch of one image would have nothing to be told apart from.
        let (start, end) = (index * images / count, (index + 1) * images / count);
        let batch = objective.batch(start as u64, end - start, 1.0)?;
        let losses = objective.losses(&Graph::inference(params), &batch, None)?;
        let mut parts = losses.parts;
        if parts.is_empty() {
            let (loss, terms) = (losses.total.tensor().clone(), objective.weight(&batch));
            parts.push(Part { name: "loss", loss, weight: 1.0, terms });
        }
        for part in parts {
            let (weight, sum, terms) = sums.entry(part.name).or_default();
            *weight = part.weight;
            *sum += part.terms * part.loss.item()?;
            *terms += part.terms;
        }
    }
    let means = sums.values().map(|(weight, sum, terms)| {
        ensure!(*terms > 0.0, "the held-out data has nothing to predict");
        Ok(weight * sum / terms)
    });
    means.sum()
}

/// A step that was not taken: names the losses that are not finite, if it was they.
fn refused(error: engine::Error, losses: &[Learned]) -> Error {
    let mut found: Vec<String> = Vec::new();
    for part in losses {
        let parts = part.parts.iter().map(|part| (part.name, &part.loss));
        for (name, loss) in parts.chain([("loss", &part.total)]) {
            match loss.item() {
                Ok(value) if !value.is_finite() => found.push(format!("{name} is {value}")),
                _ => {}
            }
        }
    }
    found.dedup();
    match found.is_empty() {
        true => Error::new(error),
        false => Error::new(error).context(found.join(", ")),
    }
}

/// Forward and backward on all parts of a step, as many side by side as there are arenas for their gradients.
fn learn<'p, O: Objective>(
    objective: &O,
    parts: &[O::Batch],
    arenas: &mut [GradientArena],
    graph: impl Fn(usize) -> Graph<'p> + Sync,
) -> Result<Vec<Learned>> {
    let together = objective.together(parts, &graph)?;
    let whole: f64 = parts.iter().map(|part| objective.weight(part)).sum();
    ensure!(whole > 0.0, "no sample of this step has a token to predict: data.max_tokens cuts every answer off");
    let mut learned = Vec::with_capacity(parts.len());
    // A GPU's work comes in the same order each step.
    let least = match arenas[0].device().kind() {
        Kind::Cpu => 1,
        _ => arenas.len(),
    };
    for (round, shards) in parts.chunks(arenas.len()).enumerate() {
        let first = round * arenas.len();
        let shard = |(i, (batch, gradients)): (usize, (&O::Batch, &mut GradientArena))| {
            let share = objective.weight(batch) / whole;
            let together = together.as_ref().map(|all| (all, first + i));
            learn_part(objective, &graph(first + i), (batch, together), share, gradients)
        };
        let pairs = shards.par_iter().zip(&mut *arenas).enumerate();
        let done: Vec<Result<Learned>> = pairs.with_min_len(least).map(shard).collect();
        for part in done {
            learned.push(part?);
        }
    }
    Ok(learned)
}

/// What a part of a step leaves on the device.
struct Learned {
    share: f64,
    phase: Phase,
    total: Tensor,
    parts: Vec<Part>,
    predictions: Option<Tensor>,
}

/// Forward and backward on one part: adds `share` of its gradients.
fn learn_part<O: Objective>(
    objective: &O,
    graph: &Graph<'_>,
    (batch, together): (&O::Batch, Option<(&O::Together, usize)>),
    share: f64,
    gradients: &mut GradientArena,
) -> Result<Learned> {
    let losses = objective.losses(graph, batch, together)?;
    // share + 0 x loss: a loss that is not finite makes every gradient so, and the step is not taken.
    let total = &losses.total;
    let share_of = Tensor::full(total.tensor().device(), total.tensor().dtype(), total.shape(), share)?;
    let weight = ops::add(&ops::scale(&total.detach(), 0.0)?, &Var::constant(share_of))?;
    graph.backward(&ops::mul(total, &weight)?, gradients)?;
    Ok(Learned {
        share,
        phase: losses.phase,
        total: losses.total.tensor().clone(),
        parts: losses.parts,
        predictions: losses.predictions,
    })
}

/// Losses of a step's parts, added up.
#[derive(Default)]
struct Sum {
    phase: Option<Phase>,
    loss: f64,
    parts: Vec<(&'static str, f64)>,
    accuracy: Option<(usize, usize)>,
}

impl Sum {
    /// Copies the parts' losses to the host.
    fn read<O: Objective>(objective: &O, batches: &[O::Batch], learned: Vec<Learned>) -> Result<Sum> {
        let mut sum = Sum::default();
        for (batch, part) in batches.iter().zip(learned) {
            sum.phase = Some(part.phase);
            sum.loss += part.share * part.total.item()?;
            for Part { name, loss, .. } in part.parts {
                sum.add(name, part.share * loss.item()?);
            }
            if let Some(predictions) = part.predictions {
                let (right, all) = count_right(objective.targets(batch), &predictions.to_vec()?);
                let (r, a) = sum.accuracy.unwrap_or_default();
                sum.accuracy = Some((r + right, a + all));
            }
        }
        Ok(sum)
    }

    fn add(&mut self, name: &'static str, value: f64) {
        match self.parts.iter_mut().find(|(n, _)| *n == name) {
            Some((_, sum)) => *sum += value,
            None => self.parts.push((name, value)),
        }
    }
}

/// How many answer tokens were predicted right, and how many there are.
fn count_right(targets: &[i32], predictions: &[i32]) -> (usize, usize) {
    let asked = targets.iter().zip(predictions).filter(|(target, _)| **target != IGNORE);
    asked.fold((0, 0), |(right, all), (target, prediction)| (right + usize::from(target == prediction), all + 1))
}

fn adamw(training: &Training, seed: u64) -> AdamW {
    AdamW {
        beta1: training.beta1,
        beta2: training.beta2,
        eps: training.eps,
        clip: (training.clip > 0.0).then_some(training.clip),
        stochastic: training.stochastic_rounding.then_some(seed),
        average: (training.ema > 0.0).then_some(training.ema),
    }
}

fn schedule(training: &Training) -> Schedule {
    let curve = match training.curve {
        recipe::Curve::Constant => Curve::Constant,
        recipe::Curve::Cosine => Curve::Cosine,
        recipe::Curve::Linear => Curve::Linear,
    };
    Schedule { curve, peak: training.lr, floor: training.floor, warmup: training.warmup, steps: training.steps }
}
