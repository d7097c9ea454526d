//! The device `cuda:N`: modules compiled by NVRTC for the GPU at hand, kept on disk, launched through the driver.

use super::cache::Cache;
use super::driver::{Context, Function, Launch, LoadedModule, Node};
use super::module::{Arg, Grid, Module};
use super::nvrtc::Nvrtc;
use super::queue::Command;
use super::replay::Replay;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// A GPU, its compiler, and the modules loaded so far.
#[derive(Debug)]
pub(crate) struct Cuda {
    context: Context,
    architecture: String,
    nvrtc: Nvrtc,
    cache: Cache,
    /// Before the modules, so that graphs go before the kernels in them.
    replay: Mutex<Replay>,
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
        let unavailable = |reason| Error::NoDevice { name: format!("cuda:{ordinal}"), reason };
        let properties = context.properties();
        if properties.architecture < (8, 0) {
            let (major, minor) = properties.architecture;
            return Err(unavailable(format!("it is sm_{major}{minor}, the kernels need sm_80 or newer")));
        }
        let nvrtc = Nvrtc::find(Some(properties.driver.0)).map_err(|error| unavailable(error.to_string()))?;
        Ok(Cuda {
            architecture: architecture(properties.architecture),
            replay: Mutex::new(Replay::new(context.clone())),
            context,
            nvrtc,
            cache: Cache::open()?,
            modules: Mutex::default(),
        })
    }

    /// Bytes of the GPU's memory that nobody holds.
    pub(super) fn free_memory(&self) -> Result<usize> {
        Ok(self.context.memory()?.0)
    }

    pub(super) fn multiprocessors(&self) -> usize {
        self.context.properties().multiprocessors as usize
    }

    /// As NVRTC names it.
    pub(super) fn architecture(&self) -> &str {
        &self.architecture
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

    fn node(&self, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<Node> {
        Ok(Node::Launch(Launch {
            function: self.function(module, kernel)?,
            grid: grid.blocks.map(|blocks| blocks as u32),
            threads: grid.threads as u32,
            shared: grid.shared,
            params: args.iter().map(|arg| arg.bits).collect(),
        }))
    }

    pub(super) fn launch(&self, module: &Module, kernel: &'static str, grid: Grid, args: &[Arg]) -> Result<()> {
        let node = self.node(module, kernel, grid, args)?;
        // SAFETY: loaded modules are kept as long as the context. Arguments lie in the low bytes of their values, and the
        // emulator checks every launcher's against the kernel's declaration; views keep their buffers alive and in bounds.
        unsafe { self.context.run(&node) }
    }

    /// Does collected work in its order, as one graph once it has come before.
    pub(super) fn run(&self, commands: &[Command]) -> Result<()> {
        let mut replay = self.replay.lock().unwrap_or_else(PoisonError::into_inner);
        let uploads = commands.iter().filter_map(|command| match command {
            Command::Upload { to, data } if !data.is_empty() => Some((*to, &data[..])),
            Command::Upload { .. } | Command::Launch { .. } => None,
        });
        let mut copies = replay.stage(&uploads.collect::<Vec<_>>())?.into_iter();
        let mut nodes = Vec::with_capacity(commands.len());
        for command in commands {
            match command {
                Command::Launch { module, kernel, grid, args } => nodes.push(self.node(module, kernel, *grid, args)?),
                Command::Upload { data, .. } if data.is_empty() => {}
                Command::Upload { .. } => nodes.extend(copies.next()),
            }
        }
        // SAFETY: as in `launch`; memory given back meanwhile is kept until this returns, and the driver frees none before
        // its work is done.
        unsafe { replay.run(nodes) }
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
