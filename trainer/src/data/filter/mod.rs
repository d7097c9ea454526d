//! Keeps the good part of a data set: what is broken, double, empty of content, or does not go with its image is left out.

pub mod likeness;
mod report;
mod similarity;
mod words;
mod write;

pub use report::report;
pub use similarity::Judge;
pub use write::{Kept, write};

use super::corpus::Files;
use super::formats::Format;
use super::images::ImageSource;
use super::record::{Found, MARK, Record};
use anyhow::{Result, ensure};
use image::RgbImage;
use likeness::Signature;
use rayon::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;

/// Answers shorter than this many words are judged together with their question.
const SHORT: usize = 4;

/// What is asked of a record to be kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Criteria {
    /// At least so many words are said.
    pub min_words: Option<usize>,
    /// At most so many.
    pub max_words: Option<usize>,
    /// At least this share of the words carries content and is no repetition.
    pub min_density: Option<f64>,
    /// No image whose hash differs in at most so many bits, and that looks alike, is kept already.
    pub max_hamming: Option<u32>,
    /// No text that shares at least this part of its words is kept already.
    pub max_overlap: Option<f64>,
    /// At least this cosine of image and text.
    pub min_similarity: Option<f64>,
    /// Of what else remains the share whose image and text go together best.
    pub keep_share: Option<f64>,
}

/// Why a record is left out; the first that holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Its image cannot be read.
    Broken,
    /// It says too little.
    Short,
    /// It says too much.
    Long,
    /// It is filler, or repeats itself.
    Thin,
    /// Its image is a near-duplicate.
    TwinImage,
    /// Its text is a near-duplicate.
    TwinText,
    /// Image and text do not go together.
    Unlike,
}

impl Reason {
    /// All of them, in the order they are looked for.
    pub const ALL: [Reason; 7] = [
        Reason::Broken,
        Reason::Short,
        Reason::Long,
        Reason::Thin,
        Reason::TwinImage,
        Reason::TwinText,
        Reason::Unlike,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Broken => "image cannot be read",
            Reason::Short => "too few words",
            Reason::Long => "too many words",
            Reason::Thin => "little content",
            Reason::TwinImage => "near-duplicate image",
            Reason::TwinText => "near-duplicate text",
            Reason::Unlike => "image and text unlike",
        }
    }
}

/// Why a record goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub reason: Reason,
    /// The measure that decided, or what is wrong.
    pub detail: String,
    /// The record that is kept in its place.
    pub twin: Option<usize>,
}

/// A data set that was judged.
pub struct Judged {
    /// What was found.
    pub found: Found,
    /// Where its images are.
    pub source: ImageSource,
    /// Why each record goes; none for those kept.
    pub verdicts: Vec<Option<Verdict>>,
    /// What each record is judged by.
    pub texts: Vec<String>,
    /// Cosines of image and text, where they were computed.
    pub similarities: Vec<Option<f64>>,
    /// How the set is kept.
    pub format: Format,
    /// The records' file or folder.
    pub path: PathBuf,
}

impl Judged {
    /// Reads a data set and judges every record. Cosines are `judge`'s.
    ///
    /// # Errors
    /// Those of reading the set and of the dual encoder; when `judge` is missing for what is asked.
    pub fn of(files: &Files<'_>, criteria: &Criteria, judge: Option<&Judge>) -> Result<Judged> {
        let (found, source) = files.open()?;
        let count = found.records.len();
        let mut judged = Judged {
            texts: found.records.iter().map(text).collect(),
            verdicts: vec![None; count],
            similarities: vec![None; count],
            format: files.format,
            path: files.path.to_owned(),
            found,
            source,
        };
        judged.by_words(criteria);
        judged.by_images(criteria.max_hamming);
        judged.by_texts(criteria.max_overlap);
        if let Some(judge) = judge {
            judged.by_similarity(criteria, judge)?;
        }
        Ok(judged)
    }

    /// The numbers of the records kept.
    pub fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        let kept = self.verdicts.iter().enumerate().filter(|(_, verdict)| verdict.is_none());
        kept.map(|(number, _)| number)
    }

    /// How many records go for a reason.
    pub fn count(&self, reason: Reason) -> usize {
        let verdicts = self.verdicts.iter().flatten();
        verdicts.filter(|verdict| verdict.reason == reason).count()
    }

    fn leave_out(&mut self, number: usize, reason: Reason, detail: String, twin: Option<usize>) {
        self.verdicts[number].get_or_insert(Verdict { reason, detail, twin });
    }

    fn by_words(&mut self, criteria: &Criteria) {
        for number in 0..self.texts.len() {
            let words = words::words(&self.texts[number]);
            let (count, density) = (words.len(), words::density(&words));
            if criteria.min_words.is_some_and(|least| count < least) {
                self.leave_out(number, Reason::Short, format!("{count} words"), None);
            } else if criteria.max_words.is_some_and(|most| count > most) {
                self.leave_out(number, Reason::Long, format!("{count} words"), None);
            } else if criteria.min_density.is_some_and(|least| density < least) {
                self.leave_out(number, Reason::Thin, format!("density {density:.2}"), None);
            }
        }
    }

    /// Leaves out records whose images are broken, or near-duplicates of images that remain. One image of several records
    /// is no duplicate of itself.
    fn by_images(&mut self, max_hamming: Option<u32>) {
        let (names, users) = self.images();
        let decode = |name: &&str| match self.source.load(name) {
            Ok(image) => Ok(max_hamming.map(|_| Signature::of(&image))),
            Err(error) => Err(format!("{error:#}")),
        };
        let seen: Vec<Result<Option<Signature>, String>> = names.par_iter().map(decode).collect();
        let (mut whole, mut signatures) = (Vec::new(), Vec::new());
        let mut gone = Vec::new();
        for (users, seen) in users.iter().zip(seen) {
            match seen {
                Ok(signature) => {
                    whole.push(users);
                    signatures.extend(signature);
                }
                Err(message) => {
                    gone.extend(users.iter().map(|&number| (number, Reason::Broken, message.clone(), None)))
                }
            }
        }
        let twins = likeness::twins(&signatures, max_hamming.unwrap_or(0));
        for (users, twin) in whole.iter().zip(twins) {
            let Some(twin) = twin else { continue };
            let of = whole[twin].first().copied();
            gone.extend(users.iter().map(|&number| (number, Reason::TwinImage, String::new(), of)));
        }
        for (number, reason, detail, twin) in gone {
            self.leave_out(number, reason, detail, twin);
        }
    }

    /// The distinct images of the records that remain, in order, and the records that show each.
    fn images(&self) -> (Vec<&str>, Vec<Vec<usize>>) {
        let (mut names, mut users, mut places) = (Vec::new(), Vec::<Vec<usize>>::new(), HashMap::new());
        for number in self.kept() {
            for name in &self.found.records[number].content.images {
                let place = *places.entry(name.as_str()).or_insert_with(|| {
                    names.push(name.as_str());
                    users.push(Vec::new());
                    names.len() - 1
                });
                users[place].push(number);
            }
        }
        (names, users)
    }

    fn by_texts(&mut self, max_overlap: Option<f64>) {
        let Some(least) = max_overlap else { return };
        let numbers: Vec<usize> = self.kept().collect();
        let texts: Vec<Vec<String>> = numbers.iter().map(|&number| words::words(&self.texts[number])).collect();
        for (place, twin) in words::twins(&texts, least).into_iter().enumerate() {
            if let Some(twin) = twin {
                self.leave_out(numbers[place], Reason::TwinText, String::new(), Some(numbers[twin]));
            }
        }
    }

    /// Compares images with texts; of several images the first.
    fn by_similarity(&mut self, criteria: &Criteria, judge: &Judge) -> Result<()> {
        let numbers: Vec<usize> = self.kept().collect();
        for batch in numbers.chunks(similarity::BATCH) {
            let image = |&number: &usize| self.source.load(&self.found.records[number].content.images[0]);
            let images: Vec<RgbImage> = batch.par_iter().map(image).collect::<Result<_>>()?;
            let texts: Vec<String> = batch.iter().map(|&number| self.texts[number].clone()).collect();
            for (&number, cosine) in batch.iter().zip(judge.cosines(&images, &texts)?) {
                ensure!(cosine.is_finite(), "{}: similarity {cosine}", self.found.records[number].id);
                self.similarities[number] = Some(cosine);
            }
        }
        let cosine = |judged: &Judged, number: usize| judged.similarities[number].unwrap_or(f64::MIN);
        let detail = |cosine: f64| format!("similarity {cosine:.3}");
        if let Some(least) = criteria.min_similarity {
            for &number in &numbers {
                let found = cosine(self, number);
                if found < least {
                    self.leave_out(number, Reason::Unlike, detail(found), None);
                }
            }
        }
        if let Some(share) = criteria.keep_share {
            let mut best: Vec<usize> = self.kept().collect();
            best.sort_by(|&a, &b| cosine(self, b).total_cmp(&cosine(self, a)).then(a.cmp(&b)));
            let keep = (share * best.len() as f64).round() as usize;
            for &number in best.iter().skip(keep) {
                let found = cosine(self, number);
                self.leave_out(number, Reason::Unlike, detail(found), None);
            }
        }
        Ok(())
    }
}

/// What a record is judged by: its answers; together with the questions where they are short.
fn text(record: &Record) -> String {
    let turns = &record.content.turns;
    let answers: Vec<&str> = turns.iter().map(|turn| turn.answer.as_str()).collect();
    let answers = answers.join(" ");
    if answers.split_whitespace().count() >= SHORT {
        return answers;
    }
    let both = turns.iter().flat_map(|turn| [turn.question.replace(MARK, ""), turn.answer.clone()]);
    both.collect::<Vec<_>>().join(" ").trim().to_string()
}

#[cfg(test)]
mod tests;
