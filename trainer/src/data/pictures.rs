//! The images of a data set at the model's size: kept in memory where they take little of it, otherwise read and decoded
//! whenever they are asked for.

use super::images::ImageSource;
use super::survey::pixels;
use crate::memory;
use anyhow::{Context, Result, ensure};
use image::RgbImage;
use model::ImageProcessor;
use rayon::prelude::*;

/// Images are kept by themselves up to this part of the memory that is free.
const KEPT_PART: u64 = 4;

/// What is hashed of images in memory, and of those that are decoded when needed.
pub(crate) const IMAGE_HASHES: [&str; 2] =
    ["images by their pixels", "images by the names, sizes, starts and ends of their files"];

/// Images by place, each `(side, side)`, 8 bits a channel.
#[derive(Debug)]
pub enum Pictures {
    /// All of them, decoded.
    Kept(Vec<RgbImage>),
    /// Where they are.
    Named(Box<Named>),
}

/// Images that are decoded when they are asked for.
#[derive(Debug)]
pub struct Named {
    pub names: Vec<String>,
    /// Folder or archive.
    pub source: ImageSource,
    /// What brings them to the model's size.
    pub processor: ImageProcessor,
}

impl Pictures {
    pub fn len(&self) -> usize {
        match self {
            Pictures::Kept(images) => images.len(),
            Pictures::Named(named) => named.names.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is hashed of each image, and the hashes: pixels of those in memory, [`ImageSource::fingerprint`] otherwise.
    pub(super) fn hashes(&self) -> (&'static str, Vec<[u8; 32]>) {
        match self {
            Pictures::Kept(images) => (IMAGE_HASHES[0], images.par_iter().map(pixels).collect()),
            Pictures::Named(named) => {
                // One that cannot be read has none.
                let hash = |name: &String| named.source.fingerprint(name).unwrap_or_default();
                (IMAGE_HASHES[1], named.names.par_iter().map(hash).collect())
            }
        }
    }

    /// One of them. May be called from several threads at once.
    ///
    /// # Errors
    /// When there is no such place, or the image cannot be read.
    pub fn get(&self, place: usize) -> Result<RgbImage> {
        let missing = || format!("no image at place {place} of {}", self.len());
        match self {
            Pictures::Kept(images) => images.get(place).cloned().with_context(missing),
            Pictures::Named(named) => {
                let name = named.names.get(place).with_context(missing)?;
                square(&named.source, &named.processor, name)
            }
        }
    }
}

fn square(source: &ImageSource, processor: &ImageProcessor, name: &str) -> Result<RgbImage> {
    Ok(processor.square(&source.load(name)?)?)
}

/// All images, decoded on all threads; what is wrong with those that cannot be.
pub(super) fn decode(
    source: &ImageSource,
    processor: &ImageProcessor,
    names: &[String],
) -> Vec<Result<RgbImage, String>> {
    let decoded = names.par_iter().map(|name| square(source, processor, name));
    decoded.map(|image| image.map_err(|error| format!("{error:#}"))).collect()
}

/// Whether `count` images of `side` are to be kept: as `wanted`, or where they take a small part of the free memory.
///
/// # Errors
/// When they are to be kept and do not fit.
pub(super) fn keeps(wanted: Option<bool>, count: usize, side: usize) -> Result<bool> {
    let need = (count as u64).saturating_mul((side * side * 3) as u64);
    let free = memory::available().unwrap_or(u64::MAX);
    match wanted {
        Some(true) => ensure!(
            need < free,
            "{count} images at {side} x {side} take {}, but only {} is free; leave out data.keep and they are decoded when \
             they are needed",
            memory::size(need),
            memory::size(free)
        ),
        Some(false) => return Ok(false),
        None => return Ok(need <= free / KEPT_PART),
    }
    Ok(true)
}
