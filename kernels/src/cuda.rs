//! What CUDA this machine offers. Nothing of CUDA is needed to build or to start: its driver is looked for at run time.

use cudarc::driver::{result, sys};

/// The libraries [`driver`] looks for, by the names the loader is given first.
const WANTED: &str = "libcuda.so (libcuda.so.1)";

/// The driver functions [`driver`] calls.
const SYMBOLS: [&[u8]; 6] = [
    b"cuInit\0",
    b"cuDriverGetVersion\0",
    b"cuDeviceGetCount\0",
    b"cuDeviceGet\0",
    b"cuDeviceGetName\0",
    b"cuDeviceGetAttribute\0",
];

/// The CUDA driver as found on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Driver {
    /// No driver library could be loaded.
    Missing {
        /// The names looked for.
        looked_for: &'static str,
    },
    /// A driver library is there and does not work.
    Broken {
        /// What it answered.
        reason: String,
    },
    /// A working driver.
    Found {
        /// The newest CUDA version the driver supports, as (major, minor).
        version: (u32, u32),
        /// Its GPUs in the driver's order: `cuda:0` is the first.
        gpus: Vec<Gpu>,
    },
}

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// The product name.
    pub name: String,
    /// Compute capability as (major, minor).
    pub architecture: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
}

impl std::fmt::Display for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Driver::Missing { looked_for } => write!(f, "looked for {looked_for}: not found"),
            Driver::Broken { reason } => write!(f, "driver library found, but it does not work: {reason}"),
            Driver::Found { version: (major, minor), gpus } => {
                write!(f, "driver found, CUDA {major}.{minor}")?;
                match gpus.len() {
                    0 => f.write_str(", no GPU"),
                    1 => f.write_str(", 1 GPU"),
                    n => write!(f, ", {n} GPUs"),
                }
            }
        }
    }
}

/// Looks for the CUDA driver and asks it for its GPUs. Never panics: a driver that fails is reported as such.
pub fn driver() -> Driver {
    // SAFETY: loading the driver runs its initialisers, which NVIDIA's driver supports at any time and from any thread.
    if !unsafe { sys::is_culib_present() } {
        return Driver::Missing { looked_for: WANTED };
    }
    // SAFETY: as above; the library was loadable a moment ago, which is all `culib` requires.
    let library = unsafe { sys::culib() };
    for symbol in SYMBOLS {
        // SAFETY: the symbol's address is only tested for existence, never called through this type.
        if unsafe { library.get::<*const ()>(symbol) }.is_err() {
            let name = String::from_utf8_lossy(&symbol[..symbol.len() - 1]).into_owned();
            return Driver::Broken { reason: format!("it has no function {name}") };
        }
    }
    ask().unwrap_or_else(|error| Driver::Broken { reason: format!("{:?}", error.0) })
}

/// Version and GPUs of a driver whose functions are all there.
fn ask() -> Result<Driver, result::DriverError> {
    result::init()?;
    let mut version = 0;
    // SAFETY: the pointer is valid for one c_int for the length of the call.
    unsafe { sys::cuDriverGetVersion(&mut version).result()? };
    let gpus = (0..result::device::get_count()?).map(gpu).collect::<Result<_, _>>()?;
    let version = version as u32;
    Ok(Driver::Found { version: (version / 1000, version % 1000 / 10), gpus })
}

fn gpu(ordinal: i32) -> Result<Gpu, result::DriverError> {
    use sys::CUdevice_attribute as Attribute;
    let device = result::device::get(ordinal)?;
    // SAFETY: `device` was handed out by the driver just now.
    let attribute = |what| unsafe { result::device::get_attribute(device, what) }.map(|value| value as u32);
    Ok(Gpu {
        name: result::device::get_name(device)?,
        architecture: (
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probing_twice_gives_the_same_answer_and_a_sentence() {
        let found = driver();
        assert_eq!(found, driver());
        let text = found.to_string();
        match found {
            Driver::Missing { looked_for } => assert!(text.contains(looked_for), "{text}"),
            Driver::Broken { reason } => assert!(text.contains(&reason), "{text}"),
            Driver::Found { gpus, .. } => assert_eq!(text.contains("no GPU"), gpus.is_empty(), "{text}"),
        }
    }

    #[test]
    fn a_missing_driver_names_the_library() {
        let text = Driver::Missing { looked_for: WANTED }.to_string();
        assert!(text.contains("cuda") && text.contains("not found"), "{text}");
    }
}
