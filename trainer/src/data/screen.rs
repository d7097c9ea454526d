//! All records of a data set as a model reads them, before the first step: those it cannot be trained on, what is cut off, and
//! words it does not know. Training, held-out data and `lenslet data check` go through here.

use super::bad_records::{BadRecord, BadRecords};
use super::prepare::{Layout, Prepare};
use super::record::{MARK, Turn};
use super::unknown_words::UnknownWords;
use anyhow::Result;
use model::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use std::path::Path;

/// What stands in front of a sample that is shown.
pub const ONE_SAMPLE: &str = "one sample, with what is learned in brackets:";

/// A record and where it stands.
#[derive(Default)]
pub struct Entry<'a> {
    /// Its line in the file; 0 where there are none.
    pub line: usize,
    pub id: &'a str,
    /// How many images it shows.
    pub images: usize,
    /// What the model is told before.
    pub system: Option<&'a str>,
    /// At least one.
    pub turns: &'a [Turn],
    /// Answers that are as good as its only one, which is among them; empty where there is but one.
    pub captions: &'a [String],
}

/// How records are read.
#[derive(Clone, Copy)]
pub struct Screen<'a> {
    /// Texts to ids, where that is known.
    pub tokenizer: Option<&'a Tokenizer>,
    /// As conversations, in phase 2.
    pub conversations: Option<(&'a Prepare, Layout)>,
    /// As captions, in phase 1 and by a dual encoder.
    pub captions: Option<Captions>,
}

/// Who reads captions.
#[derive(Clone, Copy)]
pub enum Captions {
    /// A Q-Former, up to so many tokens, `<dec>` and `<eos>` among them.
    QFormer(usize),
    /// A text tower, up to so many.
    Dual(usize),
}

/// What a record comes to.
#[derive(Default)]
struct Reading {
    /// Tokens to predict that are cut off, and that are left.
    lost: usize,
    targets: usize,
    /// Tokens beyond those that the decoder has positions for.
    beyond: usize,
    captions: usize,
    captions_cut: usize,
    unknown: UnknownWords,
}

/// What is wrong with a record.
struct Fault {
    field: String,
    message: String,
}

/// What a data set loses on its way into the model, beside records that are bad.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Screening {
    /// Conversations with a token to predict.
    pub conversations: usize,
    /// Of these, with answers that are cut.
    pub cut: usize,
    /// Tokens to predict that are left, and those cut off.
    pub targets: usize,
    /// Tokens to predict that are cut off.
    pub lost: usize,
    /// The longest conversation that is left, in tokens.
    pub most: Option<usize>,
    /// Left out, as no token to predict is left.
    #[serde(skip)]
    pub without_target: BadRecords,
    /// Longer than the decoder has positions for.
    #[serde(skip)]
    pub beyond: BadRecords,
    /// Captions that are read.
    pub captions: usize,
    /// Of these, cut to what the text encoder takes.
    pub captions_cut: usize,
    /// What of all texts the vocabulary lacks.
    pub unknown_words: UnknownWords,
}

/// Records that can be trained on, and the others.
pub struct Screened {
    /// For each record whether it stays.
    pub kept: Vec<bool>,
    /// Those that cannot be used.
    pub bad: BadRecords,
    /// What is lost of the others.
    pub lost: Screening,
}

impl<'a> Screen<'a> {
    /// With a tokenizer alone, if any.
    pub fn of(tokenizer: Option<&'a Tokenizer>) -> Screen<'a> {
        Screen { tokenizer, conversations: None, captions: None }
    }
}

impl Screen<'_> {
    /// Reads all records on all threads.
    pub fn all(&self, file: &Path, records: &[Entry<'_>]) -> Result<Screened> {
        let readings: Vec<Result<Result<Reading, Fault>>> = records.par_iter().map(|record| self.one(record)).collect();
        let most = self.conversations.and_then(|(prepare, _)| prepare.max_tokens);
        let mut screened = Screened {
            kept: Vec::with_capacity(records.len()),
            bad: BadRecords::default(),
            lost: Screening { most, ..Screening::default() },
        };
        for (record, reading) in records.iter().zip(readings) {
            let named = |field: &str, message: String| BadRecord {
                file: file.to_owned(),
                line: record.line,
                id: Some(record.id.to_owned()),
                field: field.into(),
                message,
            };
            let kept = match reading? {
                Ok(reading) => screened.lost.add(reading, self.conversations.is_some(), named),
                Err(Fault { field, message }) => {
                    screened.bad.add(named(&field, message));
                    false
                }
            };
            screened.kept.push(kept);
        }
        Ok(screened)
    }

    /// Shows the first conversation as a model reads it: where none can be trained on, that may say why.
    pub fn show(&self, records: &[Entry<'_>]) {
        let (Some((prepare, layout)), Some(record)) = (self.conversations, records.first()) else {
            return;
        };
        if let Ok(lines) = prepare.shown(record.system, &exchanges(record), record.images, layout) {
            outln!("{ONE_SAMPLE}\n  {}", lines.join("\n  "));
        }
    }

    fn one(&self, record: &Entry<'_>) -> Result<Result<Reading, Fault>> {
        let mut reading = Reading::default();
        for (field, text) in texts(record) {
            if let Some(token) = self.special(&field, text) {
                let message = format!("`{token}` in a text, where it would be read as the token of that name");
                return Ok(Err(Fault { field, message }));
            }
            if let Some(tokenizer) = self.tokenizer {
                reading.unknown.add(UnknownWords::of(tokenizer, [text])?);
            }
        }
        self.captions(record, &mut reading)?;
        if let Some((prepare, layout)) = self.conversations {
            // Only the last of an only turn's answers may be longer: the question is the same.
            let mut turns = exchanges(record);
            for caption in 0..record.captions.len().max(1) {
                if let (Some(turn), Some(caption)) = (turns.first_mut(), record.captions.get(caption)) {
                    turn.1.clone_from(caption);
                }
                match prepare.extent(record.system, &turns, record.images, layout) {
                    Ok(extent) => {
                        reading.lost += extent.lost;
                        reading.targets += extent.targets;
                        reading.beyond = reading.beyond.max(extent.beyond);
                    }
                    Err(error) => {
                        let (field, message) = ("conversation".into(), format!("{error:#}"));
                        return Ok(Err(Fault { field, message }));
                    }
                }
            }
        }
        Ok(Ok(reading))
    }

    /// The mark of an image where there is no place for one, or a special token that the text would be read as.
    fn special(&self, field: &str, text: &str) -> Option<String> {
        let asked = field == "question";
        if !asked && text.contains(MARK) {
            return Some(MARK.into());
        }
        let read = self.conversations.is_some_and(|(prepare, _)| !prepare.chat.is_literal())
            || matches!(self.captions, Some(Captions::Dual(_)));
        let tokenizer = self.tokenizer.filter(|_| read)?;
        tokenizer.special_in(&text.replace(MARK, " ")).map(String::from)
    }

    fn captions(&self, record: &Entry<'_>, reading: &mut Reading) -> Result<()> {
        let (Some(reader), Some(tokenizer)) = (&self.captions, self.tokenizer) else {
            return Ok(());
        };
        let only = record.turns.first().map(|turn| &turn.answer).filter(|_| record.captions.is_empty());
        for caption in record.captions.iter().chain(only) {
            let (length, most) = match reader {
                Captions::QFormer(most) => (tokenizer.encode(caption)?.len() + 2, *most),
                Captions::Dual(most) => (tokenizer.tokenize(caption, true)?.len(), *most),
            };
            reading.captions += 1;
            reading.captions_cut += usize::from(length > most);
        }
        Ok(())
    }
}

/// A record's questions and answers.
fn exchanges(record: &Entry<'_>) -> Vec<(String, String)> {
    let turns = record.turns.iter();
    turns.map(|turn| (turn.question.clone(), turn.answer.clone())).collect()
}

/// All that is said, with the field it is in.
fn texts<'a>(record: &Entry<'a>) -> impl Iterator<Item = (String, &'a str)> {
    let turns = record.turns.iter();
    let turns = turns.flat_map(|turn| [("question", turn.question.as_str()), ("answer", turn.answer.as_str())]);
    let captions = record.captions.iter().map(|caption| ("caption", caption.as_str()));
    let system = record.system.into_iter().map(|system| ("system", system));
    system.chain(turns).chain(captions).map(|(field, text)| (field.to_string(), text))
}

impl Screening {
    /// Counts a record in; whether it stays.
    fn add(&mut self, reading: Reading, conversation: bool, named: impl Fn(&str, String) -> BadRecord) -> bool {
        self.unknown_words.add(reading.unknown);
        self.captions += reading.captions;
        self.captions_cut += reading.captions_cut;
        if !conversation {
            return true;
        }
        self.lost += reading.lost;
        self.targets += reading.targets;
        if reading.beyond > 0 {
            let message = format!("{} tokens more than the decoder has positions for", reading.beyond);
            self.beyond.add(named("", message));
        }
        if reading.targets == 0 {
            self.without_target.add(named("", "every token to predict is cut off".into()));
            return false;
        }
        self.conversations += 1;
        self.cut += usize::from(reading.lost > 0);
        true
    }

    /// One line for each kind of loss there is.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let (most, all) = (self.most.unwrap_or_default(), self.targets + self.lost);
        if self.lost > 0 {
            lines.push(format!(
                "cut at data.max_tokens = {most}: answers of {} of {} conversations, {} of {all} tokens to predict ({})",
                self.cut,
                self.conversations,
                self.lost,
                percent(self.lost, all)
            ));
        }
        if self.without_target.count > 0 {
            lines.push(format!(
                "left out, as data.max_tokens = {most} leaves no token to predict: {}\n{}",
                self.without_target.count,
                self.without_target.list()
            ));
        }
        if self.beyond.count > 0 {
            lines.push(format!(
                "longer than max_position_embeddings, so that positions come that the decoder never saw: {}\n{}",
                self.beyond.count,
                self.beyond.list()
            ));
        }
        if self.captions_cut > 0 {
            let (cut, all) = (self.captions_cut, self.captions);
            lines.push(format!(
                "captions cut at the text encoder's max_position_embeddings: {cut} of {all} ({})",
                percent(cut, all)
            ));
        }
        if let Some(unknown) = self.unknown_words.message() {
            lines.push(format!("{unknown}; tokenizer.kind = \"bpe\" reads any word"));
        }
        lines
    }
}

fn percent(part: usize, all: usize) -> String {
    format!("{:.1} %", 100.0 * part as f64 / all.max(1) as f64)
}
