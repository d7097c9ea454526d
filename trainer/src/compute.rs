//! Where and with how many threads to compute.

use anyhow::{Context, Result, anyhow, bail, ensure};
use engine::{Device, Kind};
use kernels::cpu::simd::{chosen, isa};
use kernels::cuda::{Driver, driver};
use kernels::gpu::Emulation;
use std::error::Error;

/// The device called `name`: `cpu`, `cuda:N`, `emulated`, or `emulated:check`, which checks every access to memory.
///
/// # Errors
/// A name that is no device's, and one that cannot be had here: says what was looked for and what was found.
pub fn open(name: &str) -> Result<Device> {
    open_seeded(name, 0)
}

/// As [`open`], for work that keeps coming in the same course: a GPU does it as CUDA graphs, if `graphs`.
pub fn open_for_training(name: &str, graphs: bool) -> Result<Device> {
    let device = open(name)?;
    device.collect_work(graphs && matches!(device.kind(), Kind::Cuda(_)))?;
    Ok(device)
}

/// As [`open`], with the seed of the order in which the emulator runs threads.
pub fn open_seeded(name: &str, seed: u64) -> Result<Device> {
    let emulated = matches!(name, "emulated" | "emulated:check");
    ensure!(
        emulated || seed == 0,
        "the seed is the order in which the emulator runs threads; device `{name}` has none"
    );
    let device = match (name, name.strip_prefix("cuda:").map(ordinal)) {
        ("cpu", _) => {
            chosen()?;
            return Ok(Device::cpu());
        }
        _ if emulated => Device::emulated(Emulation { seed, check: name.ends_with("check") }),
        ("cuda", _) => Device::cuda(0),
        (_, Some(Some(ordinal))) => Device::cuda(ordinal),
        _ => bail!(
            "device `{name}` is not known; expected `cpu`, `cuda` or `cuda:N` with the number of a GPU, `emulated` or \
             `emulated:check`"
        ),
    };
    device.map_err(|error| match error {
        kernels::Error::NoDevice { reason, .. } => {
            anyhow!("device `{name}` is not available: {reason}; --device cpu works everywhere")
        }
        other => other.into(),
    })
}

/// The number of a GPU, which is digits alone.
fn ordinal(text: &str) -> Option<usize> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse::<u16>().ok().filter(|_| digits).map(usize::from)
}

/// A device's name: a GPU's own, a processor's instruction set.
pub(crate) fn name(device: &Device) -> String {
    let kind = device.kind().name();
    match (device.kind(), driver()) {
        (Kind::Cuda(ordinal), Driver::Found { gpus, .. }) => match gpus.get(ordinal) {
            Some(gpu) => format!("{kind}:{ordinal}, {}", gpu.name),
            None => format!("{kind}:{ordinal}"),
        },
        (Kind::Cpu, _) => format!("{kind} ({})", isa().name()),
        _ => kind.into(),
    }
}

/// Does `work` with so many threads, or one per core. Results do not depend on it.
///
/// # Errors
/// Those of `work`; when the threads cannot be started, or others are in use already.
pub fn with_threads<R: Send>(threads: Option<usize>, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0));
    match pool.build_global() {
        // The one that is there will do where none is asked for; what the system refuses has a source.
        Err(error) if threads.is_none() && error.source().is_none() => {}
        built => built.with_context(|| {
            let count = threads.map_or(String::new(), |threads| format!("{threads} "));
            format!("{count}threads cannot be started; fewer may be, by --threads (see `ulimit -u`)")
        })?,
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
            assert!(text.starts_with(&format!("device `{name}` is not available: ")), "{text}");
            assert!(text.contains("libcuda") || text.contains("driver"), "says what was looked for: {text}");
            assert!(text.ends_with("--device cpu works everywhere"), "{text}");
        }
    }

    #[test]
    fn other_names_are_refused() {
        for name in [
            "",
            "gpu",
            "cpu:0",
            "cuda:",
            "cuda:x",
            "cuda:-1",
            "cuda:+1",
            "cuda:65536",
            "cuda0",
            "cudaa",
            "CPU",
            "emulated:",
            "emulated:foo",
            "emulated:7",
            "trace",
        ] {
            let text = open(name).map(|_| ()).expect_err(name).to_string();
            assert!(text.starts_with(&format!("device `{name}` is not known; expected `cpu`")), "{text}");
        }
        for name in ["cpu", "cuda:0"] {
            let text = open_seeded(name, 7).map(|_| ()).expect_err(name).to_string();
            assert!(text.contains("the seed") && text.contains(name), "{text}");
        }
    }
}
