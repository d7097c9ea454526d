//! Compiled code kept on disk, so that a kernel is compiled once on a machine and not once a run.
//!
//! An entry is a plain file in a folder named after all that went into it; the file is named after its own contents,
//! so that one cut short or altered is noticed and made again. Entries appear whole by a rename: any number of
//! processes may share a folder. A folder that cannot be written costs time and never fails.
//!
//! What lies there is run: folder and entries must be this user's, and nobody else may write to them.

use crate::{Error, Result};
use sha2::{Digest, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tempfile::TempDir;

/// Goes up when entries of older versions must not be found any more.
const SCHEMA: &str = "lenslet compiled code, version 1";
/// The folder of what is being compiled has this in front of its name.
const UNFINISHED: &str = "unfinished-";
/// Unfinished folders this old were left by a process that died.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// All that decides what compiled code looks like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// The key of `files` as (name, text), the source first, compiled for `architecture` by the compiler that
    /// `compiler` describes, with `options` in that order.
    pub fn new(compiler: &str, architecture: &str, options: &[String], files: &[(&str, &str)]) -> Key {
        let mut hash = Sha256::new();
        // Every part goes in after its length, every list after its own: no two sets of inputs run together alike.
        let mut add = |part: &str| {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        };
        [SCHEMA, compiler, architecture].into_iter().for_each(&mut add);
        add(&options.len().to_string());
        options.iter().for_each(|option| add(option));
        for (name, text) in files {
            add(name);
            add(text);
        }
        Key(hex(&hash.finalize()))
    }

    /// 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The entries of this machine.
#[derive(Debug)]
pub struct Cache {
    /// Where entries outlive the process; none when the machine offers no place.
    folder: Option<PathBuf>,
    /// Entries that `folder` could not take.
    temporary: Mutex<Vec<(Key, TempDir)>>,
}

impl Cache {
    /// The cache in `$LENSLET_CACHE`, or else `$XDG_CACHE_HOME/lenslet`, or else `~/.cache/lenslet`.
    ///
    /// # Errors
    /// [`Error::Variable`] if `LENSLET_CACHE` names what is no folder and cannot become one; [`Error::Cache`] if others may
    /// write to the folder.
    pub fn open() -> Result<Cache> {
        let environment = |name: &str| std::env::var_os(name);
        if let Some(value) = named(environment) {
            create(Path::new(&value)).map_err(|error| Error::Variable {
                name: VARIABLE,
                value: value.to_string_lossy().into_owned(),
                reason: format!("no folder can be made there: {error}"),
            })?;
        }
        let folder = folder(environment);
        match folder.as_deref().map(|folder| (folder, fs::metadata(folder))) {
            Some((folder, Ok(about))) => private(&about).map_err(|reason| {
                let advice = format!("{reason}, and what is compiled there is run: {VARIABLE} names another");
                cannot(folder, advice)
            })?,
            // What is not there yet will be made as it should be.
            Some((_, Err(_))) | None => {}
        }
        Ok(Cache::with(folder))
    }

    /// The cache in this folder, which need not exist.
    pub fn at(folder: impl Into<PathBuf>) -> Cache {
        Cache::with(Some(folder.into()))
    }

    fn with(folder: Option<PathBuf>) -> Cache {
        Cache { folder, temporary: Mutex::default() }
    }

    /// Where entries are kept from one run to the next, if anywhere.
    pub fn folder(&self) -> Option<&Path> {
        self.folder.as_deref()
    }

    /// The file with the compiled code of `key`, whole and accepted by `valid`. Without one, `make` fills the path it
    /// is given. `extension` comes without a dot.
    ///
    /// The file may lie in a temporary folder that goes away with the cache: keep the cache while the path is used.
    ///
    /// # Errors
    /// Those of `make`; [`Error::Cache`] if what it made is not valid, or if there is nowhere to make it.
    pub fn get_or_make(
        &self,
        key: &Key,
        extension: &str,
        make: impl FnOnce(&Path) -> Result<()>,
        valid: impl Fn(&Path) -> bool,
    ) -> Result<PathBuf> {
        let mut spoilt = Vec::new();
        for place in self.places(key) {
            if let Some(found) = find(&place, extension, &valid, &mut spoilt) {
                return Ok(found);
            }
        }
        let workshop = self.workshop()?;
        let made = make_in(workshop.path(), extension, make)?;
        if !valid(&made) {
            return Err(cannot(&made, "what the compiler made is not valid; its version may not fit this machine"));
        }
        let kept = self.keep(&made, key);
        for path in spoilt.iter().filter(|&path| Some(path) != kept.as_ref()) {
            // Best effort: a spoilt entry that stays is noticed again.
            let _ = fs::remove_file(path);
        }
        Ok(kept.unwrap_or_else(|| {
            self.temporary().push((key.clone(), workshop));
            made
        }))
    }

    /// The folders that may hold entries of this key.
    fn places(&self, key: &Key) -> Vec<PathBuf> {
        let kept = self.folder.iter().map(|folder| folder.join(&key.0));
        let temporary = self.temporary();
        let others = temporary.iter().filter(|(of, _)| of == key).map(|(_, folder)| folder.path().to_owned());
        kept.chain(others).collect()
    }

    fn temporary(&self) -> MutexGuard<'_, Vec<(Key, TempDir)>> {
        self.temporary.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A folder to compile in, private to this user: shared objects are loaded from it. Within the cache where it can be, so
    /// that one that a process leaves as it is killed is found and removed.
    fn workshop(&self) -> Result<TempDir> {
        let within = self.folder.as_ref().and_then(|folder| {
            create(folder).ok()?;
            tidy(folder);
            // Compilers run in other folders.
            TempDir::with_prefix_in(UNFINISHED, std::path::absolute(folder).ok()?).ok()
        });
        match within {
            Some(workshop) => Ok(workshop),
            None => TempDir::with_prefix("lenslet-").map_err(|error| cannot(&std::env::temp_dir(), error)),
        }
    }

    /// Moves an entry to where it outlives the process: none if that place is read-only, full or absent.
    fn keep(&self, made: &Path, key: &Key) -> Option<PathBuf> {
        let folder = self.folder.as_ref()?.join(&key.0);
        create(&folder).ok()?;
        is_private_folder(&folder).then_some(())?;
        let kept = folder.join(made.file_name()?);
        fs::rename(made, &kept).ok().map(|()| kept)
    }
}

/// Makes a folder and those above it, for this user alone.
fn create(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Fails, with the reason, where a file or folder is another user's or others may write to it.
fn private(about: &fs::Metadata) -> std::result::Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match (about.uid(), about.mode() & 0o022) {
        (owner, _) if owner != own => Err(format!("belongs to user {owner} and not to {own}, who runs this")),
        (_, 0) => Ok(()),
        (_, _) => Err("others may write to it (`chmod go-w` ends that)".into()),
    }
}

/// Whether this is a folder, and no link to one, to which this user alone may write.
fn is_private_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_dir() && private(&about).is_ok())
}

/// Removes folders that killed processes left half made. Best effort: they are in nobody's way.
fn tidy(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(UNFINISHED) && is_private_folder(&entry.path());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        if ours && age().is_some_and(|age| age > ABANDONED) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Has an entry made, and names it after its contents.
fn make_in(folder: &Path, extension: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let raw = folder.join("new").with_extension(extension);
    make(&raw)?;
    // Whatever the umask: entries that others may write to are not used.
    fs::set_permissions(&raw, fs::Permissions::from_mode(0o600)).map_err(|error| cannot(&raw, error))?;
    let sum = checksum(&raw).map_err(|error| cannot(&raw, error))?;
    let made = folder.join(sum).with_extension(extension);
    fs::rename(&raw, &made).map_err(|error| cannot(&made, error))?;
    Ok(made)
}

/// Names the folder for entries.
const VARIABLE: &str = "LENSLET_CACHE";

/// What [`VARIABLE`] is set to.
fn named(environment: impl Fn(&str) -> Option<OsString>) -> Option<OsString> {
    environment(VARIABLE).filter(|value| !value.is_empty())
}

/// The folder for entries, given the environment. Relative paths in `XDG_CACHE_HOME` are void by its standard.
fn folder(environment: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    named(&environment)
        .map(PathBuf::from)
        .or_else(|| path("XDG_CACHE_HOME").filter(|p| p.is_absolute()).map(|p| p.join("lenslet")))
        .or_else(|| path("HOME").map(|p| p.join(".cache").join("lenslet")))
}

/// The whole and valid file of this extension in the folder of one key; those that are not go to `spoilt`.
fn find(folder: &Path, extension: &str, valid: impl Fn(&Path) -> bool, spoilt: &mut Vec<PathBuf>) -> Option<PathBuf> {
    is_private_folder(folder).then_some(())?;
    for entry in fs::read_dir(folder).ok()?.flatten() {
        let path = entry.path();
        if path.extension() != Some(OsStr::new(extension)) {
            continue;
        }
        // Of the entry itself: a link is none.
        let own = entry.metadata().is_ok_and(|about| about.is_file() && private(&about).is_ok());
        let whole = || checksum(&path).is_ok_and(|sum| path.file_stem() == Some(OsStr::new(&sum)));
        if own && whole() && valid(&path) {
            return Some(path);
        } else {
            spoilt.push(path);
        }
    }
    None
}

fn checksum(path: &Path) -> std::io::Result<String> {
    Ok(hex(&Sha256::digest(fs::read(path)?)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cannot(path: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Cache { path: path.display().to_string(), reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn key(text: &str) -> Key {
        Key::new("cc 1", "sm_80", &[], &[("k.cu", text)])
    }

    /// Asks for an entry; returns the path and how often it was made.
    fn ask(cache: &Cache, key: &Key, contents: &[u8]) -> (PathBuf, usize) {
        let made = Cell::new(0);
        let make = |path: &Path| {
            made.set(made.get() + 1);
            fs::write(path, contents).map_err(|error| cannot(path, error))
        };
        let path = cache.get_or_make(key, "cubin", make, |_| true).unwrap();
        assert_eq!(fs::read(&path).unwrap(), contents, "unchanged");
        (path, made.get())
    }

    fn new() -> (TempDir, Cache) {
        let folder = TempDir::new().unwrap();
        let cache = Cache::at(folder.path().join("not").join("there yet"));
        (folder, cache)
    }

    #[test]
    fn an_entry_is_made_once_and_outlives_the_cache() {
        let (_folder, cache) = new();
        let (first, made) = ask(&cache, &key("a"), b"code");
        assert_eq!(made, 1);
        assert!(first.starts_with(cache.folder().unwrap()));
        let again = Cache::at(cache.folder().unwrap());
        drop(cache);
        assert_eq!(ask(&again, &key("a"), b"code"), (first, 0));
        assert_eq!(ask(&again, &key("b"), b"code").1, 1);
    }

    #[test]
    fn everything_counts_in_a_key_and_nothing_runs_together() {
        let o = |list: &[&str]| list.iter().map(|s| s.to_string()).collect::<Vec<_>>();
        let keys = [
            Key::new("cc", "sm_80", &o(&["-DA", "-DB"]), &[("k", "text")]),
            Key::new("cc", "sm_80", &o(&["-DB", "-DA"]), &[("k", "text")]),
            Key::new("cc", "sm_80", &o(&["-DA-DB"]), &[("k", "text")]),
            Key::new("cc", "sm_80", &o(&["-DA", "-DB", "k", "text"]), &[]),
            Key::new("cc", "sm_80", &o(&["-DA", "-DB"]), &[("k", "text"), ("h", "")]),
            Key::new("cc", "sm_80", &o(&["-DA", "-DB"]), &[("kt", "ext")]),
            Key::new("cc 2", "sm_80", &o(&["-DA", "-DB"]), &[("k", "text")]),
            Key::new("cc", "sm_90a", &o(&["-DA", "-DB"]), &[("k", "text")]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(a.as_str().len() == 64 && !keys[..i].contains(a), "key {i}");
        }
    }

    #[test]
    fn a_spoilt_entry_is_made_again() {
        let spoil: [fn(&mut Vec<u8>); 4] =
            [|bytes| bytes.truncate(2), |bytes| bytes.clear(), |bytes| bytes[1] ^= 4, |bytes| bytes.push(0)];
        for spoil in spoil {
            let (_folder, cache) = new();
            let (path, _) = ask(&cache, &key("a"), b"code");
            let mut bytes = fs::read(&path).unwrap();
            spoil(&mut bytes);
            fs::write(&path, bytes).unwrap();
            assert_eq!(ask(&cache, &key("a"), b"code"), (path.clone(), 1));
            assert_eq!(ask(&cache, &key("a"), b"code"), (path, 0));
        }
    }

    #[test]
    fn a_spoilt_entry_goes_when_its_successor_differs() {
        let (_folder, cache) = new();
        let (old, _) = ask(&cache, &key("a"), b"code");
        fs::write(&old, b"rot").unwrap();
        let (new, _) = ask(&cache, &key("a"), b"other code");
        assert!(!old.exists() && new.exists());
    }

    #[test]
    fn an_entry_that_does_not_load_is_made_again_and_then_refused() {
        let (_folder, cache) = new();
        ask(&cache, &key("a"), b"old");
        let write = |path: &Path| fs::write(path, b"new").map_err(|error| cannot(path, error));
        let is_new = |path: &Path| fs::read(path).unwrap() == b"new";
        let path = cache.get_or_make(&key("a"), "cubin", write, is_new).unwrap();
        assert!(is_new(&path));
        let error = cache.get_or_make(&key("b"), "cubin", write, |_| false).unwrap_err();
        assert!(error.to_string().contains("not valid"), "{error}");
    }

    #[test]
    fn extensions_are_apart_and_errors_of_the_compiler_come_through() {
        let (_folder, cache) = new();
        ask(&cache, &key("a"), b"code");
        let fails = |_: &Path| Err(cannot(Path::new("k.cu"), "does not compile"));
        let error = cache.get_or_make(&key("a"), "so", fails, |_| true).unwrap_err();
        assert!(error.to_string().contains("does not compile"), "{error}");
    }

    #[test]
    fn a_folder_that_cannot_be_written_costs_nothing_but_time() {
        // A file where the folder should be: root, too, cannot write there.
        let file = tempfile::NamedTempFile::new().unwrap();
        for cache in [Cache::at(file.path()), Cache::with(None)] {
            let (path, made) = ask(&cache, &key("a"), b"code");
            assert_eq!(made, 1);
            assert_eq!(ask(&cache, &key("a"), b"code"), (path.clone(), 0), "found where it was made");
            drop(cache);
            assert!(!path.exists(), "temporary");
        }
    }

    #[test]
    fn threads_with_caches_of_their_own_share_a_folder() {
        let (_guard, shared) = new();
        let folder = shared.folder().unwrap();
        let paths: Vec<PathBuf> = std::thread::scope(|scope| {
            let start = || {
                // Each its own code, as from a compiler whose output is never twice the same.
                let cache = Cache::at(folder);
                let code = format!("{:?}", std::thread::current().id());
                let make = |path: &Path| fs::write(path, code).map_err(|error| cannot(path, error));
                cache.get_or_make(&key("a"), "cubin", make, |_| true).unwrap()
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for path in paths {
            assert_eq!(checksum(&path).unwrap(), path.file_stem().unwrap().to_str().unwrap());
        }
        let left = fs::read_dir(folder).unwrap();
        assert!(left.flatten().all(|e| !e.file_name().to_string_lossy().starts_with(UNFINISHED)));
    }

    #[test]
    fn two_processes_share_a_folder() {
        let environment = "LENSLET_TEST_CACHE_FOLDER";
        let code = vec![7; 1 << 20];
        if let Some(folder) = std::env::var_os(environment) {
            let cache = Cache::at(folder);
            (0..20).for_each(|i| drop(ask(&cache, &key(&i.to_string()), &code)));
            return;
        }
        let (_guard, cache) = new();
        let name = "gpu::cache::tests::two_processes_share_a_folder";
        let start = || {
            let mut command = std::process::Command::new(std::env::current_exe().unwrap());
            command.args([name, "--exact"]).env(environment, cache.folder().unwrap());
            command.stdout(std::process::Stdio::null()).spawn().unwrap()
        };
        for mut process in [start(), start()] {
            assert!(process.wait().unwrap().success());
        }
        (0..20).for_each(|i| assert_eq!(ask(&cache, &key(&i.to_string()), &code).1, 0, "entry {i}"));
    }

    #[test]
    fn what_others_can_write_is_not_run() {
        use std::os::unix::fs::symlink;
        let (_folder, cache) = new();
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        let (path, _) = ask(&cache, &key("a"), b"code");
        let folder = cache.folder().unwrap();
        assert!(private(&fs::metadata(folder).unwrap()).is_ok());
        for mode in [0o620, 0o602] {
            allow(&path, mode);
            assert_eq!(ask(&cache, &key("a"), b"code").1, 1, "made again");
            assert_eq!(ask(&cache, &key("a"), b"code").1, 0);
        }
        let elsewhere = folder.join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        symlink(&elsewhere, &path).unwrap();
        assert_eq!(ask(&cache, &key("a"), b"code").1, 1, "a link is no entry");
        allow(path.parent().unwrap(), 0o777);
        assert_eq!(ask(&cache, &key("a"), b"code").1, 1);
        allow(folder, 0o770);
        assert!(private(&fs::metadata(folder).unwrap()).unwrap_err().contains("chmod"));
    }

    #[test]
    fn what_killed_compilers_left_goes_in_time() {
        let (_folder, cache) = new();
        ask(&cache, &key("a"), b"code");
        let place = |name: &str| cache.folder().unwrap().join(name);
        for (name, age) in
            [("unfinished-old", ABANDONED * 2), ("unfinished-new", Duration::ZERO), ("theirs", ABANDONED * 2)]
        {
            create(&place(name)).unwrap();
            let then = std::time::SystemTime::now() - age;
            fs::File::open(place(name)).unwrap().set_modified(then).unwrap();
        }
        ask(&cache, &key("b"), b"code");
        assert!(!place("unfinished-old").exists() && place("unfinished-new").exists() && place("theirs").exists());
    }

    #[test]
    fn the_environment_names_the_folder() {
        let of = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            folder(move |name| set.iter().find(|(key, _)| key == name).map(|(_, value)| value.into()))
        };
        let (own, xdg, home) = (("LENSLET_CACHE", "/a"), ("XDG_CACHE_HOME", "/b"), ("HOME", "/c"));
        assert_eq!(of(&[own, xdg, home]), Some("/a".into()));
        assert_eq!(of(&[("LENSLET_CACHE", ""), xdg, home]), Some("/b/lenslet".into()));
        assert_eq!(of(&[]), None);
        if cfg!(unix) {
            assert_eq!(of(&[("XDG_CACHE_HOME", "relative"), home]), Some("/c/.cache/lenslet".into()));
        }
    }
}
