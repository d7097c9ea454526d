//! Tar archives whose members are read where they lie, nothing unpacked: their headers are read once, the data between
//! them passed over.

use super::files::{ends_in, in_folder, normal};
use super::passed_over::PassedOver;
use anyhow::{Context, Result, anyhow, bail, ensure};
use model::{file_kind, open_file};
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
/// The most that their names may take, in bytes.
const MAX_NAMES: usize = 64 << 20;
/// The most digits of a number in their names.
const MAX_DIGITS: usize = 20;
/// Letters of a pattern that a message shows.
const MAX_SHOWN: usize = 200;
/// Bytes a tar archive is made of at a time.
const BLOCK: u64 = 512;

/// A file within an archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    shard: usize,
    /// Where it starts.
    pub(super) at: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// Archives, and where their members are.
#[derive(Debug)]
pub struct Shards {
    paths: Vec<PathBuf>,
    /// The shards by their file names.
    numbers: HashMap<String, usize>,
    /// Members by their names within their shards.
    members: HashMap<String, Vec<Member>>,
    /// What is no file, or not an archive's file.
    pub(super) passed_over: PassedOver,
}

impl Shards {
    /// The archives of `pattern`: one file, several joined by `::`, ranges and choices in braces
    /// (`shard-{000..003}.tar`, `{a,b}.tar`), or a folder or its `*.tar`, taken in alphabetical order. `seen` is
    /// shown each member's name, `shard-000.tar/cat.jpg`, in order. A link stands for the member it leads to.
    ///
    /// # Errors
    /// Names the archive and the place in it where it is cut off or no tar.
    pub fn open(pattern: &Path, mut seen: impl FnMut(&str, &Member)) -> Result<Shards> {
        let mut passed = PassedOver::default();
        let paths = expand(pattern, &mut passed)?;
        let mut members = HashMap::<String, Vec<Member>>::new();
        let mut numbers = HashMap::new();
        for (shard, path) in paths.iter().enumerate() {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{}: its name is not text", path.display()))?;
            if let Some(before) = numbers.insert(name.to_string(), shard) {
                bail!("{} and {}: shards of one name", paths[before].display(), path.display());
            }
            for (inner, place) in resolved(index(path)?, name, &mut passed) {
                let (at, size) = place;
                let member = Member { shard, at, size };
                seen(&format!("{name}/{inner}"), &member);
                members.entry(inner).or_default().push(member);
            }
        }
        Ok(Shards { paths, numbers, members, passed_over: passed })
    }

    /// The member of this name, with its shard's name in front (`shard-000.tar/cat.jpg`) or, where it is in one shard only,
    /// without.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find(&self, name: &str) -> Result<Member> {
        let in_shard = name.split_once('/').and_then(|(shard, inner)| {
            let number = self.numbers.get(shard)?;
            let members = self.members.get(inner)?.iter();
            Some(members.filter(|member| member.shard == *number).collect::<Vec<_>>()).filter(|found| !found.is_empty())
        });
        let found = in_shard.or_else(|| Some(self.members.get(name)?.iter().collect()));
        match found.as_deref() {
            None => bail!("{name}: not in {}", self.name()),
            Some([one]) => Ok(**one),
            Some([first, .., last]) if first.shard != last.shard => bail!(
                "{name}: in {} and in {}; write the shard's name in front",
                self.paths[first.shard].display(),
                self.paths[last.shard].display()
            ),
            Some(several) => bail!("{name}: {} members of this name", several.len()),
        }
    }

    /// The names of all members, with their shards' in front.
    pub(super) fn names(&self) -> Vec<String> {
        let shard = |member: &Member| self.paths[member.shard].file_name().unwrap_or_default().to_string_lossy();
        let of = |(inner, members): (&String, &Vec<Member>)| -> Vec<String> {
            members.iter().map(|member| format!("{}/{inner}", shard(member))).collect()
        };
        self.members.iter().flat_map(of).collect()
    }

    fn name(&self) -> String {
        let first = self.paths.first().map_or(String::new(), |path| path.display().to_string());
        match self.paths.len() {
            0 | 1 => first,
            count => format!("{first} and {} other shards", count - 1),
        }
    }

    /// The archive that a member lies in. Opened anew each time: there may be more shards than a process may have open.
    pub(super) fn archive_of(&self, member: Member) -> std::io::Result<File> {
        open_file(&self.paths[member.shard])
    }

    /// The bytes of a member of at most `most` bytes.
    ///
    /// # Errors
    /// Names archive and place.
    pub fn read(&self, member: Member, most: u64) -> Result<Vec<u8>> {
        let Member { shard, at, size } = member;
        let about = || format!("{}: {size} bytes at {at}", self.paths[shard].display());
        ensure!(size <= most, "{}: more than {most}", about());
        let mut file = self.archive_of(member).with_context(about)?;
        file.seek(SeekFrom::Start(at)).with_context(about)?;
        let mut bytes = vec![0; size as usize];
        file.read_exact(&mut bytes).with_context(about)?;
        Ok(bytes)
    }
}

/// What a header of an archive stands for.
enum Entry {
    /// A file's data: where they start, and how many bytes they are.
    File((u64, u64)),
    /// The name of another member.
    Link(String),
    /// A device, a pipe.
    Other,
}

/// The files of an archive in order, links as the files they lead to; names as they are looked up.
fn resolved(entries: Vec<(String, Entry)>, shard: &str, passed: &mut PassedOver) -> Vec<(String, (u64, u64))> {
    let mut links = HashMap::new();
    let mut places = HashMap::new();
    for (name, entry) in &entries {
        match entry {
            Entry::File(place) => drop(places.insert(name.clone(), *place)),
            Entry::Link(target) => drop(links.insert(name.clone(), target.clone())),
            Entry::Other => {}
        }
    }
    let mut files = Vec::with_capacity(entries.len());
    for (name, entry) in entries {
        let place = match entry {
            Entry::File(place) => Some(place),
            Entry::Link(target) => {
                // As many links as there are lead to a file, or in a circle.
                let mut target = &target;
                let mut steps = 0..=links.len();
                while let (None, Some(next), Some(_)) = (places.get(target), links.get(target), steps.next()) {
                    target = next;
                }
                places.get(target).copied()
            }
            Entry::Other => None,
        };
        match place {
            Some(place) => files.push((name, place)),
            None => passed.add("members that are no file, nor a link to one", format!("{shard}/{name}")),
        }
    }
    files
}

/// The names of an archive's files and links, and what they stand for; folders are left out.
fn index(path: &Path) -> Result<Vec<(String, Entry)>> {
    let (file, length) = open(path)?;
    let name = path.display();
    let read = Cell::new(0);
    let mut archive = Archive::new(Headers { inner: BufReader::new(file), read: &read });
    let damaged = |at: u64, error: Error| {
        // Some of tar's messages repeat a whole header.
        let why: String = error.to_string().chars().take(80).collect();
        anyhow!("{name}: no tar archive at byte {at} of {length}: {}", why.escape_debug())
    };
    let mut members = Vec::new();
    // Where the last member's data end.
    let mut end = 0;
    for entry in archive.entries_with_seek().map_err(|error| damaged(0, error))? {
        let entry = entry.map_err(|error| damaged(end, error))?;
        read.set(0);
        let (at, size) = (entry.raw_file_position(), entry.size());
        let inner = String::from_utf8(entry.path_bytes().into_owned());
        let inner = inner.ok().with_context(|| format!("{name}: a name at byte {end} is not UTF-8"))?;
        let whole = at.checked_add(size).filter(|end| *end <= length);
        end = whole.with_context(|| {
            format!("{name}: truncated: `{inner}` takes {size} bytes from {at} on, the file has {length}")
        })?;
        let target = |folder: &str| -> Option<String> {
            let link = entry.link_name_bytes()?;
            normal(&format!("{folder}/{}", String::from_utf8_lossy(&link)))
        };
        let folder = inner.rsplit_once('/').map_or("", |(folder, _)| folder);
        let what = match entry.header().entry_type() {
            EntryType::Regular | EntryType::Continuous => Entry::File((at, size)),
            EntryType::GNUSparse => bail!("{name}: `{inner}` is sparse; pack it without `--sparse`"),
            EntryType::Link => target("").map_or(Entry::Other, Entry::Link),
            EntryType::Symlink => target(folder).map_or(Entry::Other, Entry::Link),
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            _ => Entry::Other,
        };
        members.push((normal(&inner).unwrap_or(inner), what));
    }
    // At least one block of the two that are empty.
    let ends = end.checked_next_multiple_of(BLOCK).and_then(|end| end.checked_add(BLOCK));
    ensure!(
        ends.is_some_and(|end| end <= length),
        "{name}: truncated: ends at byte {length} without the end of an archive"
    );
    Ok(members)
}

/// An archive's file and its length.
fn open(path: &Path) -> Result<(File, u64)> {
    let about = || format!("{}: cannot be read", path.display());
    let mut file = open_file(path).with_context(about)?;
    let about_file = file.metadata().with_context(about)?;
    let mut start = [0; 64];
    let count = file.read(&mut start).with_context(about)?;
    file.rewind().with_context(about)?;
    match file_kind(&start[..count]).filter(|_| count > 0) {
        Some(kind @ ("a gzip" | "a zstd file")) => {
            bail!("{}: {kind}, compressed; members are read in place: unpack it first", path.display())
        }
        Some(kind) => bail!("{}: {kind}, no tar archive", path.display()),
        None => {}
    }
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
            return Err(Error::other(format!("headers of more than {MAX_HEADERS} bytes in front of a file")));
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
    text.contains("::") || text.contains('{') || ends_in(&text, "tar")
}

/// The archives a pattern stands for; see [`Shards::open`].
fn expand(pattern: &Path, passed: &mut PassedOver) -> Result<Vec<PathBuf>> {
    let all = pattern.file_name().is_some_and(|name| name == "*.tar");
    let folder = match all {
        true => pattern.parent().unwrap_or(Path::new("")),
        false => pattern,
    };
    if let Some(paths) = in_folder(folder, "tar", passed)? {
        return Ok(paths);
    }
    let text = pattern.to_string_lossy();
    let mut paths = Vec::new();
    for part in text.split("::") {
        let shown = || text.chars().take(MAX_SHOWN).collect::<String>();
        braces(part, &mut paths).map_err(|message| anyhow!("{}: {message}", shown()))?;
    }
    Ok(paths)
}

/// Adds what `text` stands for: every choice of its first braces with every choice of the others, the last changing first.
fn braces(text: &str, paths: &mut Vec<PathBuf>) -> Result<(), String> {
    let mut all = vec![String::new()];
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once('{') {
        let (inside, after) = behind.split_once('}').ok_or("`{` without `}`")?;
        let choices = choices(inside)?;
        let count = paths.len() + all.len() * choices.len();
        if count > MAX_SHARDS || count.saturating_mul(text.len()) > MAX_NAMES {
            return Err(format!("stands for more than {MAX_SHARDS} shards, or for very long names"));
        }
        let mut longer = Vec::with_capacity(count);
        for start in &all {
            longer.extend(choices.iter().map(|choice| format!("{start}{before}{choice}")));
        }
        all = longer;
        rest = after;
    }
    paths.extend(all.iter().map(|start| PathBuf::from(format!("{start}{rest}"))));
    Ok(())
}

/// What stands in braces: names, or a range of numbers as wide as its first.
fn choices(inside: &str) -> Result<Vec<String>, String> {
    let Some((from, to)) = inside.split_once("..") else {
        return Ok(inside.split(',').map(String::from).collect());
    };
    let shown: String = inside.chars().take(MAX_SHOWN).collect();
    let number = |text: &str| {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let value = text.parse::<u32>().ok().filter(|_| digits);
        value.ok_or_else(|| format!("`{{{shown}}}`: expected a range of numbers, as in {{000..003}}"))
    };
    let (first, last, width) = (number(from)?, number(to)?, from.len());
    match last.checked_sub(first) {
        None => Err(format!("`{{{shown}}}`: a range that ends before it starts")),
        Some(more) if more as usize >= MAX_SHARDS || width > MAX_DIGITS => {
            Err(format!("`{{{shown}}}` stands for more than {MAX_SHARDS} shards, or has more than {MAX_DIGITS} digits"))
        }
        Some(_) => Ok((first..=last).map(|n| format!("{n:0width$}")).collect()),
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
