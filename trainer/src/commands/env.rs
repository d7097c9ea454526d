//! `lenslet env`: what there is to compute with.

use crate::memory;
use anyhow::Result;
use kernels::Device;
use kernels::cpu::simd::{Isa, chosen};
use kernels::cuda::{self, Driver};
use kernels::gpu::Emulation;
use kernels::gpu::cache::Cache;
use kernels::gpu::nvrtc::Nvrtc;

pub(super) fn run() -> Result<()> {
    lines(&cuda::driver()).iter().for_each(|(name, value)| outln!("{name:<14}{value}"));
    Ok(())
}

fn lines(driver: &Driver) -> Vec<(String, String)> {
    let known = |bytes: Option<u64>| bytes.map_or("unknown".into(), memory::size);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut lines = vec![
        ("lenslet".into(), env!("CARGO_PKG_VERSION").into()),
        ("system".into(), format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("processor".into(), processor()),
        ("instructions".into(), instructions()),
        ("threads".into(), format!("{} on {cores} cores", rayon::current_num_threads())),
        ("memory".into(), format!("{}, {} free", known(memory::total()), known(memory::available()))),
        ("CUDA".into(), driver.to_string()),
    ];
    if let Driver::Found { gpus, .. } = driver {
        for (index, gpu) in gpus.iter().enumerate() {
            let (major, minor) = gpu.architecture;
            let about = format!("{}, sm_{major}{minor}, {} multiprocessors", gpu.name, gpu.multiprocessors);
            lines.push((format!("cuda:{index}"), about));
        }
    }
    lines.push(("NVRTC".into(), nvrtc(driver)));
    lines.push(("cache".into(), cache()));
    lines.push(("devices".into(), devices(driver)));
    lines
}

/// The compiler of the CUDA kernels.
fn nvrtc(driver: &Driver) -> String {
    let major = match driver {
        Driver::Found { version, .. } => Some(version.0),
        _ => None,
    };
    match Nvrtc::find(major) {
        Ok(found) => {
            let (major, minor) = found.version();
            format!("{major}.{minor}, {}", found.path().display())
        }
        Err(error) => error.to_string(),
    }
}

/// What `--device` takes here.
fn devices(driver: &Driver) -> String {
    let mut names = vec!["cpu".to_owned()];
    if let Driver::Found { gpus, .. } = driver {
        names.extend((0..gpus.len()).map(|ordinal| format!("cuda:{ordinal}")));
    }
    match Device::emulated(Emulation::default()) {
        Ok(_) => names.push("emulated".to_owned()),
        Err(error) => names.push(format!("({error})")),
    }
    names.join(", ")
}

fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    model.map_or("unknown".into(), |(_, name)| name.trim().into())
}

/// What is in use, and what else `LENSLET_ISA` may name here.
fn instructions() -> String {
    let isa = match chosen() {
        Ok(isa) => isa,
        Err(error) => return error.to_string(),
    };
    let about = match isa {
        Isa::Portable => "what the compiler makes of plain Rust",
        Isa::Avx2 => "AVX2 and FMA",
        Isa::Avx512 => "AVX-512",
        Isa::Avx512Bf16 => "AVX-512 with bf16 dot products",
        Isa::Avx512Amx => "AVX-512 with bf16 dot products, and AMX for products of bf16",
    };
    let names: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    format!("{}: {about}; LENSLET_ISA takes {}", isa.name(), names.join(", "))
}

/// Where what is compiled is kept.
fn cache() -> String {
    match Cache::open() {
        Ok(cache) => cache.folder().map_or("no folder; set LENSLET_CACHE".into(), |path| path.display().to_string()),
        Err(error) => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kernels::cuda::Gpu;

    fn text(driver: Driver) -> String {
        lines(&driver).iter().map(|(name, value)| format!("{name}: {value}\n")).collect()
    }

    #[test]
    fn everything_asked_for_is_there() {
        let looked_for = "libcuda.so";
        let text = text(Driver::Missing { looked_for });
        for name in [
            "lenslet: 0.",
            "processor: ",
            "instructions: ",
            "; LENSLET_ISA takes portable",
            "cache: ",
            "threads: ",
            "memory: ",
            "CUDA: looked for libcuda.so: not found",
        ] {
            assert!(text.contains(name), "{name} in\n{text}");
        }
    }

    #[test]
    fn gpus_are_listed_by_the_name_they_are_chosen_by() {
        let gpu = Gpu { name: "H100".into(), architecture: (9, 0), multiprocessors: 132 };
        let text = text(Driver::Found { version: (12, 8), gpus: vec![gpu] });
        assert!(
            text.contains("CUDA: driver found, CUDA 12.8, 1 GPU\ncuda:0: H100, sm_90, 132 multiprocessors"),
            "{text}"
        );
    }
}
