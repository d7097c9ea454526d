//! Modules as NVRTC compiles them.

use super::cache::Cache;
use super::module::Module;
use super::nvrtc::{Compiled, Nvrtc, Source};
use crate::{Error, Result};
use std::path::Path;

/// A module as some launch asks for it; not every architecture may [run](Module::runs_on) it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Specialisation {
    /// What is compiled.
    pub module: Module,
    /// Threads of the blocks its kernels are launched with.
    pub threads: usize,
}

impl Module {
    /// Compiles for an architecture such as `sm_90a`.
    pub fn compile(&self, nvrtc: &Nvrtc, architecture: &str) -> Result<Compiled> {
        self.with_source(|source| nvrtc.compile(source, architecture).map_err(|error| self.failed(error.to_string())))
    }

    /// Compiles, or finds in the cache what was compiled before and the driver accepts.
    pub(super) fn cubin(
        &self,
        nvrtc: &Nvrtc,
        cache: &Cache,
        architecture: &str,
        loads: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>> {
        let key = self.with_source(|source| Ok(source.key(&nvrtc.identity(), architecture)))?;
        let read =
            |path: &Path| std::fs::read(path).map_err(|error| self.failed(format!("{}: {error}", path.display())));
        let make = |path: &Path| {
            let compiled = self.compile(nvrtc, architecture)?;
            std::fs::write(path, compiled.cubin).map_err(|error| self.failed(format!("{}: {error}", path.display())))
        };
        let path = cache.get_or_make(&key, "cubin", make, |path| read(path).is_ok_and(|cubin| loads(&cubin)))?;
        read(&path)
    }

    fn with_source<R>(&self, then: impl FnOnce(&Source) -> Result<R>) -> Result<R> {
        let texts = self.sources()?;
        let files: Vec<(&str, &str)> = texts.iter().map(|(name, text)| (name.as_str(), text.as_ref())).collect();
        let ((name, text), headers) = files.split_first().expect("a module has a source");
        then(&Source { name, text, headers, options: self.options().collect() })
    }

    fn failed(&self, message: String) -> Error {
        Error::Kernel { kernel: "", module: self.to_string(), message }
    }
}
