//! Measures a model on tasks: every figure with its interval, beside what is left of it without the images.

use super::generate::{Reply, distinct};
use super::metrics::Measure;
use super::pictures::Pictures;
use super::subject::{Ability, Subject};
use super::tasks::{self, Found, ImageAblation, Item, Kept, Name, Setup, Source, Task};
use crate::data::UnknownWords;
use crate::progress::Progress;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::cell::RefCell;
use std::collections::HashMap;
use std::path::PathBuf;

/// A task that is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
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

/// A task that is read, without what of it cannot be measured.
pub struct Ready {
    name: Name,
    task: Box<dyn Task>,
    pictures: Pictures,
    /// How its questions are put.
    prompts: Vec<String>,
    /// Items that were read.
    all: usize,
    /// The numbers among them of those that are measured.
    ids: Vec<usize>,
    unasked: Vec<Unasked>,
}

/// An item that cannot be measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unasked {
    /// The item's number.
    pub id: usize,
    /// Its first image's name.
    pub image: String,
    pub why: String,
}

/// What a task's figures rest on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Items {
    /// Items that were measured.
    pub measured: usize,
    /// Items that there are.
    pub of: usize,
    /// Those that could not be measured.
    pub not_asked: Vec<Unasked>,
    /// Answers that the model would have gone on with.
    pub cut_answers: usize,
    /// Texts longer than the model reads, which are compared without their ends.
    pub cut_texts: usize,
    /// Tokens of questions and expected answers.
    pub words: usize,
    /// Of these, words that are not in the vocabulary.
    pub unknown_words: usize,
    /// The same in words, with the most frequent of them.
    #[serde(skip)]
    pub unknown: Option<String>,
}

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
    /// The image's name, or the names of several.
    pub image: String,
    /// What the model is told before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Questions and answers before this one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<(String, String)>,
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
    pub name: Name,
    /// Its figures, the main ones first.
    pub figures: Vec<Figure>,
    /// What they rest on.
    pub items: Items,
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
            bail!("{}: this model cannot do it; it takes {}", name.text(), name.needs().needs());
        }
    }
    wanted.iter().map(|wanted| ready(subject, wanted).with_context(|| wanted.name.text())).collect()
}

fn ready(subject: &Subject, Wanted { name, source, images }: &Wanted) -> Result<Ready> {
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
    let mut task = tasks::open(*name, source, &pictures)?;
    let prompts = tasks::prompts(*name, source, task.items());
    let (kept, unasked) = check(subject, *name, task.items(), &pictures);
    let first = unasked.first().map_or(String::new(), |first| format!(", {}: {}", first.image, first.why));
    ensure!(unasked.len() < kept.keep.len(), "not one of {} items can be measured{first}", kept.keep.len());
    task.retain(&kept);
    Ok(Ready {
        name: *name,
        task,
        pictures,
        prompts,
        all: kept.keep.len(),
        ids: (0..kept.keep.len()).filter(|&i| kept.keep[i]).collect(),
        unasked,
    })
}

/// Which items can be measured, and why others cannot: their images are missing or damaged, or their questions are not what
/// the model takes.
fn check(subject: &Subject, name: Name, items: &[Item], pictures: &Pictures) -> (Kept, Vec<Unasked>) {
    let sound = items.iter().filter(|item| item.fault.is_none());
    let (names, _) = distinct(&sound.flat_map(Item::images).collect::<Vec<_>>());
    let digests = pictures.digests(&names, subject.processor());
    let digests: HashMap<&str, Result<u64>> = names.into_iter().zip(digests).collect();
    let fault = |item: &Item| {
        let images = || item.images().filter_map(|name| digests.get(name)?.as_ref().err());
        let asked = || match subject.room(item) {
            _ if name.needs() != Ability::Answer => None,
            Ok(0) => Some("no room for an answer: the question is as long as the model's longest text".into()),
            Ok(_) => None,
            Err(error) => Some(format!("{error:#}")),
        };
        let own = item.fault.clone();
        own.or_else(|| images().next().map(|error| format!("{error:#}"))).or_else(asked)
    };
    let (mut unasked, mut same, mut numbers) = (Vec::new(), Vec::new(), HashMap::new());
    let mut keep = Vec::with_capacity(items.len());
    for (id, item) in items.iter().enumerate() {
        let why = fault(item);
        keep.push(why.is_none());
        match why {
            Some(why) => unasked.push(Unasked { id, image: item.image.clone(), why }),
            None => {
                let pixels: Vec<u64> =
                    item.images().filter_map(|name| digests.get(name)?.as_ref().ok().copied()).collect();
                let number = same.len();
                same.push(*numbers.entry(pixels).or_insert(number));
            }
        }
    }
    (Kept { keep, same }, unasked)
}

impl Ready {
    /// How its questions are put, in a line; None where it asks none.
    pub fn asks(&self) -> Option<String> {
        let prompts = &self.prompts;
        let named = prompts.iter().map(|prompt| format!("{prompt:?}")).collect::<Vec<_>>();
        let later = self.task.items().iter().any(|item| !item.before.is_empty());
        let later = if later { ", after what came before in its conversation" } else { "" };
        match &named[..] {
            [] => None,
            [_] if prompts[0] == "{}" => Some(format!("{} asks each question as it is{later}", self.name.text())),
            named => Some(format!("{} asks {}{later}", self.name.text(), named.join(", "))),
        }
    }

    pub fn name(&self) -> Name {
        self.name
    }

    /// The texts around its questions.
    pub fn prompts(&self) -> &[String] {
        &self.prompts
    }
}

/// Measures one task in all views.
pub fn run(subject: &Subject, ready: &Ready, settings: &Settings) -> Result<Outcome> {
    let found = look(subject, ready, settings, ImageAblation::None)?;
    let (blank, without) = match settings.controls {
        true => (
            Some(look(subject, ready, settings, ImageAblation::Blank)?),
            Some(look(subject, ready, settings, ImageAblation::Removed)?),
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
        Figure { blank: value(&blank, &measure.name), text_only, shuffled, ..figure(measure, settings.seed) }
    });
    let said = |found: &Option<Found>, i: usize| found.as_ref().map(|found| found.answers[i].text.clone());
    let sample = |(i, item): (usize, &Item)| Sample {
        id: ready.ids[i],
        image: item.images().collect::<Vec<_>>().join(", "),
        system: item.system.clone(),
        before: item.before.clone(),
        question: item.question.clone(),
        expected: item.expected.clone(),
        answer: found.answers[i].text.clone(),
        score: found.scores[i],
        blank: said(&blank, i),
        without: said(&without, i),
    };
    Ok(Outcome {
        name: ready.name,
        figures: figures.collect(),
        items: rests_on(subject, ready, &found.answers)?,
        samples: ready.task.items().iter().enumerate().map(sample).collect(),
    })
}

/// What a task's figures rest on.
fn rests_on(subject: &Subject, ready: &Ready, answers: &[Reply]) -> Result<Items> {
    let texts = ready.task.texts();
    let words = UnknownWords::of(subject.tokenizer(), texts.iter().copied())?;
    let answers_questions = ready.name.needs() == Ability::Answer;
    let cut_texts = match subject.comparer() {
        Some(comparer) if !answers_questions => comparer.cut(&texts)?,
        _ => 0,
    };
    Ok(Items {
        measured: ready.ids.len(),
        of: ready.all,
        not_asked: ready.unasked.clone(),
        cut_answers: answers.iter().filter(|answer| answer.cut).count(),
        cut_texts,
        words: words.tokens,
        unknown_words: words.count(),
        unknown: words.message(),
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

fn look(subject: &Subject, ready: &Ready, settings: &Settings, ablation: ImageAblation) -> Result<Found> {
    let task = ready.name.text();
    let shown = match ablation {
        ImageAblation::None => task.clone(),
        ImageAblation::Blank => format!("{task}, blank"),
        ImageAblation::Removed if ready.name.needs() == Ability::Answer => format!("{task}, text only"),
        ImageAblation::Removed => format!("{task}, shuffled"),
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
        ablation,
    );
    if let (_, Some(progress)) = progress.into_inner() {
        progress.finish();
    }
    found.with_context(|| task)
}
