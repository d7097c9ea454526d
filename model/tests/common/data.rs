//! Real data sets, where this machine has them.

use std::path::{Path, PathBuf};

/// The folder of one: below `LENSLET_DATA`, else `../shared/data`. None, said aloud, where it is absent; with `CI` set that
/// is a failure.
pub fn folder(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let named = std::env::var_os("LENSLET_DATA").map(PathBuf::from);
    if let Some(named) = named.as_ref().filter(|named| !named.is_dir()) {
        panic!("LENSLET_DATA={}: no such folder", named.display());
    }
    let root = named.unwrap_or(beside);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let message = format!("{} is absent; set LENSLET_DATA to the folder that holds `{name}`", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{message}");
    eprintln!("not run: {message}");
    None
}
