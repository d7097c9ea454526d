//! The device `cuda:N`: modules compiled by NVRTC for the GPU at hand, kept on disk, launched through the driver.

use super::cache::Cache;
use super::driver::{Context, Function, LoadedModule};
use super::module::{Arg, Grid, Module};
use super::nvrtc::Nvrtc;
use crate::{Error, Result};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// A GPU, its compiler, and the modules loaded so far.
#[derive(Debug)]
pub(crate) struct Cuda {
    context: Context,
    architecture: String,
    nvrtc: Nvrtc,
    cache: Cache,
    modules: Mutex<HashMap<Module, LoadedModule>>,
}

/// The architecture NVRTC compiles for: with the instructions of that generation alone where it has such.
fn architecture((major, minor): (u32, u32)) -> String {
    let own = if major >= 9 { "a" } else { "" };
    format!("sm_{major}{minor}{own}")
}

impl Cuda {
    pub(super) fn open(ordinal: usize) -> Result<Cuda> {
        let context = Context::open(ordinal)?;
        let unavailable = |reason| Error::NoDevice {
            name: format!("cuda:{ordinal}"),
            reason,
        };
        let properties = context.properties();
        if properties.architecture < (8, 0) {
            let (major, minor) = properties.architecture;
            return Err(unavailable(format!(
                "it is sm_{major}{minor}, the kernels need sm_80 or newer"
            )));
        }
        let nvrtc = Nvrtc::find(Some(properties.driver.0)).map_err(|error| unavailable(error.to_string()))?;
        Ok(Cuda {
            architecture: architecture(properties.architecture),
            context,
            nvrtc,
            cache: Cache::open(),
            modules: Mutex::default(),
        })
    }

    pub(super) fn allocate(&self, bytes: usize) -> Option<u64> {
        self.context.allocate(bytes).ok()
    }

    pub(super) fn free(&self, address: u64) {
        // A failure here is that of earlier work, which the next call reports.
        // SAFETY: `Gpu::free` is called once per allocation; what still runs on it was started before, and the driver waits.
        let _ = unsafe { self.context.free(address) };
    }

    pub(super) fn upload(&self, to: u64, data: &[u8]) -> Result<()> {
        // SAFETY: views check that `data` fits into the live buffer at `to`.
        unsafe { self.context.upload(to, data) }
    }

    pub(super) fn download(&self, from: u64, data: &mut [u8]) -> Result<()> {
        // SAFETY: views check that the live buffer at `from` holds as many bytes.
        unsafe { self.context.download(from, data) }
    }

    pub(super) fn synchronize(&self) -> Result<()> {
        self.context.synchronize()
    }

    fn load(&self, module: &Module) -> Result<LoadedModule> {
        let loads = |cubin: &[u8]| self.context.load(cubin).is_ok();
        let cubin = module.cubin(&self.nvrtc, &self.cache, &self.architecture, loads)?;
        self.context.load(&cubin)
    }

    fn function(&self, module: &Module, kernel: &str) -> Result<Function> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if !modules.contains_key(module) {
            modules.insert(module.clone(), self.load(module)?);
        }
        self.context.function(&modules[module], kernel)
    }

    pub(super) fn launch(&self, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let function = self.function(module, kernel)?;
        let mut values: Vec<u64> = args.iter().map(|arg| arg.bits).collect();
        let mut params: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| std::ptr::from_mut(value).cast())
            .collect();
        let blocks = grid.blocks.map(|blocks| blocks as u32);
        // SAFETY: loaded modules are kept as long as the context. Arguments lie in the low bytes of their values, and the
        // emulator checks every launcher's against the kernel's declaration; views keep their buffers alive and in bounds.
        unsafe {
            self.context
                .launch(function, blocks, [grid.threads as u32, 1, 1], grid.shared, &mut params)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_have_nvrtcs_names() {
        assert_eq!(architecture((8, 0)), "sm_80");
        assert_eq!(architecture((8, 9)), "sm_89");
        assert_eq!(architecture((9, 0)), "sm_90a");
        assert_eq!(architecture((10, 0)), "sm_100a");
    }
}
