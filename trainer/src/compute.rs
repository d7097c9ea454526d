//! Where and with how many threads to compute.

use anyhow::{Context, Result, anyhow, bail};
use engine::{Device, Kind};
use kernels::gpu::Emulation;

/// The device called `name`: `cpu`, `cuda:N`, `emulated`, or `emulated:check`, which checks every access to memory.
///
/// # Errors
/// A name that is no device's, and one that cannot be had here: says what was looked for and what was found.
pub fn open(name: &str) -> Result<Device> {
    open_seeded(name, 0)
}

/// As [`open`], for work that keeps coming in the same course: a GPU does it as CUDA graphs, if `graphs`.
///
/// # Errors
/// As [`open`].
pub fn open_for_training(name: &str, graphs: bool) -> Result<Device> {
    let device = open(name)?;
    device.collect_work(graphs && matches!(device.kind(), Kind::Cuda(_)))?;
    Ok(device)
}

/// As [`open`], with the seed of the order in which the emulator runs threads.
///
/// # Errors
/// As [`open`].
pub fn open_seeded(name: &str, seed: u64) -> Result<Device> {
    let ordinal = name
        .strip_prefix("cuda")
        .map(|rest| rest.strip_prefix(':').unwrap_or(rest));
    let device = match (name, ordinal) {
        ("cpu", _) => return Ok(Device::cpu()),
        ("emulated" | "emulated:check", _) => Device::emulated(Emulation {
            seed,
            check: name.ends_with("check"),
        }),
        (_, Some("")) => Device::cuda(0),
        (_, Some(ordinal)) if ordinal.parse::<u16>().is_ok() => Device::cuda(ordinal.parse()?),
        _ => bail!("device `{name}` is not known; expected `cpu`, `cuda:N` or `emulated`"),
    };
    device.map_err(|error| match error {
        kernels::Error::NoDevice { reason, .. } => {
            anyhow!("device `{name}` is not available: {reason}; --device cpu works everywhere")
        }
        other => other.into(),
    })
}

/// Does `work` with so many threads, or one per core. Results do not depend on it.
///
/// # Errors
/// Those of `work`; when the threads cannot be started, or others are in use already.
pub fn with_threads<R: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    if let Some(threads) = threads {
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .with_context(|| format!("{threads} threads cannot be started"))?;
    }
    // On a thread of the pool a kernel starts on its own share at once, where any other thread would hand over
    // everything and sleep: with small models a sixth of a step.
    rayon::scope(|_| work())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        assert_eq!(open("cpu").unwrap().kind(), Kind::Cpu);
    }

    #[test]
    fn a_gpu_that_cannot_be_used_is_explained() {
        for name in ["cuda", "cuda:0", "cuda:12"] {
            let text = open(name).unwrap_err().to_string();
            assert!(
                text.starts_with(&format!("device `{name}` is not available: ")),
                "{text}"
            );
            assert!(
                text.contains("libcuda") || text.contains("driver"),
                "says what was looked for: {text}"
            );
            assert!(text.ends_with("--device cpu works everywhere"), "{text}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cudaa", "CPU"] {
            let text = open(name).map(|_| ()).expect_err(name).to_string();
            assert!(text.contains("not known") || name == "cuda:", "{text}");
        }
    }
}
