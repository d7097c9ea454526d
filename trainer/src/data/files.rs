//! Names of files, and what lies in folders.

use super::passed_over::PassedOver;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// Folders within folders that are looked into.
const MAX_DEPTH: usize = 16;

/// A name as it is looked up: its parts joined by `/`, without `.` and empty ones; none where it leaves its folder. `\` parts
/// names, too: sets are written on Windows.
pub(super) fn normal(name: &str) -> Option<String> {
    let mut parts = Vec::new();
    for part in name.split(['/', '\\']) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty() && !name.contains('\0')).then(|| parts.join("/"))
}

/// Whether a name ends in `.ending`, in upper or lower case.
pub(crate) fn ends_in(name: &str, ending: &str) -> bool {
    let found = name.rsplit_once('.').map(|(_, found)| found);
    found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// The files of a folder that end in `.ending`, in alphabetical order, hidden ones left out; none of what is no folder.
///
/// # Errors
/// When the folder cannot be read or has no such file.
pub(super) fn in_folder(folder: &Path, ending: &str, passed: &mut PassedOver) -> Result<Option<Vec<PathBuf>>> {
    if !folder.is_dir() {
        return Ok(None);
    }
    let mut paths = Vec::new();
    for Entry { name, .. } in entries(folder, passed)? {
        match ends_in(&name, ending) {
            true => paths.push(folder.join(name)),
            false => passed.add(format!("files that are no .{ending}"), name),
        }
    }
    let name = folder.display();
    ensure!(!paths.is_empty(), "{name}: no .{ending} files in this folder");
    Ok(Some(paths))
}

/// What lies in a folder.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) folder: bool,
}

/// What lies in a folder, links followed, in alphabetical order; hidden files, names that are not text and links that lead
/// nowhere are passed over.
pub(crate) fn entries(folder: &Path, passed: &mut PassedOver) -> Result<Vec<Entry>> {
    let about = || format!("{}: cannot be read", folder.display());
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(about)? {
        let path = entry.with_context(about)?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            passed.add("files whose names are not UTF-8", path.display().to_string());
            continue;
        };
        match std::fs::metadata(&path) {
            _ if name.starts_with('.') => passed.add("files whose names begin with a dot", path.display().to_string()),
            Ok(about) => entries.push(Entry { folder: about.is_dir(), name: name.into() }),
            Err(_) => passed.add("links that lead nowhere", path.display().to_string()),
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Hands `see` the files below `root/inner` by their names within `root`; ends when it says so.
///
/// # Errors
/// When a folder cannot be read, or folders are more than 16 deep.
pub(super) fn walk(
    root: &Path,
    inner: &str,
    passed: &mut PassedOver,
    see: &mut dyn FnMut(String, &mut PassedOver) -> bool,
) -> Result<bool> {
    descend(root, inner, &mut Vec::new(), passed, see)
}

fn descend(
    root: &Path,
    inner: &str,
    above: &mut Vec<PathBuf>,
    passed: &mut PassedOver,
    see: &mut dyn FnMut(String, &mut PassedOver) -> bool,
) -> Result<bool> {
    let folder = root.join(inner);
    let about = || format!("{}: cannot be read", folder.display());
    ensure!(above.len() < MAX_DEPTH, "{}: more than {MAX_DEPTH} folders deep", folder.display());
    let real = folder.canonicalize().with_context(about)?;
    if above.iter().any(|above| above.starts_with(&real)) {
        passed.add("links to a folder they are in", folder.display().to_string());
        return Ok(true);
    }
    above.push(real);
    let mut more = true;
    for entry in entries(&folder, passed)? {
        let name = match inner {
            "" => entry.name,
            _ => format!("{inner}/{}", entry.name),
        };
        more = match entry.folder {
            true => descend(root, &name, above, passed, see)?,
            false => see(name, passed),
        };
        if !more {
            break;
        }
    }
    above.pop();
    Ok(more)
}
