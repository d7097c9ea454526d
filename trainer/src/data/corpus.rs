//! Conversations with their images in memory: what the training loops draw from.

use super::bad_records::{BadRecord, BadRecords};
use super::images::ImageSource;
use super::llava::{self, Record, Select, Turn};
use crate::memory;
use anyhow::{Context, Result, ensure};
use image::RgbImage;
use model::ImageProcessor;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// One conversation and the index of its image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The record's id.
    pub id: String,
    /// Index into [`Corpus::images`]; records may share an image.
    pub image: usize,
    /// At least one.
    pub turns: Vec<Turn>,
}

/// A data set, decoded and resized once.
#[derive(Debug)]
pub struct Corpus {
    /// Every usable conversation, in the file's order.
    pub samples: Vec<Sample>,
    /// The images, each `(side, side)`, 8 bits a channel.
    pub images: Vec<RgbImage>,
    /// Records left out because they have no image.
    pub text_only: usize,
    /// Records left out because they are broken.
    pub bad: BadRecords,
}

/// Where a data set is and what of it is wanted.
#[derive(Debug, Clone)]
pub struct Files<'a> {
    /// The conversations.
    pub conversations: &'a Path,
    /// The folder or zip of images.
    pub images: &'a Path,
    /// Which records.
    pub select: Select,
    /// The share of bad records above which loading fails.
    pub max_bad: f64,
}

impl Corpus {
    /// Reads conversations, then decodes every image they name and brings it to the processor's size.
    ///
    /// # Errors
    /// A file that cannot be read, too many bad records, no usable record, or images that do not fit in memory.
    pub fn load(files: &Files<'_>, processor: &ImageProcessor) -> Result<Corpus> {
        let source = ImageSource::open(files.images)?;
        let found = llava::read(files.conversations, &files.select)?;
        let mut index = HashMap::new();
        let mut names = Vec::new();
        for record in &found.records {
            index.entry(record.image.as_str()).or_insert_with(|| {
                names.push(record.image.as_str());
                names.len() - 1
            });
        }
        check_memory(names.len(), processor.size).with_context(|| files.images.display().to_string())?;
        let decoded: Vec<Result<RgbImage, String>> = names
            .par_iter()
            .map(|name| {
                let square = source.load(name).and_then(|image| Ok(processor.square(&image)?));
                square.map_err(|error| format!("{error:#}"))
            })
            .collect();
        let corpus = assemble(files.conversations, &found.records, &index, decoded, found.bad.clone());
        let records = found.records.len() + found.bad.count;
        corpus.bad.check(records, files.max_bad)?;
        ensure!(
            !corpus.samples.is_empty(),
            "{}: not one usable record",
            files.conversations.display()
        );
        Ok(Corpus {
            text_only: found.text_only,
            ..corpus
        })
    }

    /// One line on what was read and what was left out, and the first bad records if there are any.
    pub fn summary(&self) -> String {
        let mut text = format!("{} conversations, {} images", self.samples.len(), self.images.len());
        if self.text_only > 0 {
            text += &format!(", {} without an image left out", self.text_only);
        }
        if self.bad.count > 0 {
            text += &format!(", {} bad left out:\n{}", self.bad.count, self.bad.list());
        }
        text
    }
}

/// Joins records with their decoded images; a record whose image failed is a bad one.
fn assemble(
    file: &Path,
    records: &[Record],
    index: &HashMap<&str, usize>,
    decoded: Vec<Result<RgbImage, String>>,
    mut bad: BadRecords,
) -> Corpus {
    let mut images = Vec::new();
    let places: Vec<Result<usize, String>> = decoded
        .into_iter()
        .map(|image| {
            images.push(image?);
            Ok(images.len() - 1)
        })
        .collect();
    let mut samples = Vec::new();
    for record in records {
        match &places[index[record.image.as_str()]] {
            Ok(image) => samples.push(Sample {
                id: record.id.clone(),
                image: *image,
                turns: record.turns.clone(),
            }),
            Err(message) => bad.add(BadRecord {
                file: file.to_owned(),
                line: record.line,
                id: Some(record.id.clone()),
                field: "image".into(),
                message: message.clone(),
            }),
        }
    }
    Corpus {
        samples,
        images,
        text_only: 0,
        bad,
    }
}

/// Fails when `count` images of `side` would take more than the memory that is free.
fn check_memory(count: usize, side: usize) -> Result<()> {
    let need = (count * side * side * 3) as u64;
    let free = memory::available().unwrap_or(u64::MAX);
    ensure!(
        need < free,
        "{count} images at {side} x {side} take {}, but only {} is free; a smaller model.vision.image_size or \
         data.max_samples needs less",
        memory::size(need),
        memory::size(free)
    );
    Ok(())
}

#[cfg(test)]
#[path = "corpus_tests.rs"]
mod tests;
