//! How much memory a run will take, told before it begins.

use crate::memory;
use crate::recipe::{Recipe, Training};
use anyhow::{Result, ensure};
use engine::{DType, Device, Kind, ParamSpec, Params};

/// Steps rehearsed per phase: texts differ in length, and with them the buffers.
const STEPS: usize = 6;
/// The share of free memory that batches may take: an estimate may be some per cent off.
const SHARE: f64 = 0.85;
/// What the rehearsal cannot see: stacks and packing buffers of the threads that compute.
const PER_THREAD: u64 = 6 << 20;

/// Bytes this process will hold at the most: what it holds now, and what its tensors will need, found by training a few
/// steps and evaluating on a device that computes nothing and only counts, as `rehearse` does on the device it is given.
pub fn peak(device: &Device, rehearse: impl FnOnce(&Device) -> Result<()>) -> Result<u64> {
    Ok(in_all(tensors(rehearse)?, device))
}

/// Fails where a model's parameters alone take more memory than is free.
pub fn weights_fit(specs: &[ParamSpec], dtype: DType, device: &Device) -> Result<()> {
    let free = match (device.free_memory()?, device.kind()) {
        (Some(free), _) => free as u64,
        (None, Kind::Trace) => return Ok(()),
        (None, _) => memory::available().unwrap_or(u64::MAX),
    };
    let elements = specs.iter().map(|spec| spec.shape.elements() as u64);
    let need = elements.fold(0, u64::saturating_add).saturating_mul(dtype.size() as u64);
    ensure!(
        need <= free,
        "the model's parameters alone take {}, {} is free: choose a smaller model",
        memory::size(need),
        memory::size(free)
    );
    Ok(())
}

/// Bytes that tensors take of it.
fn tensors(rehearse: impl FnOnce(&Device) -> Result<()>) -> Result<u64> {
    let trace = Device::trace();
    rehearse(&trace)?;
    Ok(trace.memory().peak_reserved as u64)
}

fn in_all(tensors: u64, device: &Device) -> u64 {
    let held = memory::resident().map_or(0, |resident| resident.peak);
    let threads = rayon::current_num_threads() as u64;
    held + tensors.saturating_sub(device.memory().reserved as u64) + threads * PER_THREAD
}

/// Makes the batches of every phase as large as fits into the memory that is free, with as many images a step as before:
/// what is taken from a batch is accumulated.
///
/// # Errors
/// Those of `rehearse`, which is called with each choice; when not even single images fit.
pub fn fit_batches(
    recipe: &mut Recipe,
    device: &Device,
    rehearse: impl Fn(&Recipe, &Device) -> Result<()>,
) -> Result<()> {
    fit(recipe, rehearse, |tensors| match device.free_memory()? {
        Some(free) => Ok((tensors, free as u64 + device.memory().reserved as u64)),
        None => {
            let held = memory::resident().map_or(0, |resident| resident.current);
            let free = memory::available().unwrap_or(u64::MAX);
            Ok((in_all(tensors, device), free.saturating_add(held)))
        }
    })
}

/// As [`fit_batches`], where `memory` says what is needed in all for so many bytes of tensors, and how much there is.
fn fit(
    recipe: &mut Recipe,
    rehearse: impl Fn(&Recipe, &Device) -> Result<()>,
    memory: impl Fn(u64) -> Result<(u64, u64)>,
) -> Result<()> {
    for (batch, accumulate, _) in recipe.batches() {
        (*batch, *accumulate) = (*batch * *accumulate, 1);
    }
    loop {
        let (needed, free) = memory(tensors(|trace| rehearse(recipe, trace))?)?;
        if needed as f64 <= SHARE * free as f64 {
            return Ok(());
        }
        let mut halved = false;
        for (batch, accumulate, shards) in recipe.batches() {
            if *batch % 2 == 0 && *batch / 2 % shards == 0 {
                (*batch, *accumulate, halved) = (*batch / 2, *accumulate * 2, true);
            }
        }
        let (needed, free) = (memory::size(needed), memory::size(free));
        ensure!(
            halved,
            "the smallest batches need {needed}, {free} is free; phaseN.recompute = true or a smaller model needs less"
        );
    }
}

/// What of that is known before a step is taken: bytes by what they are for.
pub fn parts(params: &Params, training: &Training) -> Vec<(&'static str, u64)> {
    let (all, trained) = params.count();
    let (wide, narrow) = (params.dtype().accumulator().size(), params.dtype().size());
    let low = if wide == narrow { 0 } else { trained * narrow };
    let average = if training.ema > 0.0 { trained * wide } else { 0 };
    [
        ("weights", trained * wide + low + (all - trained) * narrow),
        ("gradients", trained * wide * training.shards),
        ("optimiser", 2 * trained * wide + average),
    ]
    .map(|(name, bytes)| (name, bytes as u64))
    .into()
}

/// The few steps of a phase that are rehearsed.
pub fn few(training: Training) -> Training {
    Training {
        steps: training.steps.min(STEPS),
        warmup: 0,
        // Side by side, shards hold as much as the whole batch; their own gradients are left out.
        shards: 1,
        ..training
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn recipe() -> Recipe {
        let text = "[run]\nname = \"fit\"\n[data]\nsource = \"scenes\"\n[model.qformer]\n\
                    [phase1]\nsteps = 1\nbatch_size = 6\naccumulate = 4\nshards = 2\nlr = 1e-3\n\
                    [phase2]\nsteps = 1\nbatch_size = 5\naccumulate = 3\nlr = 1e-3\n";
        Recipe::parse(text, Path::new("fit.toml"), &[]).unwrap()
    }

    fn sizes(recipe: &mut Recipe) -> Vec<(usize, usize)> {
        recipe.batches().map(|(batch, accumulate, _)| (*batch, *accumulate)).collect()
    }

    /// As much as a model might take that needs so many bytes for each image of its largest batch.
    fn takes(recipe: &Recipe, trace: &Device, each: usize) -> Result<()> {
        let largest = recipe.clone().batches().map(|(batch, ..)| *batch).max().unwrap_or(0);
        let _held = trace.allocate(each * largest)?;
        Ok(())
    }

    #[test]
    fn batches_grow_to_what_fits_and_steps_keep_their_images() {
        let mut small = recipe();
        fit_batches(&mut small, &Device::cpu(), |recipe, trace| takes(recipe, trace, 1)).unwrap();
        assert_eq!(sizes(&mut small), [(24, 1), (15, 1)]);

        const FREE: usize = 1 << 30;
        let fitted = |recipe: &mut Recipe, each: usize| {
            fit(recipe, |recipe, trace| takes(recipe, trace, each), |tensors| Ok((tensors, FREE as u64)))
        };
        let mut large = recipe();
        fitted(&mut large, FREE / 18).unwrap();
        assert_eq!(sizes(&mut large), [(12, 2), (15, 1)], "15 do not halve");

        let refused = fitted(&mut recipe(), FREE);
        let text = refused.unwrap_err().to_string();
        assert!(text.starts_with("the smallest batches need ") && text.contains("recompute"), "{text}");
    }
}
