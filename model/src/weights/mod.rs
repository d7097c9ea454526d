//! Weights in safetensors files.

mod checkpoint;
mod overlay;
mod read;
mod write;

pub use checkpoint::{Checkpoint, Plan, Source};
pub(crate) use overlay::{Module, Overlay};
pub use read::{Stored, TensorFile};
pub use write::{Entry, PYTORCH, Parts, write_shards, write_tensors};

use crate::error::Result;
use engine::Params;
use std::path::Path;

/// Writes all parameters to `path`: trained ones at full precision, frozen ones as they are kept. The file appears
/// whole or not at all.
pub fn save(params: &Params, path: &Path) -> Result<()> {
    save_where(params, path, |_| true)
}

/// As [`save`], for the parameters whose name `keep` accepts.
pub fn save_where(params: &Params, path: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let kept = params.ids().filter(|&id| keep(params.name(id)));
    let entries: Vec<_> = kept.map(|id| Entry::new(params.name(id), params.master(id))).collect();
    write_tensors(path, &entries, PYTORCH)
}

/// Reads every parameter whose name starts with `prefix` from `path`, where names lack the prefix: `""` for a whole
/// model, `"language_model."` for a decoder's file.
///
/// # Errors
/// When the file is malformed, lacks a parameter, holds one the model has not, or one of another shape; nothing is
/// changed then.
pub fn load(path: &Path, params: &mut Params, prefix: &str) -> Result<()> {
    let checkpoint = Checkpoint::file(path)?;
    let named = |name: &str| match name.strip_prefix(prefix) {
        Some(rest) => Source::named([rest]),
        None => Source::Initial,
    };
    let specs: Vec<_> = params.specs().cloned().collect();
    checkpoint.plan(&specs, named, |_| true)?.load(params)
}
