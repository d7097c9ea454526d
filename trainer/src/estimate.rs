//! How much memory a run will take, told before it begins.

use crate::memory;
use crate::recipe::Training;
use anyhow::Result;
use engine::{Device, Params};

/// Steps rehearsed per phase: texts differ in length, and with them the buffers.
const STEPS: usize = 6;
/// What the rehearsal cannot see: stacks and packing buffers of the threads that compute.
const PER_THREAD: u64 = 6 << 20;

/// Bytes this process will hold at the most: what it holds now, and what its tensors will need, found by training a few
/// steps and evaluating on a device that computes nothing and only counts, as `rehearse` does on the device it is given.
///
/// # Errors
/// Those the run itself would meet.
pub fn peak(device: &Device, rehearse: impl FnOnce(&Device) -> Result<()>) -> Result<u64> {
    let trace = Device::trace();
    rehearse(&trace)?;
    let tensors = trace.memory().peak_reserved as u64;
    let held = memory::resident().map_or(0, |resident| resident.peak);
    let threads = rayon::current_num_threads() as u64;
    Ok(held + tensors.saturating_sub(device.memory().reserved as u64) + threads * PER_THREAD)
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
