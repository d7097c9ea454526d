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

use super::generate::Reply;
use super::metrics::Measure;
use super::pictures::Pictures;
use super::records::Unread;
use super::subject::{Ability, Subject};
use super::training_questions::TrainingQuestions;
use crate::data::record::{Content, MARK, Turn};
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
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_string())
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
    /// How the model was asked in training, where that is known.
    pub trained: TrainingQuestions,
    /// At most so many items of each file.
    pub limit: Option<usize>,
    /// Drives what is drawn at random.
    pub seed: u64,
}

impl Source {
    /// The one way of asking, with `{}` where a question stands; `usual` where none is given.
    fn prompt(&self, usual: &str) -> Result<String> {
        let prompt = self.prompts.first().map_or(usual, String::as_str);
        ensure!(self.prompts.len() < 2, "--prompt: one is enough; several are for zeroshot");
        ensure!(
            prompt.contains("{}") || !usual.contains("{}"),
            "--prompt: `{prompt}` has no `{{}}`, the place of the question"
        );
        Ok(prompt.into())
    }
}

/// How the model looks at a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageAblation {
    /// At its images.
    None,
    /// At a grey image in place of each.
    Blank,
    /// At nothing, where it answers questions; at another item's image, where it compares.
    Removed,
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
    /// Images behind the first, where the question is about several.
    pub more_images: Vec<String>,
    /// What the model is told before.
    pub system: Option<String>,
    /// Questions and answers before this one.
    pub before: Vec<(String, String)>,
    /// Whether the record shows its images only after this question.
    pub shown_later: bool,
    /// Why it cannot be asked.
    pub fault: Option<String>,
}

impl Item {
    /// The names of its images.
    pub fn images(&self) -> impl Iterator<Item = &str> {
        [&self.image].into_iter().chain(&self.more_images).map(String::as_str)
    }

    /// In the place of a record that cannot be read.
    fn unread(Unread { place, why }: Unread) -> Item {
        Item { image: place, fault: Some(why), ..Item::default() }
    }

    /// Question number `turn` of a record, after what came before it unless the model was trained without.
    fn of_record(content: &Content, turn: usize, independent: bool) -> Item {
        let first = if independent { turn } else { 0 };
        let before = content.turns[first..turn].iter();
        let shows = |turns: &[Turn]| turns.iter().any(|turn| turn.question.contains(MARK));
        let mut images = content.images.iter().cloned();
        Item {
            image: images.next().unwrap_or_default(),
            more_images: images.collect(),
            question: content.turns[turn].question.clone(),
            expected: content.turns[turn].answer.clone(),
            system: content.system.clone(),
            before: before.map(|turn| (turn.question.clone(), turn.answer.clone())).collect(),
            shown_later: !independent && shows(&content.turns) && !shows(&content.turns[..=turn]),
            fault: content.images.is_empty().then(|| "no image in the record".into()),
        }
    }
}

/// A question of a line about one image, with that image in front of it wherever its mark is.
fn unmarked(question: &str) -> String {
    match question.matches(MARK).count() {
        1 => question.replace(MARK, "").trim().to_string(),
        _ => question.to_string(),
    }
}

/// What came of one view.
pub struct Found {
    /// The figures.
    pub measures: Vec<Measure>,
    /// For each item, what the model said.
    pub answers: Vec<Reply>,
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

/// Which items of a task can be measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// For each item, whether it can.
    pub keep: Vec<bool>,
    /// For each item that can, the first with the very same image.
    pub same: Vec<usize>,
}

impl Kept {
    /// Those of some values, one an item, that stay.
    fn select<T>(&self, values: &mut Vec<T>) {
        let mut keep = self.keep.iter();
        values.retain(|_| keep.next().copied().unwrap_or(true));
    }
}

/// What parts several answers that are all right.
pub const SEVERAL: &str = " | ";

/// A benchmark, read.
pub trait Task {
    fn items(&self) -> &[Item];

    /// Leaves out items that cannot be measured.
    fn retain(&mut self, kept: &Kept);

    /// What the model reads and is to say.
    fn texts(&self) -> Vec<&str> {
        let texts = self.items().iter().flat_map(|item| {
            let before = item.before.iter().flat_map(|(question, answer)| [question, answer]);
            let asked = item.system.iter().chain(before).chain([&item.question]);
            asked.map(String::as_str).chain(item.expected.split(SEVERAL))
        });
        texts.collect()
    }

    /// Has the model look at all items, and measures.
    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found>;
}

/// Reads a task.
///
/// # Errors
/// When a file is missing or not in the task's format. An item whose images are not there is read; it cannot be asked.
pub fn open(name: Name, source: &Source, pictures: &Pictures) -> Result<Box<dyn Task>> {
    Ok(match name {
        Name::Pope => Box::new(pope::Pope::open(source)?),
        Name::Vsr => Box::new(vsr::Vsr::open(source)?),
        Name::Nlvr => Box::new(nlvr::Nlvr::open(source, pictures)?),
        Name::Vqa => Box::new(vqa::Vqa::open(source, pictures)?),
        Name::Caption => Box::new(caption::Caption::open(source)?),
        Name::Chair => Box::new(chair::ChairTask::open(source)?),
        Name::Retrieval => Box::new(retrieval::Retrieval::open(source)?),
        Name::Zeroshot => Box::new(zeroshot::Zeroshot::open(source)?),
        Name::Matching => Box::new(matching::Matching::open(source)?),
    })
}

/// How a task's questions are put: the texts around each, with `{}` where it stands.
pub fn prompts(name: Name, source: &Source, items: &[Item]) -> Vec<String> {
    /// Questions that are named.
    const NAMED: usize = 5;
    let or = |usual: &str| match source.prompts.is_empty() {
        true => vec![usual.into()],
        false => source.prompts.clone(),
    };
    match name {
        Name::Pope | Name::Vqa => or("{}"),
        Name::Vsr | Name::Nlvr => or(vsr::PROMPT),
        Name::Zeroshot => zeroshot::prompts(source),
        Name::Retrieval | Name::Matching => Vec::new(),
        Name::Caption | Name::Chair => {
            let mut found: Vec<String> = Vec::new();
            for item in items {
                if found.len() < NAMED && !found.contains(&item.question) {
                    found.push(item.question.clone());
                }
            }
            found
        }
    }
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

#[cfg(test)]
#[path = "../tasks_tests.rs"]
mod tests;
