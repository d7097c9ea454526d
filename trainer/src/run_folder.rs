//! The folder of one run: made once, every file in it whole or absent.

use crate::memory;
use anyhow::{Context, Error, Result, bail, ensure};
use model::write_atomically;
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The recipe with every default spelled out: what makes a folder a run's.
pub const RECIPE: &str = "recipe.resolved.toml";
/// The largest file of a run that is read whole, in bytes; models are not.
pub(crate) const MAX_FILE: u64 = 16 << 20;
/// What a process that trains here holds.
const LOCK: &str = ".lock";
/// What stands in front of the name of a file that is not whole yet.
const UNFINISHED: &str = ".tmp-";
/// Letters behind it.
const DRAWN: usize = 6;

/// A run's folder. A new one that is dropped before [`RunFolder::keep`] is removed with all that is in it: a run that
/// failed early leaves nothing behind and its name free.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    /// The outermost folder made for this run; nothing above it is touched when the run is removed.
    made: PathBuf,
    keep: bool,
    /// Locked while this process trains; the system unlocks it whichever way the process ends.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder, and those above it.
    ///
    /// # Errors
    /// When it exists already, or cannot be made.
    pub fn create(path: &Path) -> Result<RunFolder> {
        let missing = path.ancestors().take_while(|above| !above.as_os_str().is_empty() && !above.exists());
        let made = missing.last().unwrap_or(path).to_owned();
        let folder = path.display();
        if let Some(above) = path.parent() {
            fs::create_dir_all(above).with_context(|| format!("{}: cannot be made", above.display()))?;
        }
        match fs::create_dir(path) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => bail!(
                "{folder} exists already, and a run never overwrites another; go on with it by --resume latest, choose \
                 another folder with --out or another run.name, or remove it"
            ),
            Err(error) => return Err(Error::new(error).context(format!("{folder}: cannot be made"))),
        }
        Ok(RunFolder { path: path.to_owned(), made, keep: false, _lock: lock(path)? })
    }

    /// The folder of a run that is gone on with; a new one where there is none. What a killed process left unfinished is removed.
    ///
    /// # Errors
    /// When it is no run's or leads out of itself, another process trains in it, or it cannot be made.
    pub fn reopen(path: &Path) -> Result<RunFolder> {
        if !path.exists() {
            return RunFolder::create(path);
        }
        let about = || format!("{}: cannot be read", path.display());
        let entries = fs::read_dir(path).with_context(about)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        let names: Vec<String> = names.collect::<io::Result<_>>().with_context(about)?;
        // A run that was killed at once has come no further than its lock or a file half written.
        let others = names.iter().any(|name| name != LOCK && !is_leftover(name));
        if others && !path.join(RECIPE).exists() {
            bail!("{}: not a run's folder: it has no {RECIPE}", path.display());
        }
        let mut leftovers = Vec::new();
        without_links(path, &mut leftovers)?;
        let folder = RunFolder { path: path.to_owned(), made: path.to_owned(), keep: true, _lock: lock(path)? };
        for file in leftovers {
            fs::remove_file(&file).with_context(|| format!("{}: cannot be removed", file.display()))?;
        }
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of `name` in this folder.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file of this folder whole or not at all; `name` may contain folders, which are made.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        write_whole(&self.file(name), bytes)
    }

    /// From now on the folder stays, whatever happens: it holds something worth keeping.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        // A failure to tidy up must not hide the error that led here.
        let _ = fs::remove_dir_all(&self.path);
        let mut above = self.path.as_path();
        while let (true, Some(parent)) = (above != self.made, above.parent()) {
            // Refused, rightly, where another run has put something there meanwhile.
            if fs::remove_dir(parent).is_err() {
                return;
            }
            above = parent;
        }
    }
}

/// Locks a run's folder for this process.
fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK);
    let file = open_own(&path, OpenOptions::new().append(true).create(true));
    let file = file.with_context(|| format!("{}: cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("{}: another process is training in this folder", folder.display()),
        // Some network disks cannot lock; a run there is as safe as it was before there was a lock.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Whether a name is one that [`write_atomically`] gives to what is not whole yet.
fn is_leftover(name: &str) -> bool {
    let drawn = name.strip_prefix(UNFINISHED);
    drawn.is_some_and(|drawn| drawn.len() == DRAWN && drawn.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Fails where a folder that is written to leads out of itself: nothing behind a link is ever changed. Finds what killed processes
/// left.
///
/// # Errors
/// Names the link, or what is neither a file nor a folder.
fn without_links(folder: &Path, leftovers: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{}: cannot be read", folder.display()))? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        match kind.is_dir() {
            true => without_links(&path, leftovers)?,
            false => ensure!(
                kind.is_file(),
                "{}: a link, a pipe or a device, which a run's folder never holds; put what it leads to in its place",
                path.display()
            ),
        }
        if kind.is_file() && is_leftover(&entry.file_name().to_string_lossy()) {
            leftovers.push(path);
        }
    }
    Ok(())
}

/// Opens a file that is written to in place, if it is nobody else's: not what a link leads to, and without another name.
///
/// # Errors
/// Those of the file system; where it is not such a file.
pub(crate) fn open_own(path: &Path, how: &mut OpenOptions) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = how.custom_flags(flags).open(path)?;
    let about = file.metadata()?;
    match about.is_file() && about.nlink() == 1 {
        true => Ok(file),
        false => Err(io::Error::other(
            "a device, a pipe, or a file with a second name (a hard link), which would change, too",
        )),
    }
}

/// Fails where a file that the command line names for the output would take another's place, or has no folder to stand in.
pub fn new_file(out: &Path) -> Result<()> {
    let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let there = folder.is_none_or(Path::is_dir);
    ensure!(there, "{}: its folder is not there; make it first", out.display());
    ensure!(fs::symlink_metadata(out).is_err(), "{} exists already; choose another name, or remove it", out.display());
    Ok(())
}

/// Writes `path` whole or not at all, and makes its folder if need be.
///
/// # Errors
/// Names the file and its size; a full disk is said to be one.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    let written = match path.parent() {
        Some(folder) => fs::create_dir_all(folder),
        None => Ok(()),
    };
    let written = written.and_then(|()| write_atomically(path, |file| file.write_all(bytes)));
    written.map_err(|error| explain(error, path, bytes.len()))
}

/// A write that failed, in words: which file, how much it needed, and whether the disk is full.
pub(crate) fn explain(error: io::Error, path: &Path, bytes: usize) -> Error {
    let need = memory::size(bytes as u64);
    let file = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::new(error).context(format!(
            "{file}: the disk is full; this file needs {need}: free some space, or choose another disk with --out"
        )),
        ErrorKind::FileTooLarge => {
            Error::new(error).context(format!("{file}: needs {need}, more than a file may have here (see `ulimit -f`)"))
        }
        _ => Error::new(error).context(format!("{file}: cannot be written ({need})")),
    }
}

/// A file that grows line by line; each line is with the system before the next step begins.
#[derive(Debug)]
pub struct LineLog {
    path: PathBuf,
    file: File,
}

impl LineLog {
    /// Opens `path` for appending, and makes it if need be.
    pub fn open(path: &Path) -> Result<LineLog> {
        let file = open_own(path, OpenOptions::new().append(true).read(true).create(true));
        Ok(LineLog { path: path.to_owned(), file: file.map_err(|error| explain(error, path, 0))? })
    }

    /// Cuts off all that lies behind the first `bytes`. Of a file that has lost some of these it keeps whole lines, and says so.
    pub fn cut(&mut self, bytes: u64) -> Result<()> {
        let length = self.bytes()?;
        let path = self.path.display();
        let mut kept = bytes;
        if length < bytes {
            errln!("{path}: {length} bytes of the {bytes} that were written: earlier steps are missing in it");
            kept = self.whole_lines().with_context(|| format!("{path}: cannot be read"))?;
        }
        self.file.set_len(kept).with_context(|| format!("{path}: cannot be cut"))
    }

    /// Bytes up to the last end of a line.
    fn whole_lines(&self) -> io::Result<u64> {
        let (mut at, mut end) = (0, 0);
        let mut file = &self.file;
        file.rewind()?;
        for byte in BufReader::new(file).bytes() {
            at += 1;
            if byte? == b'\n' {
                end = at;
            }
        }
        Ok(end)
    }

    /// Its length.
    pub fn bytes(&self) -> Result<u64> {
        let about = self.file.metadata().with_context(|| self.path.display().to_string())?;
        Ok(about.len())
    }

    /// Brings what was appended to the disk.
    pub fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| explain(error, &self.path, 0))
    }

    /// Appends `line` and a line break in one write.
    ///
    /// # Errors
    /// Names the file; a full disk is said to be one.
    pub fn append(&mut self, line: &str) -> Result<()> {
        let line = format!("{line}\n");
        let written = self.file.write_all(line.as_bytes()).and_then(|()| self.file.flush());
        written.map_err(|error| explain(error, &self.path, line.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_existing_folder_is_refused_untouched_and_told_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("run");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("precious"), "x").unwrap();
        let message = RunFolder::create(&path).unwrap_err().to_string();
        assert!(
            message.contains("exists already") && message.contains("--out") && message.contains("run.name"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(path.join("precious")).unwrap(), "x");
        let below = RunFolder::create(&path.join("precious/run")).unwrap_err();
        assert!(format!("{below:#}").contains("precious"), "{below:#}");
    }

    #[test]
    fn a_run_that_is_not_kept_leaves_nothing_and_one_that_is_leaves_all() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("runs/today/first");
        let folder = RunFolder::create(&path).unwrap();
        folder.write("attention/a.png", b"png").unwrap();
        drop(folder);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "the folders made above it go too");

        let mut folder = RunFolder::create(&path).unwrap();
        folder.write("attention/a.png", b"png").unwrap();
        folder.keep();
        drop(folder);
        assert_eq!(fs::read(path.join("attention/a.png")).unwrap(), b"png");
        let text = RunFolder::reopen(&path).unwrap_err().to_string();
        assert!(text.contains("not a run's folder: it has no recipe.resolved.toml"), "{text}");
        fs::write(path.join(RECIPE), "").unwrap();

        let again = RunFolder::reopen(&path).unwrap();
        let text = RunFolder::reopen(&path).unwrap_err().to_string();
        assert!(text.ends_with("another process is training in this folder"), "{text}");
        drop(again);
        assert!(path.join("attention/a.png").exists(), "what was there before is not removed");

        drop(RunFolder::create(&root.path().join("runs/today/second")).unwrap());
        assert!(path.exists() && !root.path().join("runs/today/second").exists());
    }

    #[test]
    fn writing_replaces_whole_files_and_leaves_no_temporary_ones() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a.json");
        write_whole(&path, b"first, longer").unwrap();
        write_whole(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        let text = format!("{:#}", write_whole(&path.join("b"), b"x").unwrap_err());
        assert!(text.contains("a.json/b: cannot be written (1 B)"), "{text}");
    }

    #[test]
    fn files_are_readable_by_others_as_the_umask_allows() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        let (plain, whole) = (root.path().join("plain"), root.path().join("whole"));
        fs::write(&plain, "x").unwrap();
        write_whole(&whole, b"x").unwrap();
        assert_eq!(mode(&whole), mode(&plain));
    }

    #[test]
    fn lines_are_there_as_soon_as_they_are_appended() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("metrics.jsonl");
        let mut log = LineLog::open(&path).unwrap();
        log.append("one").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\n");
        let mut again = LineLog::open(&path).unwrap();
        again.append("two").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        again.cut(4).unwrap();
        again.append("three").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nthree\n");
        fs::write(&path, "one\nthr").unwrap();
        again.cut(100).unwrap();
        again.append("four").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\nfour\n", "a line that is not whole goes, too");
    }

    #[test]
    fn a_full_disk_is_named_with_file_and_need() {
        let path = PathBuf::from("/dev/full");
        let file = OpenOptions::new().append(true).open(&path).unwrap();
        let mut log = LineLog { path, file };
        let text = format!("{:#}", log.append("0123456789").unwrap_err());
        assert!(text.contains("/dev/full: the disk is full; this file needs 11 B"), "{text}");
    }

    /// Runs itself under a limit of 64 KiB per file, with the signal that would end the process ignored.
    #[test]
    fn a_file_that_does_not_fit_is_an_error_and_leaves_what_was_there() {
        const INSIDE: &str = "LENSLET_TEST_FILE_LIMIT";
        if let Some(root) = std::env::var_os(INSIDE) {
            let path = Path::new(&root).join("model.safetensors");
            write_whole(&path, b"before").unwrap();
            let text = format!("{:#}", write_whole(&path, &vec![7; 1 << 20]).unwrap_err());
            assert!(text.contains("model.safetensors: needs 1.0 MiB, more than a file may have"), "{text}");
            assert_eq!(fs::read(&path).unwrap(), b"before");
            assert_eq!(fs::read_dir(&root).unwrap().count(), 1, "no temporary file stays");
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let name = "run_folder::tests::a_file_that_does_not_fit_is_an_error_and_leaves_what_was_there";
        let output = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" --exact --nocapture \"$1\""])
            .arg(std::env::current_exe().unwrap())
            .arg(name)
            .env(INSIDE, root.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
    }
}
