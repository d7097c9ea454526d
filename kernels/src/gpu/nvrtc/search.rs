//! Where NVRTC may be on a machine.

use super::Nvrtc;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Names for the system's own search, the newest first.
const BARE: [&str; 3] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"];

/// Folders with libraries inside a CUDA installation or package.
const INSIDE: [&str; 2] = ["lib64", "lib"];

/// Prints where this Python finds packages, one folder a line.
const ASK_PYTHON: &str = "import sys; print('\\n'.join(sys.path))";

/// The environment's variables by name.
type Environment<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// No usable NVRTC, with everything that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.explain())]
pub struct NotFound {
    /// Each place, and what was wrong with it.
    pub looked_at: Vec<(String, String)>,
    /// Whether `LENSLET_NVRTC` kept the search from going on.
    pub named: bool,
}

impl NotFound {
    fn explain(&self) -> String {
        let found = "no usable NVRTC (CUDA's run-time compiler, version 12 or newer) was found; looked at";
        let places = self.looked_at.iter().map(|(place, reason)| format!("\n  {place}: {reason}"));
        let advice = if self.named {
            "\nUnset LENSLET_NVRTC to search everywhere, or set it to the library or its folder."
        } else {
            "\n`pip install nvidia-cuda-nvrtc` brings it (nvidia-cuda-nvrtc-cu12 for older drivers), or set LENSLET_NVRTC to the library or its folder."
        };
        format!("{found}{}{advice}", places.collect::<String>())
    }
}

/// A library that may be NVRTC, with the major version its name gives away.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Candidate {
    path: PathBuf,
    major: Option<u32>,
}

/// A search in progress.
struct Search {
    driver_major: Option<u32>,
    missed: NotFound,
    /// Newer than the driver by their names: a last resort.
    newer: Vec<Candidate>,
}

/// The first usable library. Stages are only entered when those before them have nothing: asking Python takes a while.
pub(super) fn find(environment: Environment, driver_major: Option<u32>) -> Result<Nvrtc, NotFound> {
    let mut search = Search::new(driver_major);
    let found = match variable(environment, "LENSLET_NVRTC") {
        Some(named) => {
            search.missed.named = true;
            search.named(&named)
        }
        None => search
            .toolkits(environment)
            .or_else(|| search.packages())
            .or_else(|| search.installed())
            .or_else(|| search.system()),
    };
    found.or_else(|| search.newer()).ok_or(search.missed)
}

impl Search {
    fn new(driver_major: Option<u32>) -> Search {
        Search { driver_major, missed: NotFound { looked_at: Vec::new(), named: false }, newer: Vec::new() }
    }

    /// What `LENSLET_NVRTC` names, whatever the driver's version.
    fn named(&mut self, path: &Path) -> Option<Nvrtc> {
        self.driver_major = None;
        if path.is_dir() {
            return self.folders([path.to_owned()]);
        }
        self.open(&Candidate { path: path.to_owned(), major: None })
    }

    fn toolkits(&mut self, environment: Environment) -> Option<Nvrtc> {
        ["CUDA_PATH", "CUDA_HOME"].into_iter().find_map(|name| match variable(environment, name) {
            Some(root) => self.folders(INSIDE.iter().map(|inside| root.join(inside))),
            None => self.miss(name, "not set"),
        })
    }

    /// Those of the Python that is active.
    fn packages(&mut self) -> Option<Nvrtc> {
        match ask_python() {
            Ok(sites) => self.sites(&sites),
            Err(reason) => self.miss("python3", &reason),
        }
    }

    /// Folders of Python packages, of which NVIDIA's hold libraries.
    fn sites(&mut self, sites: &[PathBuf]) -> Option<Nvrtc> {
        for site in sites {
            let packages = listing(&site.join("nvidia"));
            if packages.is_empty() {
                self.miss(&site.display().to_string(), "no packages of NVIDIA");
                continue;
            }
            let inside = packages.iter().flat_map(|package| INSIDE.iter().map(move |inside| package.join(inside)));
            let found = self.folders(inside.filter(|folder| !libraries(folder).is_empty()));
            if found.is_some() {
                return found;
            }
        }
        None
    }

    fn folders(&mut self, folders: impl IntoIterator<Item = PathBuf>) -> Option<Nvrtc> {
        folders.into_iter().find_map(|folder| {
            let candidates = libraries(&folder);
            if candidates.is_empty() {
                let reason = if folder.is_dir() { "no NVRTC in it" } else { "no such folder" };
                return self.miss(&folder.display().to_string(), reason);
            }
            candidates.iter().find_map(|candidate| self.consider(candidate))
        })
    }

    /// A system's own CUDA: `/usr/local/cuda` is the administrator's choice and sorts first.
    fn installed(&mut self) -> Option<Nvrtc> {
        let roots = listing(Path::new("/usr/local")).into_iter();
        let cuda: Vec<_> = roots.filter(|root| file_name(root).starts_with("cuda")).collect();
        if cuda.is_empty() {
            self.miss("/usr/local/cuda*", "no such folder");
        }
        self.folders(cuda.iter().map(|root| root.join("lib64")))
    }

    /// Libraries the system finds by name.
    fn system(&mut self) -> Option<Nvrtc> {
        BARE.iter().find_map(|name| {
            let major = major(name).flatten();
            let path = PathBuf::from(name);
            self.consider(&Candidate { path, major })
        })
    }

    /// Opens what is not known to be newer than the driver.
    fn consider(&mut self, candidate: &Candidate) -> Option<Nvrtc> {
        if candidate.major.zip(self.driver_major).is_some_and(|(major, driver)| major > driver) {
            self.newer.push(candidate.clone());
            return None;
        }
        self.open(candidate)
    }

    fn newer(&mut self) -> Option<Nvrtc> {
        std::mem::take(&mut self.newer).iter().find_map(|candidate| self.open(candidate))
    }

    fn open(&mut self, candidate: &Candidate) -> Option<Nvrtc> {
        match Nvrtc::open(&candidate.path) {
            Ok(nvrtc) => Some(nvrtc),
            Err(reason) => self.miss(&candidate.path.display().to_string(), &reason),
        }
    }

    fn miss(&mut self, place: &str, reason: &str) -> Option<Nvrtc> {
        self.missed.looked_at.push((place.to_owned(), reason.to_owned()));
        None
    }
}

/// The path in a variable; empty is as good as not set.
fn variable(environment: Environment, name: &str) -> Option<PathBuf> {
    environment(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Where `python3` looks for packages.
fn ask_python() -> Result<Vec<PathBuf>, String> {
    let mut python = Command::new("python3");
    python.args(["-c", ASK_PYTHON]).stdin(Stdio::null()).stderr(Stdio::null());
    let answer = python.output().map_err(|error| format!("does not start: {error}"))?;
    if !answer.status.success() {
        return Err(format!("does not tell where its packages are: {}", answer.status));
    }
    let text = String::from_utf8_lossy(&answer.stdout);
    let packages = text.lines().map(PathBuf::from);
    Ok(packages.filter(|path| path.is_absolute() && file_name(path).ends_with("-packages")).collect())
}

/// The NVRTCs in a folder, the newest first.
fn libraries(folder: &Path) -> Vec<Candidate> {
    let mut found: Vec<_> = listing(folder)
        .into_iter()
        .filter_map(|path| major(&file_name(&path)).map(|major| Candidate { path, major }))
        .collect();
    found.sort_by_key(|candidate| std::cmp::Reverse(candidate.major));
    found
}

/// Whether a file of this name is NVRTC, and if so its major version where the name has one.
fn major(name: &str) -> Option<Option<u32>> {
    match name.strip_prefix("libnvrtc.so")? {
        "" => Some(None),
        rest => rest.strip_prefix('.')?.split('.').next()?.parse().ok().map(Some),
    }
}

/// The library of headers that lies beside NVRTC. NVRTC opens it by name on first use, which only finds it where the
/// system looks, or if it is loaded already.
pub(super) fn builtins(library: &Path) -> Option<PathBuf> {
    let folder = library.parent().filter(|folder| !folder.as_os_str().is_empty())?;
    // A symbolic link may have led here from a folder without it.
    let real = std::fs::canonicalize(library).ok();
    let folders = [Some(folder.to_owned()), real.and_then(|path| path.parent().map(Path::to_owned))];
    folders
        .into_iter()
        .flatten()
        .flat_map(|folder| listing(&folder))
        .find(|path| file_name(path).starts_with("libnvrtc-builtins.so."))
}

/// The file a library was loaded from, for one that the system found by name.
pub(super) fn loaded_path(path: &Path) -> PathBuf {
    if path.parent().is_some_and(|folder| !folder.as_os_str().is_empty()) {
        return path.to_owned();
    }
    // Linux lists all that is mapped, with the path last on the line.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let mut found = mapped.filter(|mapped| file_name(mapped).starts_with("libnvrtc.so"));
    found.next().unwrap_or(path).to_owned()
}

/// What a folder holds, sorted; nothing if it cannot be read.
fn listing(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.path()).collect();
    found.sort();
    found
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_with(set: &[(&str, &Path)], driver: Option<u32>) -> Result<Nvrtc, NotFound> {
        let value = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        find(&value, driver)
    }

    #[test]
    fn names_give_the_version_away() {
        for (name, expected) in [
            ("libnvrtc.so", Some(None)),
            ("libnvrtc.so.13", Some(Some(13))),
            ("libnvrtc.so.12.9.86", Some(Some(12))),
            ("libnvrtc.alt.so.13", None),
            ("libnvrtc-builtins.so.13.0", None),
            ("libnvrtc.so.old", None),
            ("libnvrtc.so13", None),
        ] {
            assert_eq!(major(name), expected, "{name}");
        }
    }

    #[test]
    fn a_named_library_that_does_not_load_is_an_error_without_a_search() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("libnvrtc.so.13");
        std::fs::write(&file, "no library").unwrap();
        for (named, said) in [
            (file.as_path(), "libnvrtc.so.13"),
            (folder.path(), "libnvrtc.so.13"),
            (Path::new("/nowhere/at/all"), "/nowhere/at/all"),
        ] {
            let error = find_with(&[("LENSLET_NVRTC", named), ("CUDA_PATH", named)], None).unwrap_err();
            assert!(error.named && error.looked_at.len() == 1, "{error:?}");
            let text = error.to_string();
            assert!(text.contains(said) && text.contains("Unset LENSLET_NVRTC"), "{text}");
        }
    }

    #[test]
    fn an_empty_folder_is_said_to_be_empty() {
        let folder = tempfile::tempdir().unwrap();
        let error = find_with(&[("LENSLET_NVRTC", folder.path())], None).unwrap_err();
        assert!(error.to_string().contains("no NVRTC in it"), "{error}");
    }

    #[test]
    fn a_search_without_an_answer_lists_every_stage() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("lib64")).unwrap();
        std::fs::write(folder.path().join("lib64/libnvrtc.so.12"), "").unwrap();
        match find_with(&[("CUDA_PATH", folder.path())], None) {
            // What this machine has elsewhere is good enough.
            Ok(found) => assert!(!found.path().starts_with(folder.path())),
            Err(error) => {
                let text = error.to_string();
                let stages = ["lib64/libnvrtc.so.12", "CUDA_HOME: not set", "/usr/local/cuda", "pip install"];
                assert!(stages.iter().all(|stage| text.contains(stage)), "{text}");
            }
        }
    }

    #[test]
    fn what_is_newer_than_the_driver_comes_last() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libnvrtc.so", "libnvrtc.so.12", "libnvrtc.so.13", "libnvrtc.alt.so.13"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let order = |driver| {
            let mut search = Search::new(driver);
            assert!(search.folders([folder.path().to_owned()]).or_else(|| search.newer()).is_none());
            let places = search.missed.looked_at.into_iter().map(|(place, _)| file_name(Path::new(&place)));
            places.collect::<Vec<_>>()
        };
        assert_eq!(order(None), ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]);
        assert_eq!(order(Some(12)), ["libnvrtc.so.12", "libnvrtc.so", "libnvrtc.so.13"]);
    }

    #[test]
    fn packages_of_python_are_found() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("nvidia/cu13/lib");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("libnvrtc.so.13"), "").unwrap();
        let mut search = Search::new(None);
        assert!(search.sites(&[root.path().to_owned()]).is_none());
        assert!(search.missed.looked_at[0].0.ends_with("nvidia/cu13/lib/libnvrtc.so.13"));
    }
}
