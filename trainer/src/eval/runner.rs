//! Measures a model on tasks: every figure with its interval, beside what is left of it without the images.

use super::metrics::Measure;
use super::pictures::Pictures;
use super::subject::{Ability, Subject};
use super::tasks::{self, Found, Item, Name, Setup, Source, Task, View};
use crate::progress::Progress;
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::cell::RefCell;
use std::path::PathBuf;

/// A task that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Which.
    pub name: Name,
    /// What it is read from.
    pub source: Source,
    /// The folder or zip of its images.
    pub images: Option<PathBuf>,
}

/// How tasks are gone through.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Items at once.
    pub batch_size: usize,
    /// The longest answer in tokens; None: as each task has it.
    pub max_tokens: Option<usize>,
    /// Drives the bootstrap.
    pub seed: u64,
    /// Whether the controls are run.
    pub controls: bool,
}

/// A task that is read and whose images are there.
pub struct Ready {
    name: Name,
    task: Box<dyn Task>,
    pictures: Pictures,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// Its name within the task.
    #[serde(skip)]
    pub name: String,
    /// What the model reaches.
    pub value: f64,
    /// Its 95 % interval.
    pub low: Option<f64>,
    /// Its upper end.
    pub high: Option<f64>,
    /// The same figure where every image is a blank one.
    pub blank: Option<f64>,
    /// The same without any image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text_only: Option<f64>,
    /// The same where every image is another item's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffled: Option<f64>,
    /// What guessing reaches.
    pub guess: Option<f64>,
    /// Items it rests on.
    pub items: usize,
}

/// One item with all that was said about it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The item's number.
    pub id: usize,
    /// The image's name.
    pub image: String,
    /// What was asked.
    pub question: String,
    /// What would be right.
    pub expected: String,
    /// What the model said.
    pub answer: String,
    /// How right that was.
    pub score: f64,
    /// What it said to a blank image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blank: Option<String>,
    /// What it said without the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without: Option<String>,
}

/// A measured task.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Which.
    pub name: Name,
    /// Its figures, the main ones first.
    pub figures: Vec<Figure>,
    /// Its items.
    pub samples: Vec<Sample>,
}

/// Reads all tasks, so that what is wrong with the last is known before the first is computed.
///
/// # Errors
/// When the model cannot do a task, or a task's files are missing or malformed.
pub fn prepare(subject: &Subject, wanted: &[Wanted]) -> Result<Vec<Ready>> {
    for Wanted { name, .. } in wanted {
        if !subject.can(name.needs()) {
            bail!(
                "{}: this model cannot do it; it takes {}",
                name.text(),
                name.needs().needs()
            );
        }
    }
    wanted
        .iter()
        .map(|wanted| ready(wanted).with_context(|| wanted.name.text()))
        .collect()
}

fn ready(Wanted { name, source, images }: &Wanted) -> Result<Ready> {
    let task = name.text();
    let Some(first) = source.data.first() else {
        bail!("what is it measured on? --data {task}=PATH");
    };
    let images = match (name, images) {
        // Its classes are the folders of its images.
        (Name::Zeroshot, _) => first,
        (_, Some(images)) => images,
        (_, None) => bail!("where are its images? --images {task}=DIR, or a zip"),
    };
    let pictures = Pictures::open(images)?;
    Ok(Ready {
        name: *name,
        task: tasks::open(*name, source, &pictures)?,
        pictures,
    })
}

/// Measures one task in all views.
///
/// # Errors
/// Those of the model, and damaged images.
pub fn run(subject: &Subject, ready: &Ready, settings: &Settings) -> Result<Outcome> {
    let found = look(subject, ready, settings, View::Seen)?;
    let (blank, without) = match settings.controls {
        true => (
            Some(look(subject, ready, settings, View::Blank)?),
            Some(look(subject, ready, settings, View::Without)?),
        ),
        false => (None, None),
    };
    let value = |found: &Option<Found>, name: &str| {
        let measure = found.as_ref()?.measures.iter().find(|measure| measure.name == name)?;
        Some(measure.value())
    };
    let figures = found.measures.iter().map(|measure| {
        let without = value(&without, &measure.name);
        let (text_only, shuffled) = match ready.name.needs() {
            Ability::Answer => (without, None),
            _ => (None, without),
        };
        Figure {
            blank: value(&blank, &measure.name),
            text_only,
            shuffled,
            ..figure(measure, settings.seed)
        }
    });
    let said = |found: &Option<Found>, i: usize| found.as_ref().map(|found| found.answers[i].clone());
    let sample = |(i, item): (usize, &Item)| Sample {
        id: i,
        image: item.image.clone(),
        question: item.question.clone(),
        expected: item.expected.clone(),
        answer: found.answers[i].clone(),
        score: found.scores[i],
        blank: said(&blank, i),
        without: said(&without, i),
    };
    Ok(Outcome {
        name: ready.name,
        figures: figures.collect(),
        samples: ready.task.items().iter().enumerate().map(sample).collect(),
    })
}

fn figure(measure: &Measure, seed: u64) -> Figure {
    let interval = measure.interval(seed);
    Figure {
        name: measure.name.clone(),
        value: measure.value(),
        low: interval.map(|interval| interval.low),
        high: interval.map(|interval| interval.high),
        blank: None,
        text_only: None,
        shuffled: None,
        guess: measure.guess,
        items: measure.items(),
    }
}

fn look(subject: &Subject, ready: &Ready, settings: &Settings, view: View) -> Result<Found> {
    let task = ready.name.text();
    let shown = match view {
        View::Seen => task.clone(),
        View::Blank => format!("{task}, blank"),
        View::Without if ready.name.needs() == Ability::Answer => format!("{task}, text only"),
        View::Without => format!("{task}, shuffled"),
    };
    let progress = RefCell::new((0, None::<Progress>));
    let found = ready.task.measure(
        &Setup {
            subject,
            pictures: &ready.pictures,
            batch_size: settings.batch_size,
            max_tokens: settings.max_tokens,
            progress: &|done, all| {
                let (before, shown_so_far) = &mut *progress.borrow_mut();
                let progress =
                    shown_so_far.get_or_insert_with(|| Progress::new(&shown, all.div_ceil(settings.batch_size), 0));
                progress.step(None, done - std::mem::replace(before, done));
            },
        },
        view,
    );
    if let (_, Some(progress)) = progress.into_inner() {
        progress.finish();
    }
    found.with_context(|| task)
}
