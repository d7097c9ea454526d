//! Images of a benchmark, loaded as they are needed.

use crate::data::images::ImageSource;
use anyhow::{Context, Result};
use image::RgbImage;
use model::ImageProcessor;
use rayon::prelude::*;
use std::collections::HashSet;
use std::fs::File;
use std::io::BufReader;
use std::path::{Component, Path, PathBuf};
use zip::ZipArchive;

/// A folder or a zip of images.
#[derive(Debug)]
pub struct Pictures {
    path: PathBuf,
    source: ImageSource,
    /// What a zip holds; None: a folder.
    names: Option<HashSet<String>>,
}

impl Pictures {
    /// Opens a folder or a zip of stored entries.
    ///
    /// # Errors
    /// As [`ImageSource::open`].
    pub fn open(path: &Path) -> Result<Pictures> {
        let source = ImageSource::open(path)?;
        let names = match path.is_file() {
            true => Some(listed(path).with_context(|| format!("{}: cannot be read", path.display()))?),
            false => None,
        };
        Ok(Pictures {
            path: path.to_owned(),
            source,
            names,
        })
    }

    /// Where they are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is an image of this name.
    pub fn has(&self, name: &str) -> bool {
        let within = Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        match &self.names {
            Some(names) => names.contains(name),
            None => within && self.path.join(name).is_file(),
        }
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

fn listed(path: &Path) -> Result<HashSet<String>> {
    let archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    let names = archive.file_names();
    Ok(names
        .map(|name| Ok(name?.into_owned()))
        .collect::<Result<_, zip::result::ZipError>>()?)
}

/// A grey image: what is left to answer by when there is nothing to see.
pub fn blank(processor: &ImageProcessor) -> RgbImage {
    let size = processor.size as u32;
    RgbImage::from_pixel(size, size, image::Rgb([64; 3]))
}
