//! Data sets of several files.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// The files of a folder that end in `.ending`, in alphabetical order; none of what is no folder.
///
/// # Errors
/// When the folder cannot be read or has no such file.
pub(super) fn in_folder(folder: &Path, ending: &str) -> Result<Option<Vec<PathBuf>>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let about = || format!("{}: cannot be read", folder.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(about)? {
        let path = entry.with_context(about)?.path();
        if path.extension().is_some_and(|found| found == ending) {
            paths.push(path);
        }
    }
    let name = folder.display();
    ensure!(!paths.is_empty(), "{name}: no .{ending} files in this folder");
    paths.sort();
    Ok(Some(paths))
}
