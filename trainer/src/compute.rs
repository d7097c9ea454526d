//! Where and with how many threads to compute.

use anyhow::{Context, Result, bail};
use engine::Device;
use kernels::cuda;

/// The device called `name`.
///
/// # Errors
/// A name that is no device's, and `cuda:N` where it cannot be had: says what was looked for and what was found.
pub fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::cpu());
    }
    match name
        .strip_prefix("cuda")
        .map(|rest| rest.strip_prefix(':').unwrap_or(rest))
    {
        Some(ordinal) if ordinal.is_empty() || ordinal.parse::<u16>().is_ok() => {
            bail!(
                "device `{name}` is not available: {}; --device cpu works everywhere",
                why_no_cuda(&cuda::driver())
            )
        }
        _ => bail!("device `{name}` is not known; expected `cpu` or `cuda:N`"),
    }
}

/// Why no GPU can be used, whatever the driver says.
fn why_no_cuda(driver: &cuda::Driver) -> String {
    match driver {
        cuda::Driver::Found { gpus, .. } if !gpus.is_empty() => {
            format!("{driver}, but this version computes on the CPU only")
        }
        _ => driver.to_string(),
    }
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
    use engine::Kind;

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
