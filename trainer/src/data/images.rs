//! Images on disk, found by name in a folder, a zip or tar shards.

#[cfg(feature = "parquet")]
use super::parquet::Tables;
use super::shards::{Shards, is_pattern};
use anyhow::{Context, Result, anyhow, ensure};
use image::RgbImage;
use model::decode_image;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::Mutex;
use zip::{CompressionMethod, ZipArchive};

/// The largest image file accepted, in bytes.
const MAX_FILE: u64 = 64 << 20;

/// Where images are.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    store: Store,
}

#[derive(Debug)]
enum Store {
    Folder,
    Zip(Mutex<ZipArchive<BufReader<File>>>),
    Shards(Shards),
    #[cfg(feature = "parquet")]
    Tables(Tables),
}

impl ImageSource {
    /// A folder, a zip of stored (not compressed) entries, or tar archives as [`Shards::open`] names them, except by their
    /// folder; an image of theirs is called `shard-000.tar/cat.jpg`.
    ///
    /// # Errors
    /// When `path` is none of them, or cannot be read.
    pub fn open(path: &Path) -> Result<ImageSource> {
        #[cfg(feature = "parquet")]
        if path.extension().is_some_and(|ending| ending == "parquet") {
            return Ok(ImageSource::of_tables(path, Tables::open(path)?));
        }
        let store = if is_pattern(path) && !path.is_dir() {
            Store::Shards(Shards::open(path, |_, _| ())?)
        } else {
            let about = std::fs::metadata(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            match about.is_dir() {
                true => Store::Folder,
                false => {
                    let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
                    let archive = ZipArchive::new(BufReader::new(file));
                    let archive = archive.with_context(|| format!("{}: neither a folder nor a zip", path.display()))?;
                    Store::Zip(Mutex::new(archive))
                }
            }
        };
        Ok(ImageSource {
            path: path.to_owned(),
            store,
        })
    }

    /// Tar archives that are open already.
    pub fn of_shards(path: &Path, shards: Shards) -> ImageSource {
        ImageSource {
            path: path.to_owned(),
            store: Store::Shards(shards),
        }
    }

    /// Parquet files that are open already.
    #[cfg(feature = "parquet")]
    pub(super) fn of_tables(path: &Path, tables: Tables) -> ImageSource {
        ImageSource {
            path: path.to_owned(),
            store: Store::Tables(tables),
        }
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
        check_name(name).is_ok()
            && match &self.store {
                Store::Folder => self.path.join(name).is_file(),
                Store::Zip(archive) => archive
                    .lock()
                    .is_ok_and(|archive| archive.index_for_name(name).is_some()),
                Store::Shards(shards) => shards.find(name).is_some(),
            }
    }

    fn describe(&self, name: &str) -> String {
        match &self.store {
            Store::Shards(_) => name.to_string(),
            #[cfg(feature = "parquet")]
            Store::Tables(_) => name.to_string(),
            _ => self.path.join(name).display().to_string(),
        }
    }

    /// The bytes of the image called `name`.
    ///
    /// # Errors
    /// When the name leaves the source (`..`, absolute), the image is not there, or too large.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        check_name(name)?;
        let mut bytes = Vec::new();
        match &self.store {
            Store::Folder => {
                let file = File::open(self.path.join(name)).with_context(|| self.describe(name))?;
                ensure!(file.metadata()?.is_file(), "{}: not a file", self.describe(name));
                file.take(MAX_FILE + 1)
                    .read_to_end(&mut bytes)
                    .with_context(|| self.describe(name))?;
            }
            Store::Zip(archive) => {
                let mut archive = archive
                    .lock()
                    .map_err(|_| anyhow!("{}: reading failed before", self.path.display()))?;
                let entry = archive.by_name(name).with_context(|| self.describe(name))?;
                let method = entry.compression();
                ensure!(
                    method == CompressionMethod::Stored,
                    "{}: compressed ({method}); images gain nothing by it: pack them with `zip -0`",
                    self.describe(name)
                );
                entry
                    .take(MAX_FILE + 1)
                    .read_to_end(&mut bytes)
                    .with_context(|| self.describe(name))?;
            }
            Store::Shards(shards) => {
                let member = shards.find(name);
                let member = member.with_context(|| format!("{name}: not in {}", self.path.display()))?;
                return shards.read(member, MAX_FILE);
            }
            #[cfg(feature = "parquet")]
            Store::Tables(tables) => bytes = tables.read(name)?,
        }
        ensure!(
            bytes.len() as u64 <= MAX_FILE,
            "{}: larger than {} MiB",
            self.describe(name),
            MAX_FILE >> 20
        );
        Ok(bytes)
    }
}

/// Fails unless `name` stays within the folder it is relative to.
fn check_name(name: &str) -> Result<()> {
    let inside = Path::new(name)
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let plain = !name.is_empty() && !name.contains(['\\', '\0']) && !name.starts_with('/');
    let drive = name.as_bytes().get(1) == Some(&b':');
    ensure!(
        inside && plain && !drive,
        "`{}` is not a name within the image folder",
        name.escape_debug()
    );
    Ok(())
}

#[cfg(test)]
#[path = "images_tests.rs"]
mod tests;
