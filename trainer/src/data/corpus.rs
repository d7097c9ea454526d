//! Records with their images: what the training loops draw from.

use super::bad_records::{BadRecord, BadRecords};
use super::formats::{Ask, Format};
use super::images::ImageSource;
use super::passed_over::PassedOver;
use super::pictures::{Named, Pictures, decode, keeps};
use super::record::{Found, Record, Select, Turn, texts};
use super::screen::{Entry, Screen, Screened, Screening};
use super::source::{Conversation, Pair};
use anyhow::{Context, Error, Result, bail, ensure};
use image::RgbImage;
use model::ImageProcessor;
use sha2::{Digest, Sha256};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// One record and the places of its images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The record's id.
    pub id: String,
    /// Its line in the file; 0 where there are none.
    pub line: usize,
    /// Places in [`Corpus::images`]; at least one. Records may share an image.
    pub images: Vec<usize>,
    /// What the model is told before.
    pub system: Option<String>,
    /// At least one.
    pub turns: Vec<Turn>,
    /// All answers to the only turn that are as good as its own; empty where there is but one.
    pub captions: Vec<String>,
    /// What the image shows, where it was sorted by that.
    pub class: Option<String>,
}

impl Sample {
    /// Everything asked and said, one text after another.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        texts(self.system.as_ref(), &self.turns, &self.captions)
    }

    /// The record as it is looked at before the first step.
    fn entry(&self) -> Entry<'_> {
        Entry {
            line: self.line,
            id: &self.id,
            images: self.images.len(),
            system: self.system.as_deref(),
            turns: &self.turns,
            captions: &self.captions,
        }
    }

    /// Characters asked and said: what its length in tokens goes by.
    pub fn length(&self) -> usize {
        let turns = self.turns.iter().map(|turn| turn.question.len() + turn.answer.len());
        turns.sum()
    }
}

/// A data set.
#[derive(Debug)]
pub struct Corpus {
    /// Every usable record, in the set's order.
    pub samples: Vec<Sample>,
    pub images: Pictures,
    /// Records left out because they have no image.
    pub text_only: usize,
    /// Records left out because they are broken.
    pub bad: BadRecords,
    /// What is no record, and what of the good ones is left out.
    pub passed_over: PassedOver,
    /// What is lost of the records on their way into the model.
    pub lost: Screening,
    /// Where the records are.
    path: PathBuf,
    max_bad: f64,
    decode_failures: Mutex<DecodeFailures>,
}

/// Images found to be broken when they were asked for.
#[derive(Debug, Default)]
struct DecodeFailures {
    places: BTreeSet<usize>,
    bad: BadRecords,
}

/// Where a data set is and what of it is wanted.
#[derive(Debug, Clone)]
pub struct Files<'a> {
    /// How it is kept.
    pub format: Format,
    /// The records.
    pub path: &'a Path,
    /// The folder or archive of images; None where they come with the records.
    pub images: Option<&'a Path>,
    /// Which records.
    pub select: Select,
    /// What is asked about images that come with captions only.
    pub ask: Ask,
    /// The share of bad records above which loading fails.
    pub max_bad: f64,
    /// Whether images are kept in memory; None: where they take little of it.
    pub keep: Option<bool>,
    /// Whether a record may have several images, and have them anywhere in its questions.
    pub several: bool,
    /// Which part of the records: where a share is held out, the rest or that share.
    pub part: Option<Part>,
}

/// A part of a data set of which a share is held out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// The share that is held out, by images.
    pub share: f64,
    /// Whether this is it, or the rest.
    pub heldout: bool,
}

impl<'a> Files<'a> {
    /// All records of a set, as they are used where nothing else is said.
    pub fn new(format: Format, path: &'a Path, images: Option<&'a Path>) -> Files<'a> {
        Files {
            format,
            path,
            images,
            select: Select::default(),
            ask: Ask::default(),
            max_bad: 0.01,
            keep: None,
            several: false,
            part: None,
        }
    }

    /// The records that are wanted, and where their images are.
    ///
    /// # Errors
    /// When a file cannot be read, or no record is wanted.
    pub fn open(&self) -> Result<(Found, ImageSource)> {
        let (mut found, source) = self.format.open(self.path, self.images, &self.select, &self.ask)?;
        if let Some(part) = self.part {
            let took = part.take(&mut found);
            took.with_context(|| format!("data.heldout_share: {}", self.path.display()))?;
        }
        Ok((found, source))
    }
}

impl Corpus {
    /// Reads the records, and brings every image they name to the processor's size, at once or whenever it is asked for.
    ///
    /// # Errors
    /// A file that cannot be read, too many bad records, no usable record, or images that do not fit in memory.
    pub fn load(files: &Files<'_>, processor: &ImageProcessor) -> Result<Corpus> {
        let (mut found, source) = files.open()?;
        if !files.several {
            refuse_several(&mut found, files.path);
        }
        let (names, index) = names(&found.records);
        let keep = keeps(files.keep, names.len(), processor.size).with_context(|| files.path.display().to_string())?;
        let images = match keep {
            true => decode(&source, processor, &names),
            false => Vec::new(),
        };
        let records = found.records.len() + found.bad.count;
        let mut corpus = assemble(files, found, &index, images);
        if !keep {
            corpus.images = Pictures::Named(Box::new(Named { names, source, processor: processor.clone() }));
        }
        corpus.bad.check(records, files.max_bad)?;
        let name = files.path.display();
        ensure!(!corpus.samples.is_empty(), "{name}: not one usable record");
        Ok(corpus)
    }

    /// Leaves out what `screen` finds to be of no use, and keeps what is lost of the rest.
    ///
    /// # Errors
    /// When too many records are bad, or none is left.
    pub fn screen(&mut self, screen: &Screen<'_>) -> Result<()> {
        let records = self.samples.len() + self.bad.count;
        let entries: Vec<Entry<'_>> = self.samples.iter().map(Sample::entry).collect();
        let Screened { kept, bad, lost } = screen.all(&self.path, &entries)?;
        if !kept.contains(&true) {
            screen.show(&entries);
        }
        let mut kept = kept.into_iter();
        self.samples.retain(|_| kept.next().unwrap_or_default());
        self.bad.append(bad);
        self.lost = lost;
        self.bad.check(records, self.max_bad)?;
        let lines = self.lost.lines().join("\n");
        ensure!(!self.samples.is_empty(), "{}: not one record is left to train on\n{lines}", self.path.display());
        Ok(())
    }

    pub fn pictures(&self, sample: &Sample) -> Result<Vec<RgbImage>> {
        sample.images.iter().map(|&place| self.images.get(place)).collect()
    }

    /// The sample at a place with its number and its images, or where they are broken the next one whose images can be read.
    ///
    /// # Errors
    /// When too many are broken, or all.
    pub fn readable(&self, place: usize) -> Result<(usize, &Sample, Vec<RgbImage>)> {
        for number in (place..self.samples.len()).chain(0..place.min(self.samples.len())) {
            let sample = &self.samples[number];
            match self.pictures(sample) {
                Ok(images) => return Ok((number, sample, images)),
                Err(error) => self.add_broken(sample, &error)?,
            }
        }
        bail!("{}: not one image of the data set can be read", self.path.display())
    }

    /// A sample's first image.
    pub fn picture(&self, sample: &Sample) -> Result<RgbImage> {
        self.images.get(sample.images.first().copied().unwrap_or(usize::MAX))
    }

    /// A sample as a pair of image and caption: its first answer.
    pub fn pair(&self, sample: &Sample) -> Result<Pair> {
        Ok(Pair {
            image: self.picture(sample)?,
            caption: sample.turns.first().map(|turn| turn.answer.clone()).unwrap_or_default(),
            others: sample.captions.clone(),
            scene: None,
        })
    }

    pub fn conversation(&self, sample: &Sample) -> Result<Conversation> {
        let turns = sample.turns.iter();
        Ok(Conversation {
            images: self.pictures(sample)?,
            places: sample.images.clone(),
            system: sample.system.clone(),
            turns: turns.map(|turn| (turn.question.clone(), turn.answer.clone())).collect(),
        })
    }

    /// Where the records are.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is hashed of the records, how many they are, and the hash: everything they say, and which images they show.
    pub fn hash_records(&self) -> (&'static str, String, String) {
        let mut hash = Sha256::new();
        for Sample { id, images, system, turns, captions, class, .. } in &self.samples {
            hash.update(format!("{:?}", (id, images, system, turns, captions, class)));
        }
        ("records", format!("{} records", self.samples.len()), hex(hash))
    }

    /// The same of the images: their pixels where they are kept, their files' names, sizes and ends otherwise.
    pub fn hash_images(&self) -> (&'static str, String, String) {
        let (of, hashes) = self.images.hashes();
        let mut hash = Sha256::new();
        hashes.iter().for_each(|each| hash.update(each));
        (of, format!("{} images", hashes.len()), hex(hash))
    }

    /// Counts a sample whose images cannot be read, and names it on the terminal if it is among the first.
    ///
    /// # Errors
    /// When too many are broken.
    fn add_broken(&self, sample: &Sample, error: &Error) -> Result<()> {
        let mut decode_failures = self.decode_failures.lock().unwrap_or_else(PoisonError::into_inner);
        if sample.images.iter().all(|place| !decode_failures.places.insert(*place)) {
            return Ok(());
        }
        let bad = self.bad_record(sample, error);
        if decode_failures.bad.first.len() < super::bad_records::NAMED {
            errln!("left out: {bad}");
        }
        decode_failures.bad.add(bad);
        let all = BadRecords { count: decode_failures.bad.count + self.bad.count, ..decode_failures.bad.clone() };
        all.check(self.samples.len() + self.bad.count, self.max_bad)
    }

    /// A sample that cannot be used, and why.
    pub fn bad_record(&self, sample: &Sample, error: &Error) -> BadRecord {
        bad_image(&self.path, sample.line, &sample.id, format!("{error:#}"))
    }

    /// Images found to be broken when they were asked for: another sample took the place of theirs.
    pub fn broken(&self) -> BadRecords {
        self.decode_failures.lock().unwrap_or_else(PoisonError::into_inner).bad.clone()
    }

    /// One line on what was read and what was left out, and the first bad records if there are any.
    pub fn summary(&self) -> String {
        let mut text = format!("{} conversations, {} images", self.samples.len(), self.images.len());
        if matches!(self.images, Pictures::Named(_)) {
            text += " decoded when needed";
        }
        if self.text_only > 0 {
            text += &format!(", {} without an image left out", self.text_only);
        }
        if self.bad.count > 0 {
            text += &format!(", {} bad left out:\n{}", self.bad.count, self.bad.list());
        }
        for line in self.passed_over.lines().chain(self.lost.lines()) {
            text += &format!("\n  {line}");
        }
        text
    }
}

pub(super) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The distinct names of images, in order, and the place of each.
fn names(records: &[Record]) -> (Vec<String>, HashMap<String, usize>) {
    let (mut names, mut index) = (Vec::new(), HashMap::new());
    for name in records.iter().flat_map(|record| &record.content.images) {
        if !index.contains_key(name) {
            index.insert(name.clone(), names.len());
            names.push(name.clone());
        }
    }
    (names, index)
}

/// Counts records with several images, or with one that stands in a later question, as bad. Where in the first one it stands
/// is all the same to models that take it in front.
fn refuse_several(found: &mut Found, file: &Path) {
    let bad = &mut found.bad;
    found.records.retain(|record| {
        let content = &record.content;
        let mut later = content.turns.iter().skip(1);
        let later = later.any(|turn| turn.question.contains(super::record::MARK));
        if content.images.len() == 1 && !later {
            return true;
        }
        let message = match content.images.len() {
            1 => "stands in a later question; this run takes it in front of the first one only".into(),
            count => format!("{count} images; this run takes one"),
        };
        let why = "several, anywhere in a conversation, take a model with an image token, no [phase1] and no \
                   phase2.independent_turns";
        bad.add(bad_image(file, record.line, &record.id, format!("{message} ({why})")));
        false
    });
}

fn bad_image(file: &Path, line: usize, id: &str, message: String) -> BadRecord {
    BadRecord { file: file.to_owned(), line, id: Some(id.to_owned()), field: "image".into(), message }
}

/// Joins records with their images; a record with one that failed is a bad one. `decoded` is empty where none are yet.
fn assemble(
    files: &Files<'_>,
    found: Found,
    index: &HashMap<String, usize>,
    decoded: Vec<Result<RgbImage, String>>,
) -> Corpus {
    let mut kept = Vec::new();
    let places: Vec<Result<usize, String>> = decoded
        .into_iter()
        .map(|image| {
            kept.push(image?);
            Ok(kept.len() - 1)
        })
        .collect();
    let (mut samples, mut bad) = (Vec::new(), found.bad);
    for Record { line, id, content, .. } in found.records {
        let place = |name: &String| {
            let place = index.get(name).copied().unwrap_or(usize::MAX);
            places.get(place).cloned().unwrap_or(Ok(place))
        };
        match content.images.iter().map(place).collect() {
            Ok(images) => samples.push(Sample {
                id,
                line,
                images,
                system: content.system,
                turns: content.turns,
                captions: content.captions,
                class: content.class,
            }),
            Err(message) => bad.add(bad_image(files.path, line, &id, message)),
        }
    }
    Corpus {
        samples,
        images: Pictures::Kept(kept),
        text_only: found.text_only,
        bad,
        passed_over: found.passed_over,
        path: files.path.to_owned(),
        lost: Screening::default(),
        max_bad: files.max_bad,
        decode_failures: Mutex::default(),
    }
}

#[cfg(test)]
#[path = "corpus_tests.rs"]
mod tests;
