//! One record of a data set, whatever format it was kept in.

use super::bad_records::BadRecords;
use super::passed_over::PassedOver;
use super::screen::Entry;
use std::ops::Range;

/// The mark for an image in a question.
pub const MARK: &str = "<image>";

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What is asked. Without the mark `<image>`, the record's only image stands in front of the first question; otherwise
    /// each mark is the place of one image.
    pub question: String,
    /// What the model is to say.
    pub answer: String,
}

/// What a record says and shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The images' names as written, in the order of their marks.
    pub images: Vec<String>,
    /// What the model is told before.
    pub system: Option<String>,
    /// At least one.
    pub turns: Vec<Turn>,
    /// All answers to the only turn that are as good as its own, which is the first of them; empty where there is but one.
    /// Training draws one for every pass.
    pub captions: Vec<String>,
    /// What the image shows, where it was sorted by that.
    pub class: Option<String>,
    /// What of the record is passed over, in the plural.
    pub passed_over: Vec<&'static str>,
}

/// Everything asked and said, one text after another.
pub fn texts<'a>(
    system: Option<&'a String>,
    turns: &'a [Turn],
    captions: &'a [String],
) -> impl Iterator<Item = &'a str> {
    let turns = turns.iter().flat_map(|turn| [&turn.question, &turn.answer]);
    let texts = system.into_iter().chain(turns).chain(captions.iter().skip(1));
    texts.map(String::as_str)
}

impl Content {
    /// Everything asked and said, one text after another.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        texts(self.system.as_ref(), &self.turns, &self.captions)
    }

    /// One image and what may be said of it; none where nothing is said.
    pub fn captioned(image: String, question: &str, captions: Vec<String>) -> Option<Content> {
        let first = captions.first()?.clone();
        Some(Content {
            images: vec![image],
            turns: vec![Turn { question: question.into(), answer: first }],
            captions: if captions.len() > 1 { captions } else { Vec::new() },
            ..Content::default()
        })
    }
}

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its line in the file, counted from 1; 0 where the file has no lines.
    pub line: usize,
    /// The record's `id`, or its line where it has none.
    pub id: String,
    /// Its bytes within the file, where the file is text.
    pub bytes: Option<Range<usize>>,
    /// What it says.
    pub content: Content,
}

impl Record {
    /// The record as it is looked at before the first step.
    pub(super) fn entry(&self) -> Entry<'_> {
        let Content { images, system, turns, captions, .. } = &self.content;
        Entry { line: self.line, id: &self.id, images: images.len(), system: system.as_deref(), turns, captions }
    }
}

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// The field that names a record's split.
    pub field: String,
    /// The split wanted; None: every record.
    pub split: Option<String>,
    /// At most so many, the first there are.
    pub limit: Option<usize>,
}

impl Default for Select {
    fn default() -> Select {
        Select { field: "split".into(), split: None, limit: None }
    }
}

impl Select {
    /// Whether there are as many records as are wanted.
    pub(super) fn is_full(&self, found: &Found) -> bool {
        self.limit.is_some_and(|limit| found.records.len() >= limit)
    }
}

/// The records of a data set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Those that are good, in the set's order.
    pub records: Vec<Record>,
    /// Records without an image: left out.
    pub text_only: usize,
    /// Records of another split: left out.
    pub other_splits: usize,
    /// Records that cannot be used.
    pub bad: BadRecords,
    /// What is no record, and what of the good ones is left out.
    pub passed_over: PassedOver,
}

impl Found {
    /// Adds a record, or counts it where it has no image.
    pub(super) fn add(&mut self, record: Record) {
        for what in &record.content.passed_over {
            self.passed_over.add(*what, &record.id);
        }
        match record.content.images.is_empty() {
            true => self.text_only += 1,
            false => self.records.push(record),
        }
    }

    /// Records that are good, bad or without an image.
    pub fn count(&self) -> usize {
        self.records.len() + self.bad.count + self.text_only
    }
}
