//! Images of a benchmark, loaded as they are needed.

use crate::data::images::ImageSource;
use anyhow::{Result, bail, ensure};
use model::ImageProcessor;
use rayon::prelude::*;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A folder, a zip or tar shards of images.
#[derive(Debug)]
pub struct Pictures {
    path: PathBuf,
    source: ImageSource,
    /// Images by their file names.
    by_file: OnceLock<HashMap<String, Vec<String>>>,
}

impl Pictures {
    /// Opens images wherever they are.
    pub fn open(path: &Path) -> Result<Pictures> {
        Ok(Pictures { path: path.to_owned(), source: ImageSource::open(path)?, by_file: OnceLock::new() })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an image of this name.
    pub fn has(&self, name: &str) -> bool {
        self.source.has(name)
    }

    /// The image whose file has this name, in whatever folder; none where there is none.
    ///
    /// # Errors
    /// When the folders cannot be read, or several have one.
    pub fn find(&self, file: &str) -> Result<Option<String>> {
        let by_file = match self.by_file.get() {
            Some(known) => known,
            None => {
                let mut found = HashMap::<String, Vec<String>>::new();
                for name in self.source.names()? {
                    let file = name.rsplit('/').next().unwrap_or_default().to_string();
                    found.entry(file).or_default().push(name);
                }
                self.by_file.get_or_init(|| found)
            }
        };
        match by_file.get(file).map(Vec::as_slice) {
            None => Ok(None),
            Some([one]) => Ok(Some(one.clone())),
            Some(several) => {
                let mut several = several.to_vec();
                several.sort();
                bail!("{}: `{file}` is in several folders: {}", self.path.display(), several.join(", "))
            }
        }
    }

    /// What tells images by name apart at the size of a processor: equal for equal pixels. Or why one cannot be read.
    pub fn digests(&self, names: &[&str], processor: &ImageProcessor) -> Vec<Result<u64>> {
        let digest = |name: &&str| {
            ensure!(self.has(name), "no image `{name}` in {}", self.path.display());
            let mut hasher = DefaultHasher::new();
            processor.bytes([&self.source.load(name)?])?.hash(&mut hasher);
            Ok(hasher.finish())
        };
        names.par_iter().map(digest).collect()
    }

    /// Images by name at the size of a processor, each (size, size, 3): decoded side by side, and only so many of them are
    /// in memory as large as they come.
    ///
    /// # Errors
    /// Names the first that is missing or damaged.
    pub fn pixels(&self, names: &[&str], processor: &ImageProcessor) -> Result<Vec<Vec<u8>>> {
        let pixels = |name: &&str| Ok(processor.bytes([&self.source.load(name)?])?);
        names.par_iter().map(pixels).collect()
    }
}
