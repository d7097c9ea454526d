//! What models are measured on: one benchmark, one file, read as it was published.
//!
//! A task reads its items, has the model look at them in one [`View`] at a time, and makes figures of what it says.

mod caption;
mod captioned;
mod chair;
mod matching;
mod nlvr;
mod pope;
mod retrieval;
mod vqa;
mod vsr;
mod zeroshot;

use super::metrics::Measure;
use super::pictures::Pictures;
use super::subject::{Ability, Subject};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// The tasks by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Name {
    /// Is there such an object? Polling of objects that are there and that are not (Li et al. 2023).
    Pope,
    /// Is a statement about where things are true? (Liu et al. 2023)
    Vsr,
    /// Is a statement about a picture of three boxes true? (Suhr et al. 2017)
    Nlvr,
    /// Questions with short answers (Antol et al. 2015).
    Vqa,
    /// Captions, compared with those that people wrote: BLEU and CIDEr.
    Caption,
    /// Captions, searched for objects that are not there (Rohrbach et al. 2018).
    Chair,
    /// Finding the image of a caption and the caption of an image.
    Retrieval,
    /// Classes of images by their names (Radford et al. 2021).
    Zeroshot,
    /// Do an image and a caption belong together?
    Matching,
}

impl Name {
    /// As on the command line.
    pub fn text(self) -> String {
        self.to_possible_value()
            .map_or(String::new(), |value| value.get_name().to_string())
    }

    /// What it asks of a model.
    pub fn needs(self) -> Ability {
        match self {
            Name::Retrieval | Name::Zeroshot => Ability::Compare,
            Name::Matching => Ability::Match,
            _ => Ability::Answer,
        }
    }
}

/// What a task is read from.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Its files or folders.
    pub data: Vec<PathBuf>,
    /// How its questions are put; empty: as the task has it.
    pub prompts: Vec<String>,
    /// At most so many items of each file.
    pub limit: Option<usize>,
    /// Drives what is drawn at random.
    pub seed: u64,
}

impl Source {
    /// The one way of asking, with `{}` where a question stands; `usual` where none is given.
    fn prompt(&self, usual: &str) -> Result<String> {
        let prompt = self.prompts.first().map_or(usual, String::as_str);
        ensure!(
            self.prompts.len() < 2,
            "--prompt: one is enough; several are for zeroshot"
        );
        ensure!(
            prompt.contains("{}") || !usual.contains("{}"),
            "--prompt: `{prompt}` has no `{{}}`, the place of the question"
        );
        Ok(prompt.into())
    }
}

/// How the model looks at a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// At its images.
    Seen,
    /// At a grey image in place of each.
    Blank,
    /// At nothing, where it answers questions; at another item's image, where it compares.
    Without,
}

/// One item, as it is asked and logged.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// The image's name.
    pub image: String,
    /// What is asked or compared.
    pub question: String,
    /// What would be right.
    pub expected: String,
}

/// What came of one view.
pub struct Found {
    /// The figures.
    pub measures: Vec<Measure>,
    /// For each item, what the model said.
    pub answers: Vec<String>,
    /// For each item, how right that was.
    pub scores: Vec<f64>,
}

/// The model, the images and how they are gone through.
pub struct Setup<'a> {
    /// The model.
    pub subject: &'a Subject,
    /// The images.
    pub pictures: &'a Pictures,
    /// Items at once.
    pub batch_size: usize,
    /// The longest answer in tokens; None: as the task has it.
    pub max_tokens: Option<usize>,
    /// Told how many items are done, and of how many.
    pub progress: &'a dyn Fn(usize, usize),
}

/// A benchmark, read.
pub trait Task {
    /// Its items.
    fn items(&self) -> &[Item];

    /// Has the model look at all items, and measures.
    ///
    /// # Errors
    /// Those of the model and its images.
    fn measure(&self, setup: &Setup<'_>, view: View) -> Result<Found>;
}

/// Reads a task.
///
/// # Errors
/// When a file is missing or not in the task's format, or names an image that is not there.
pub fn open(name: Name, source: &Source, pictures: &Pictures) -> Result<Box<dyn Task>> {
    let task: Box<dyn Task> = match name {
        Name::Pope => Box::new(pope::Pope::open(source)?),
        Name::Vsr => Box::new(vsr::Vsr::open(source)?),
        Name::Nlvr => Box::new(nlvr::Nlvr::open(source, pictures)?),
        Name::Vqa => Box::new(vqa::Vqa::open(source, pictures)?),
        Name::Caption => Box::new(caption::Caption::open(source)?),
        Name::Chair => Box::new(chair::ChairTask::open(source)?),
        Name::Retrieval => Box::new(retrieval::Retrieval::open(source)?),
        Name::Zeroshot => Box::new(zeroshot::Zeroshot::open(source)?),
        Name::Matching => Box::new(matching::Matching::open(source)?),
    };
    for item in task.items() {
        ensure!(
            pictures.has(&item.image),
            "{}: no image `{}`, which {} names",
            pictures.path().display(),
            item.image,
            source
                .data
                .first()
                .map_or(String::new(), |path| path.display().to_string())
        );
    }
    Ok(task)
}

/// The only file of a task.
fn only(data: &[PathBuf]) -> Result<&Path> {
    ensure!(data.len() < 2, "{}: one file is enough", data[1].display());
    Ok(data.first().context("no file")?)
}

/// The items' clusters: those about the same image are in one.
fn by_image(items: &[Item]) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let number = |item| {
        let next = numbers.len();
        *numbers.entry(item).or_insert(next)
    };
    items.iter().map(|item| item.image.as_str()).map(number).collect()
}

/// 1 for right, 0 for wrong.
fn score(right: bool) -> f64 {
    f64::from(u8::from(right))
}

/// The share of the most frequent of some values.
fn majority<T: std::hash::Hash + Eq>(values: impl Iterator<Item = T>) -> f64 {
    let mut counts = HashMap::<T, usize>::new();
    values.for_each(|value| *counts.entry(value).or_default() += 1);
    let (most, all) = (
        counts.values().max().copied().unwrap_or(0),
        counts.values().sum::<usize>(),
    );
    most as f64 / all.max(1) as f64
}

#[cfg(test)]
#[path = "../tasks_tests.rs"]
mod tests;
