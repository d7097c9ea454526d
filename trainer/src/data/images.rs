//! Images on disk, found by name in a folder or a zip.

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
    /// None: `path` is a folder.
    archive: Option<Mutex<ZipArchive<BufReader<File>>>>,
}

impl ImageSource {
    /// A folder, or a zip of stored (not compressed) entries.
    ///
    /// # Errors
    /// When `path` is neither, or cannot be read.
    pub fn open(path: &Path) -> Result<ImageSource> {
        let about = std::fs::metadata(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let archive = if about.is_dir() {
            None
        } else {
            let file = File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            let archive = ZipArchive::new(BufReader::new(file))
                .with_context(|| format!("{}: neither a folder nor a zip", path.display()))?;
            Some(Mutex::new(archive))
        };
        Ok(ImageSource {
            path: path.to_owned(),
            archive,
        })
    }

    /// The decoded image called `name`, `(height, width)` as in the file.
    ///
    /// # Errors
    /// When the name leaves the source (`..`, absolute), the image is not there, or [`decode_image`] refuses it.
    pub fn load(&self, name: &str) -> Result<RgbImage> {
        decode_image(&self.read(name)?).with_context(|| self.describe(name))
    }

    fn describe(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }

    fn read(&self, name: &str) -> Result<Vec<u8>> {
        check_name(name)?;
        let mut bytes = Vec::new();
        match &self.archive {
            None => {
                let file = File::open(self.path.join(name)).with_context(|| self.describe(name))?;
                ensure!(file.metadata()?.is_file(), "{}: not a file", self.describe(name));
                file.take(MAX_FILE + 1)
                    .read_to_end(&mut bytes)
                    .with_context(|| self.describe(name))?;
            }
            Some(archive) => {
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
