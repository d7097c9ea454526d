//! The training loop both phases share: batches made ahead, forward, backward, step, one report per step.

use super::Phase;
use crate::recipe::{self, Training};
use anyhow::{Context, Result};
use engine::{AdamW, Curve, Graph, Optimizer, Params, Schedule, Tensor, Var};
use rayon::prelude::*;
use std::sync::mpsc::sync_channel;
use std::time::Instant;

/// Batches made ahead of the step.
const AHEAD: usize = 2;

/// What a phase trains on and for.
pub trait Objective: Sync {
    /// Part of a step's batch, on the host.
    type Batch: Send + Sync;
    /// The `index`-th part of `size` images, counted over the whole phase, the same whenever it is asked for; `progress`
    /// runs from 0 to 1.
    fn batch(&self, index: u64, size: usize, progress: f64) -> Result<Self::Batch>;
    /// What a part's mean loss counts beside the others of its step: how many terms it is the mean of.
    fn weight(&self, _: &Self::Batch) -> f64 {
        1.0
    }
    /// The part's losses.
    fn losses(&self, graph: &Graph<'_>, batch: &Self::Batch) -> Result<Losses>;
}

/// The losses of one batch.
pub struct Losses {
    /// Whose losses they are.
    pub phase: Phase,
    /// What is minimised: a scalar.
    pub total: Var,
    /// Its parts by name, unweighted.
    pub parts: Vec<(&'static str, Tensor)>,
    /// Answer tokens predicted right, and how many there were.
    pub accuracy: Option<(usize, usize)>,
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
    /// Seconds the step took, and of these seconds spent waiting for data.
    pub seconds: (f64, f64),
}

/// Trains for `training.steps` steps. `observe` sees each step and may look at the parameters.
///
/// # Errors
/// Those of data, of the model, and a gradient that is not finite, before anything is changed by it.
pub fn fit<O: Objective>(
    objective: &O,
    params: &mut Params,
    training: &Training,
    seed: u64,
    mut observe: impl FnMut(&Step, &Params) -> Result<()>,
) -> Result<()> {
    let mut optimizer = Optimizer::new(params, adamw(training))?;
    let schedule = schedule(training);
    let (shards, parts) = (training.shards, training.accumulate * training.shards);
    let size = training.batch_size / shards;
    std::thread::scope(|scope| {
        let (sender, batches) = sync_channel(AHEAD * parts);
        scope.spawn(move || {
            for index in 0..(training.steps * parts) as u64 {
                let progress = index as f64 / (training.steps * parts) as f64;
                // The loop below hung up: it failed, and says why itself.
                if sender.send(objective.batch(index, size, progress)).is_err() {
                    return;
                }
            }
        });
        for step in 0..training.steps {
            let begin = Instant::now();
            let batches: Vec<O::Batch> = (0..parts)
                .map(|_| batches.recv().context("the thread that makes batches ended early")?)
                .collect::<Result<_>>()?;
            let waited = begin.elapsed().as_secs_f64();
            let graph = |part: usize| {
                let seed = seed ^ ((step * parts + part) as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                Graph::training(params, seed).with_recomputation(training.recompute)
            };
            let sum = learn(objective, &batches, optimizer.separate_gradients(shards)?, graph)?;
            let lr = schedule.at(step);
            let report = optimizer
                .step(params, lr)
                .with_context(|| format!("step {}", step + 1))?;
            let done = Step {
                step: step + 1,
                phase: sum.phase.context("a step without a batch")?,
                loss: sum.loss,
                parts: sum.parts,
                lr,
                grad_norm: report.grad_norm,
                accuracy: sum.accuracy,
                samples: training.batch_size * training.accumulate,
                seconds: (begin.elapsed().as_secs_f64(), waited),
            };
            observe(&done, params)?;
        }
        Ok(())
    })
}

/// Forward and backward on all parts of a step, as many side by side as there are arenas for their gradients.
fn learn<'p, O: Objective>(
    objective: &O,
    parts: &[O::Batch],
    arenas: &mut [Tensor],
    graph: impl Fn(usize) -> Graph<'p> + Sync,
) -> Result<Sum> {
    let whole: f64 = parts.iter().map(|part| objective.weight(part)).sum();
    let mut sum = Sum::default();
    for (round, shards) in parts.chunks(arenas.len()).enumerate() {
        let first = round * arenas.len();
        let shard = |(i, (batch, gradients)): (usize, (&O::Batch, &mut Tensor))| {
            let share = objective.weight(batch) / whole.max(f64::MIN_POSITIVE);
            learn_part(objective, &graph(first + i), batch, share, gradients)
        };
        let done: Vec<Result<Sum>> = shards.par_iter().zip(&mut *arenas).enumerate().map(shard).collect();
        for part in done {
            sum.add(part?);
        }
    }
    Ok(sum)
}

/// Forward and backward on one part: adds `share` of its gradients.
fn learn_part<O: Objective>(
    objective: &O,
    graph: &Graph<'_>,
    batch: &O::Batch,
    share: f64,
    gradients: &mut Tensor,
) -> Result<Sum> {
    let losses = objective.losses(graph, batch)?;
    graph.backward(&engine::ops::scale(&losses.total, share)?, gradients)?;
    let part = |(name, value): &(&'static str, Tensor)| Ok((*name, share * value.item()?));
    Ok(Sum {
        phase: Some(losses.phase),
        loss: share * losses.total.tensor().item()?,
        parts: losses.parts.iter().map(part).collect::<Result<_>>()?,
        accuracy: losses.accuracy,
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
    fn add(&mut self, part: Sum) {
        self.phase = part.phase;
        self.loss += part.loss;
        for (name, value) in part.parts {
            match self.parts.iter_mut().find(|(n, _)| *n == name) {
                Some((_, sum)) => *sum += value,
                None => self.parts.push((name, value)),
            }
        }
        if let Some((right, all)) = part.accuracy {
            let (r, a) = self.accuracy.unwrap_or_default();
            self.accuracy = Some((r + right, a + all));
        }
    }
}

fn adamw(training: &Training) -> AdamW {
    AdamW {
        beta1: training.beta1,
        beta2: training.beta2,
        eps: training.eps,
        clip: (training.clip > 0.0).then_some(training.clip),
    }
}

fn schedule(training: &Training) -> Schedule {
    let curve = match training.curve {
        recipe::Curve::Constant => Curve::Constant,
        recipe::Curve::Cosine => Curve::Cosine,
        recipe::Curve::Linear => Curve::Linear,
    };
    Schedule {
        curve,
        peak: training.lr,
        floor: training.floor,
        warmup: training.warmup,
        steps: training.steps,
    }
}
