//! Images of a benchmark, loaded as they are needed.

use crate::data::images::ImageSource;
use anyhow::Result;
use model::ImageProcessor;
use rayon::prelude::*;
use std::path::{Path, PathBuf};

/// A folder, a zip or tar shards of images.
#[derive(Debug)]
pub struct Pictures {
    path: PathBuf,
    source: ImageSource,
}

impl Pictures {
    /// Opens images wherever they are.
    ///
    /// # Errors
    /// As [`ImageSource::open`].
    pub fn open(path: &Path) -> Result<Pictures> {
        Ok(Pictures {
            path: path.to_owned(),
            source: ImageSource::open(path)?,
        })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an image of this name.
    pub fn has(&self, name: &str) -> bool {
        self.source.has(name)
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
