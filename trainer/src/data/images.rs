//! Images on disk, found by name in a folder, a zip or tar shards.

use super::files::{normal, walk};
#[cfg(feature = "parquet")]
use super::parquet::Tables;
use super::passed_over::PassedOver;
use super::shards::{Shards, is_pattern};
use anyhow::{Context, Result, bail, ensure};
use image::RgbImage;
use model::{MAX_IMAGE_FILE, decode_image, file_kind, open_file, read_file};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use zip::{CompressionMethod, ZipArchive};

/// Bytes of a file's start, and of its end, that tell it from another.
const END: u64 = 8 << 10;

/// Where images are.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Its absolute paths, as it is named and without links.
    Folder(Vec<PathBuf>),
    Zip(Zip),
    Shards(Shards),
    #[cfg(feature = "parquet")]
    Tables(Tables),
}

#[derive(Debug)]
struct Zip {
    archive: Mutex<ZipArchive<BufReader<File>>>,
    /// The number of each file; none where two have one name.
    numbers: HashMap<String, Option<usize>>,
}

impl ImageSource {
    /// A folder, a zip of stored (not compressed) entries, or tar archives as [`Shards::open`] names them, except by their
    /// folder; an image of theirs is called `cat.jpg`, or `shard-000.tar/cat.jpg` where several have one.
    ///
    /// # Errors
    /// When `path` is none of them, or cannot be read.
    pub fn open(path: &Path) -> Result<ImageSource> {
        #[cfg(feature = "parquet")]
        if path.extension().is_some_and(|ending| ending == "parquet") {
            return Ok(ImageSource::of_tables(path, Tables::open(path, &mut PassedOver::default())?));
        }
        let about = || format!("{}: cannot be read", path.display());
        let store = if is_pattern(path) && !path.is_dir() {
            Store::Shards(Shards::open(path, |_, _| ())?)
        } else if std::fs::metadata(path).with_context(about)?.is_dir() {
            let roots = [std::path::absolute(path), path.canonicalize()];
            Store::Folder(roots.into_iter().collect::<Result<_, _>>().with_context(about)?)
        } else {
            Store::Zip(Zip::open(path)?)
        };
        Ok(ImageSource { path: path.to_owned(), store })
    }

    /// Tar archives that are open already.
    pub fn of_shards(path: &Path, shards: Shards) -> ImageSource {
        ImageSource { path: path.to_owned(), store: Store::Shards(shards) }
    }

    /// Parquet files that are open already.
    #[cfg(feature = "parquet")]
    pub(super) fn of_tables(path: &Path, tables: Tables) -> ImageSource {
        ImageSource { path: path.to_owned(), store: Store::Tables(tables) }
    }

    /// The decoded image called `name`, `(height, width)` as in the file.
    ///
    /// # Errors
    /// When the name leaves the source (`..`, absolute), the image is not there, or [`decode_image`] refuses it.
    pub fn load(&self, name: &str) -> Result<RgbImage> {
        decode_image(&self.read(name)?).with_context(|| self.describe(name))
    }

    /// Whether there is an image called `name`.
    pub fn has(&self, name: &str) -> bool {
        let Ok(name) = self.relative(name) else { return false };
        match &self.store {
            Store::Folder(_) => self.path.join(name).is_file(),
            Store::Zip(zip) => zip.numbers.contains_key(&name),
            Store::Shards(shards) => shards.find(&name).is_ok(),
            #[cfg(feature = "parquet")]
            Store::Tables(_) => false,
        }
    }

    /// The names of all files.
    pub fn names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        match &self.store {
            Store::Folder(_) => {
                walk(&self.path, "", &mut PassedOver::default(), &mut |name, _| {
                    names.push(name);
                    true
                })?;
            }
            Store::Zip(zip) => names.extend(zip.numbers.keys().cloned()),
            Store::Shards(shards) => names = shards.names(),
            #[cfg(feature = "parquet")]
            Store::Tables(_) => {}
        }
        Ok(names)
    }

    /// An image's name within this source: without `./`, with `/` for `\`, and relative where it is an absolute path that
    /// leads into this folder.
    ///
    /// # Errors
    /// When the name leads elsewhere.
    pub fn relative(&self, name: &str) -> Result<String> {
        let absolute = name.starts_with('/');
        let drive = name.as_bytes().get(1) == Some(&b':');
        let inside = match &self.store {
            Store::Folder(roots) if absolute => within(name, roots),
            _ => Some(name.to_string()).filter(|_| !absolute && !drive),
        };
        let inside = inside.and_then(|name| normal(&name));
        let about = || match absolute {
            true => format!("`{}` is not a name within the image folder {}", name.escape_debug(), self.path.display()),
            false => format!("`{}` is not a name within the image folder", name.escape_debug()),
        };
        inside.with_context(about)
    }

    fn describe(&self, name: &str) -> String {
        match &self.store {
            Store::Shards(_) => name.to_string(),
            #[cfg(feature = "parquet")]
            Store::Tables(_) => name.to_string(),
            _ => self.path.join(name).display().to_string(),
        }
    }

    /// A hash of an image's name, the size of its file and both its ends. Of compressed images a change within shows at the end,
    /// too: reading a large data set whole for this would take as long as an epoch.
    pub(super) fn fingerprint(&self, name: &str) -> Result<[u8; 32]> {
        let inside = &self.relative(name)?;
        let (size, ends) = match &self.store {
            Store::Folder(_) => {
                let file = open_file(&self.path.join(inside))?;
                let size = file.metadata()?.len();
                (size, ends(file, 0, size)?)
            }
            Store::Shards(shards) => {
                let member = shards.find(inside)?;
                (member.size, ends(shards.archive_of(member)?, member.at, member.size)?)
            }
            _ => {
                let bytes = self.read(inside)?;
                let size = bytes.len() as u64;
                (size, ends(Cursor::new(bytes), 0, size)?)
            }
        };
        let hash = Sha256::new_with_prefix(format!("{name}\0{size}\0"));
        Ok(hash.chain_update(ends).finalize().into())
    }

    /// The bytes of the image called `name`.
    ///
    /// # Errors
    /// When the name leaves the source (`..`, absolute), the image is not there, or too large.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let name = &self.relative(name)?;
        let bytes = match &self.store {
            Store::Folder(_) => {
                read_file(&self.path.join(name), MAX_IMAGE_FILE).with_context(|| self.describe(name))?
            }
            Store::Zip(zip) => zip.read(name).with_context(|| self.describe(name))?,
            Store::Shards(shards) => return shards.read(shards.find(name)?, MAX_IMAGE_FILE),
            #[cfg(feature = "parquet")]
            Store::Tables(tables) => tables.read(name)?,
        };
        ensure!(
            bytes.len() as u64 <= MAX_IMAGE_FILE,
            "{}: larger than {} MiB",
            self.describe(name),
            MAX_IMAGE_FILE >> 20
        );
        Ok(bytes)
    }
}

impl Zip {
    fn open(path: &Path) -> Result<Zip> {
        let about = || format!("{}: cannot be read", path.display());
        let mut file = open_file(path).with_context(about)?;
        let mut start = [0; 64];
        let count = file.read(&mut start).with_context(about)?;
        let archive = ZipArchive::new(BufReader::new(file)).with_context(|| {
            let kind = file_kind(&start[..count]).map_or(String::new(), |kind| format!("{kind}, "));
            format!("{}: {kind}neither a folder nor a zip", path.display())
        })?;
        // Of entries of one name the library has the last.
        let repeated = match archive.has_duplicate_names() {
            true => repeated(path, archive.central_directory_start()).with_context(about)?,
            false => HashSet::new(),
        };
        let mut numbers = HashMap::new();
        for number in 0..archive.len() {
            let entry = archive.by_index_data(number).with_context(about)?;
            let Ok(name) = entry.name() else { continue };
            let folder = name.ends_with(['/', '\\']);
            if let Some(name) = normal(&name).filter(|_| !folder) {
                let number = Some(number).filter(|_| !repeated.contains(entry.name_raw()));
                let known = numbers.entry(name);
                known.and_modify(|number| *number = None).or_insert(number);
            }
        }
        Ok(Zip { archive: Mutex::new(archive), numbers })
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        let number = self.numbers.get(name).context("not in the zip")?;
        let number = number.context("two entries of this name")?;
        let Ok(mut archive) = self.archive.lock() else {
            bail!("reading the zip failed before");
        };
        let entry = archive.by_index(number)?;
        let method = entry.compression();
        ensure!(
            method == CompressionMethod::Stored,
            "compressed ({method}); images gain nothing by it: pack them with `zip -0`"
        );
        let mut bytes = Vec::new();
        entry.take(MAX_IMAGE_FILE + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

/// The names that several entries of a zip have: the headers of its central directory (APPNOTE.TXT 4.3.12) from `start` on.
fn repeated(path: &Path, start: u64) -> std::io::Result<HashSet<Vec<u8>>> {
    let mut file = BufReader::new(open_file(path)?);
    file.seek(SeekFrom::Start(start))?;
    let (mut seen, mut header) = (HashMap::new(), [0; 46]);
    while file.read_exact(&mut header).is_ok() && header.starts_with(b"PK\x01\x02") {
        let [name, extra, comment] = [28, 30, 32].map(|at| u16::from_le_bytes([header[at], header[at + 1]]));
        let mut bytes = vec![0; name.into()];
        file.read_exact(&mut bytes)?;
        file.seek_relative(i64::from(extra) + i64::from(comment))?;
        *seen.entry(bytes).or_insert(0) += 1;
    }
    let several = seen.into_iter().filter(|(_, count)| *count > 1);
    Ok(several.map(|(name, _)| name).collect())
}

/// The first and last bytes of a file that lies in another from `at` on, all of a small one.
fn ends(mut file: impl Read + Seek, at: u64, size: u64) -> Result<Vec<u8>> {
    let last = size.saturating_sub(END).max(END.min(size));
    let mut bytes = Vec::new();
    for (from, until) in [(0, END.min(size)), (last, size)] {
        file.seek(SeekFrom::Start(at + from))?;
        (&mut file).take(until - from).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// What is left of an absolute path that leads into one of these folders.
fn within(path: &str, roots: &[PathBuf]) -> Option<String> {
    let path = Path::new(path);
    let real = path.canonicalize().unwrap_or_default();
    let mut left = roots.iter().flat_map(|root| [path.strip_prefix(root), real.strip_prefix(root)]);
    left.find_map(|left| Some(left.ok()?.to_str()?.to_string()))
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
