//! Tar archives whose members are read where they lie, nothing unpacked: their headers are read once, the data between
//! them passed over.

use super::files::in_folder;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufReader, Error, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use tar::{Archive, EntryType};

/// The most headers, long names among them, that may stand in front of one member, in bytes.
const MAX_HEADERS: u64 = 1 << 20;
/// The most shards a pattern may stand for.
const MAX_SHARDS: usize = 100_000;
/// Bytes a tar archive is made of at a time.
const BLOCK: u64 = 512;

/// A file within an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    shard: usize,
    at: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// Archives, and where their members are.
#[derive(Debug)]
pub struct Shards {
    paths: Vec<PathBuf>,
    members: HashMap<String, Member>,
}

impl Shards {
    /// The archives of `pattern`: one file, several joined by `::`, ranges and choices in braces
    /// (`shard-{000..003}.tar`, `{a,b}.tar`), or a folder or its `*.tar`, taken in alphabetical order. `seen` is
    /// shown each member's name, `shard-000.tar/cat.jpg`, in order.
    ///
    /// # Errors
    /// Names the archive and the place in it where it is cut off or no tar.
    pub fn open(pattern: &Path, mut seen: impl FnMut(&str, &Member)) -> Result<Shards> {
        let paths = expand(pattern)?;
        let mut members = HashMap::new();
        let mut names = HashMap::new();
        for (shard, path) in paths.iter().enumerate() {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{}: its name is not text", path.display()))?;
            if let Some(before) = names.insert(name, path) {
                bail!("{} and {}: shards of one name", before.display(), path.display());
            }
            index(path, |inner, at, size| {
                let (name, member) = (format!("{name}/{inner}"), Member { shard, at, size });
                seen(&name, &member);
                members.insert(name, member);
            })?;
        }
        Ok(Shards { paths, members })
    }

    /// The member of this name.
    pub fn find(&self, name: &str) -> Option<Member> {
        self.members.get(name).copied()
    }

    /// The bytes of a member of at most `most` bytes.
    ///
    /// # Errors
    /// Names archive and place.
    pub fn read(&self, member: Member, most: u64) -> Result<Vec<u8>> {
        let Member { shard, at, size } = member;
        let about = || format!("{}: {size} bytes at {at}", self.paths[shard].display());
        ensure!(size <= most, "{}: more than {most}", about());
        // Opened anew each time: there may be more shards than a process may have open.
        let mut file = File::open(&self.paths[shard]).with_context(about)?;
        file.seek(SeekFrom::Start(at)).with_context(about)?;
        let mut bytes = vec![0; size as usize];
        file.read_exact(&mut bytes).with_context(about)?;
        Ok(bytes)
    }
}

/// Hands `add` the name, place and size of every file in an archive.
fn index(path: &Path, mut add: impl FnMut(String, u64, u64)) -> Result<()> {
    let (file, length) = open(path)?;
    let name = path.display();
    let read = Cell::new(0);
    let mut archive = Archive::new(Headers {
        inner: BufReader::new(file),
        read: &read,
    });
    let damaged = |at: u64, error: Error| {
        // Some of tar's messages repeat a whole header.
        let why: String = error.to_string().chars().take(80).collect();
        anyhow!(
            "{name}: no tar archive at byte {at} of {length}: {}",
            why.escape_debug()
        )
    };
    // Where the last member's data end.
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(|error| damaged(0, error))? {
        let entry = entry.map_err(|error| damaged(end, error))?;
        read.set(0);
        let (at, size) = (entry.raw_file_position(), entry.size());
        let inner = String::from_utf8(entry.path_bytes().into_owned());
        let inner = inner
            .ok()
            .with_context(|| format!("{name}: a name at byte {end} is not UTF-8"))?;
        let whole = at.checked_add(size).filter(|end| *end <= length);
        end = whole.with_context(|| {
            format!("{name}: truncated: `{inner}` takes {size} bytes from {at} on, the file has {length}")
        })?;
        match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => add(inner.trim_start_matches("./").to_string(), at, size),
            EntryType::GNUSparse => bail!("{name}: `{inner}` is sparse; pack it without `--sparse`"),
            _ => {}
        }
    }
    // At least one block of the two that are empty.
    let ends = end
        .checked_next_multiple_of(BLOCK)
        .and_then(|end| end.checked_add(BLOCK));
    ensure!(
        ends.is_some_and(|end| end <= length),
        "{name}: truncated: ends at byte {length} without the end of an archive"
    );
    Ok(())
}

/// An archive's file and its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let about = || format!("{}: cannot be read", path.display());
    let mut file = File::open(path).with_context(about)?;
    let about_file = file.metadata().with_context(about)?;
    ensure!(about_file.is_file(), "{}: not a file", path.display());
    let mut start = [0; 2];
    if about_file.len() >= 2 {
        file.read_exact(&mut start).with_context(about)?;
        file.rewind().with_context(about)?;
    }
    ensure!(
        start != [0x1f, 0x8b],
        "{}: compressed; members are read in place: unpack it with gunzip",
        path.display()
    );
    Ok((file, about_file.len()))
}

/// Fails where more is read at a time than headers take: a damaged header must not have data read as a name.
struct Headers<'a> {
    inner: BufReader<File>,
    read: &'a Cell<u64>,
}

impl Read for Headers<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.read.get() > MAX_HEADERS {
            return Err(Error::other(format!(
                "headers of more than {MAX_HEADERS} bytes in front of a file"
            )));
        }
        let count = self.inner.read(buffer)?;
        self.read.set(self.read.get() + count as u64);
        Ok(count)
    }
}

impl Seek for Headers<'_> {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        match to {
            // Short ways are within what was read ahead.
            SeekFrom::Current(by) => {
                self.inner.seek_relative(by)?;
                self.inner.stream_position()
            }
            other => self.inner.seek(other),
        }
    }
}

/// Whether a path stands for tar archives.
pub(super) fn is_pattern(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains("::") || text.contains('{') || text.ends_with(".tar")
}

/// The archives a pattern stands for; see [`Shards::open`].
fn expand(pattern: &Path) -> Result<Vec<PathBuf>> {
    let all = pattern.file_name().is_some_and(|name| name == "*.tar");
    let folder = match all {
        true => pattern.parent().unwrap_or(Path::new("")),
        false => pattern,
    };
    if let Some(paths) = in_folder(folder, "tar")? {
        return Ok(paths);
    }
    let text = pattern.to_string_lossy();
    let mut paths = Vec::new();
    for part in text.split("::") {
        braces(part, &mut paths).map_err(|message| anyhow!("{text}: {message}"))?;
    }
    Ok(paths)
}

/// Adds what `text` stands for once its first braces, and then the others, are replaced.
fn braces(text: &str, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    if paths.len() >= MAX_SHARDS {
        return Err(format!("stands for more than {MAX_SHARDS} shards"));
    }
    let Some((before, rest)) = text.split_once('{') else {
        paths.push(text.into());
        return Ok(());
    };
    let (inside, after) = rest.split_once('}').ok_or("`{` without `}`")?;
    let Some((from, to)) = inside.split_once("..") else {
        return inside
            .split(',')
            .try_for_each(|choice| braces(&format!("{before}{choice}{after}"), paths));
    };
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse::<u32>().ok().filter(|_| digits);
        value.ok_or_else(|| format!("`{{{inside}}}`: expected a range of numbers, as in {{000..003}}"))
    };
    let width = from.len();
    let (first, last) = (number(from)?, number(to)?);
    if first > last {
        return Err(format!("`{{{inside}}}`: a range that ends before it starts"));
    }
    for n in first..=last {
        braces(&format!("{before}{n:0width$}{after}"), paths)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
