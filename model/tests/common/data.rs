//! Real data sets, where this machine has them.

use std::path::{Path, PathBuf};

/// The folder of one: below `LENSLET_DATA`, else `../shared/data`. None, said aloud, where it is absent; with `CI` set that
/// is a failure.
pub fn folder(name: &str) -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let root = std::env::var_os("LENSLET_DATA").map_or(beside, PathBuf::from);
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let message = format!(
        "{} is absent; set LENSLET_DATA to the folder that holds `{name}`",
        folder.display()
    );
    assert!(std::env::var_os("CI").is_none(), "{message}");
    eprintln!("not run: {message}");
    None
}
