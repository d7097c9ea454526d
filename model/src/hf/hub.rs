//! Where models of the Hugging Face hub lie on this machine. Nothing is downloaded.

use crate::error::{Error, Result};
use crate::files::read_file;
use std::path::{Path, PathBuf};

/// The largest file with the name of a commit, in bytes.
const MAX_REF: u64 = 4096;

/// The folder of a model: `name` is a folder, or `owner/name` or `owner/name@revision` in the hub's cache.
///
/// # Errors
/// When it is neither; the message has the command that downloads it.
pub fn resolve(name: &str) -> Result<PathBuf> {
    resolve_in(name, &cache())
}

/// `$HF_HUB_CACHE`, `$HF_HOME/hub`, or the default under the home folder.
fn cache() -> PathBuf {
    let path = |variable: &str| std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || path("HOME").unwrap_or_default();
    let hub = || {
        path("HF_HOME")
            .unwrap_or_else(|| path("XDG_CACHE_HOME").unwrap_or_else(|| home().join(".cache")).join("huggingface"))
            .join("hub")
    };
    path("HF_HUB_CACHE").unwrap_or_else(hub)
}

fn resolve_in(name: &str, cache: &Path) -> Result<PathBuf> {
    let folder = Path::new(name);
    if folder.is_dir() {
        return Ok(folder.to_path_buf());
    }
    let bad = |message: String| Err(Error::File { path: folder.to_path_buf(), message });
    let (model, revision) = name.split_once('@').unwrap_or((name, "main"));
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    let parts: Vec<&str> = model.split('/').collect();
    if parts.len() != 2 || !parts.iter().all(|part| plain(part)) || !revision.split('/').all(plain) {
        return bad("is no folder, nor the name of a model as owner/name or owner/name@revision".into());
    }
    let home = cache.join(format!("models--{}--{}", parts[0], parts[1]));
    // A branch or tag is a file with the commit's name; a commit names its snapshot itself.
    let commit = read_file(&home.join("refs").join(revision), MAX_REF).ok();
    let commit = commit.and_then(|text| String::from_utf8(text).ok());
    let commit = commit.map_or(revision.to_string(), |text| text.trim().to_string());
    let snapshot = home.join("snapshots").join(&commit);
    if plain(&commit) && snapshot.is_dir() {
        return Ok(snapshot);
    }
    let option = if revision == "main" { String::new() } else { format!(" --revision {revision}") };
    bad(format!(
        "is no folder and not in the cache {}; download it with\n  hf download {model}{option}",
        cache.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_snapshots_and_missing_ones_to_the_command() {
        let cache = tempfile::tempdir().unwrap();
        let home = cache.path().join("models--org--small");
        std::fs::create_dir_all(home.join("refs")).unwrap();
        std::fs::create_dir_all(home.join("snapshots/abc123")).unwrap();
        std::fs::write(home.join("refs/main"), "abc123\n").unwrap();
        let found = |name: &str| resolve_in(name, cache.path()).map_err(|e| e.to_string());
        assert_eq!(found("org/small").unwrap(), home.join("snapshots/abc123"));
        assert_eq!(found("org/small@abc123").unwrap(), home.join("snapshots/abc123"));
        let error = found("org/large@v2").unwrap_err();
        assert!(error.contains("hf download org/large --revision v2"), "{error}");
        for hostile in ["../../etc", "org/../x", "a/b/c", "org/x@../../y", "no-such-folder", ""] {
            assert!(found(hostile).unwrap_err().contains("owner/name"), "{hostile}");
        }
        std::fs::write(home.join("refs/bad"), "../../..").unwrap();
        assert!(found("org/small@bad").is_err());
        let folder = home.join("refs");
        assert_eq!(found(folder.to_str().unwrap()).unwrap(), folder);
    }
}
