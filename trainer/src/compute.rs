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

/// Uses so many threads, or one per core, from now on. Results do not depend on it.
///
/// # Errors
/// When the threads cannot be started, or others are in use already.
pub fn use_threads(threads: Option<usize>) -> Result<()> {
    let Some(threads) = threads else { return Ok(()) };
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("{threads} threads cannot be started"))
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
