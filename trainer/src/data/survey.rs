//! Reads a data set once, images and all, and says what is in it.

mod numbers;

pub use numbers::{Duplicates, Spread};

use super::bad_records::{BadRecord, BadRecords};
use super::corpus::Files;
use super::images::ImageSource;
use super::passed_over::PassedOver;
use super::record::{Found, MARK, Record};
use super::screen::{Entry, Screen, Screening};
use crate::report::table::Table;
use anyhow::Result;
use image::RgbImage;
use model::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What a data set holds.
#[derive(Debug, Clone, Serialize)]
pub struct Survey {
    /// The records' file or folder.
    pub path: PathBuf,
    /// Records, those of other splits left out.
    pub records: usize,
    /// Records that can be used.
    pub usable: usize,
    /// Records without an image.
    pub without_image: usize,
    /// Records of other splits.
    pub other_splits: usize,
    /// Records that cannot be used.
    pub broken: usize,
    pub broken_kinds: BTreeMap<String, usize>,
    /// The first broken ones.
    pub broken_first: Vec<String>,
    /// What is no record, and what of the good ones is left out.
    pub passed_over: PassedOver,
    /// What is lost of the usable ones on their way into the model, as far as that is known.
    pub lost: Screening,
    /// Distinct image files that can be read.
    pub images: usize,
    /// Images that are the very pixels of another.
    pub duplicate_images: Duplicates,
    /// Records that say the very same as another, of whatever image.
    pub duplicate_texts: Duplicates,
    /// Records that show and say the very same as another.
    pub duplicate_records: Duplicates,
    /// Images by class, where they were sorted.
    pub classes: BTreeMap<String, usize>,
    /// Hashes of the images' pixels.
    #[serde(skip)]
    pixels: HashSet<[u8; 32]>,
    /// Distributions by name, in the order they are shown.
    pub spreads: Vec<(String, Spread)>,
}

/// What is known of an image once it was seen.
struct Seen {
    size: (u32, u32),
    pixels: [u8; 32],
}

impl Survey {
    /// Reads everything there is; `tokenizer` counts tokens.
    ///
    /// # Errors
    /// A file that cannot be read, or no record that is wanted; broken records and images, and those that `screen` finds to be of
    /// no use, are counted.
    pub fn of(files: &Files<'_>, screen: &Screen<'_>, tokenizer: Option<&Tokenizer>) -> Result<Survey> {
        let (found, source) = files.open()?;
        let (seen, unread) = look(&found, &source);
        let is_whole = |record: &&Record| record.content.images.iter().all(|name| seen.contains_key(name));
        let (usable, broken): (Vec<&Record>, Vec<&Record>) = found.records.iter().partition(is_whole);
        let mut passed_over = found.passed_over.clone();
        let entries: Vec<Entry<'_>> = usable.iter().map(|record| record.entry()).collect();
        let screened = screen.all(files.path, &entries)?;
        let mut bad = unreadable(&found, &broken, &unread, files.path);
        bad.append(screened.bad);
        let kept = usable.iter().zip(screened.kept).filter(|(_, kept)| *kept);
        let usable: Vec<&Record> = kept.map(|(record, _)| *record).collect();
        let mut classes = BTreeMap::new();
        let count = |(records, each): (&[&Record], usize)| {
            for class in records.iter().filter_map(|record| record.content.class.clone()) {
                *classes.entry(class).or_default() += each;
            }
        };
        [(&usable[..], 1), (&broken[..], 0)].into_iter().for_each(count);
        classes.retain(|class, images| {
            if *images == 0 {
                passed_over.add("classes of which no image can be read", class);
            }
            *images > 0
        });
        let mut names: Vec<&String> = seen.keys().collect();
        names.sort();
        let pixels = |name: &String| seen[name].pixels;
        let shown = |record: &Record| -> Vec<[u8; 32]> { record.content.images.iter().map(pixels).collect() };
        let images = names.iter().map(|name| (pixels(name), name.to_string()));
        let texts = usable.iter().map(|record| (said(record), record.id.clone()));
        let whole = usable.iter().map(|record| ((shown(record), said(record)), record.id.clone()));
        Ok(Survey {
            path: files.path.to_owned(),
            pixels: seen.values().map(|seen| seen.pixels).collect(),
            records: found.count(),
            usable: usable.len(),
            without_image: found.text_only,
            other_splits: found.other_splits,
            broken: bad.count,
            broken_kinds: bad.kinds,
            lost: screened.lost,
            broken_first: bad.first.iter().map(BadRecord::to_string).collect(),
            passed_over,
            images: seen.len(),
            duplicate_images: Duplicates::of(images),
            duplicate_texts: Duplicates::of(texts),
            duplicate_records: Duplicates::of(whole),
            classes,
            spreads: spreads(&usable, &seen, tokenizer)?,
        })
    }

    /// Whether more than the share `max_bad` is broken.
    pub fn is_bad(&self, max_bad: f64) -> bool {
        self.broken as f64 > max_bad * (self.usable + self.broken) as f64
    }

    /// How many distinct images both sets have.
    pub fn shared_images(&self, other: &Survey) -> usize {
        self.pixels.intersection(&other.pixels).count()
    }

    /// What people read.
    pub fn table(&self) -> String {
        let mut text = format!(
            "{}: {} records: {} usable, {} broken, {} without an image; {} of other splits\n{} images",
            self.path.display(),
            self.records,
            self.usable,
            self.broken,
            self.without_image,
            self.other_splits,
            self.images
        );
        if !self.classes.is_empty() {
            text += &format!(" in {} classes", self.classes.len());
        }
        text += &format!("\n\n{}", self.spread_table());
        for (what, duplicates) in [
            ("images with the pixels of another", &self.duplicate_images),
            ("records that say what another says", &self.duplicate_texts),
            ("records that show and say what another does", &self.duplicate_records),
        ] {
            text += &format!("\n{what}: {duplicates}");
        }
        text += "\n";
        for (kind, count) in &self.broken_kinds {
            text += &format!("\nbroken: {count} x {kind}");
        }
        for first in &self.broken_first {
            text += &format!("\n  {first}");
        }
        for line in self.passed_over.lines().chain(self.lost.lines()) {
            text += &format!("\n{line}");
        }
        text.trim_end().to_string()
    }

    fn spread_table(&self) -> Table {
        let mut table = Table::new(["", "min", "median", "90 %", "99 %", "max", "mean"]);
        for (name, spread) in &self.spreads {
            let counts = [spread.min, spread.median, spread.p90, spread.p99, spread.max];
            let cells = std::iter::once(name.clone()).chain(counts.map(|count| count.to_string()));
            table.row(cells.chain([format!("{:.1}", spread.mean)]));
        }
        table
    }
}

/// The bad records, with those whose images cannot be read.
fn unreadable(found: &Found, broken: &[&Record], unread: &HashMap<String, String>, path: &Path) -> BadRecords {
    let mut bad = found.bad.clone();
    for record in broken {
        let mut images = record.content.images.iter();
        bad.add(BadRecord {
            file: path.to_owned(),
            line: record.line,
            id: Some(record.id.clone()),
            field: "image".into(),
            message: images.find_map(|name| unread.get(name)).cloned().unwrap_or_default(),
        });
    }
    bad
}

/// Decodes every image once, on all threads: what is known of it, or what is wrong.
fn look(found: &Found, source: &ImageSource) -> (HashMap<String, Seen>, HashMap<String, String>) {
    let mut names: Vec<&String> = found.records.iter().flat_map(|record| &record.content.images).collect();
    names.sort();
    names.dedup();
    let seen: Vec<Result<Seen>> = names
        .par_iter()
        .map(|name| {
            let image = source.load(name)?;
            Ok(Seen { size: image.dimensions(), pixels: pixels(&image) })
        })
        .collect();
    let (mut good, mut bad) = (HashMap::new(), HashMap::new());
    for (name, seen) in names.into_iter().zip(seen) {
        match seen {
            Ok(seen) => drop(good.insert(name.clone(), seen)),
            Err(error) => drop(bad.insert(name.clone(), format!("{error:#}"))),
        }
    }
    (good, bad)
}

/// A hash of an image's size and pixels.
pub(super) fn pixels(image: &RgbImage) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(image.width().to_le_bytes());
    hash.update(image.as_raw());
    hash.finalize().into()
}

/// All that a record says.
pub(super) fn said(record: &Record) -> String {
    let content = &record.content;
    let turns = content.turns.iter().flat_map(|turn| [&turn.question, &turn.answer]);
    let texts: Vec<&str> = turns.chain(content.captions.iter().skip(1)).map(String::as_str).collect();
    texts.join("\n")
}

fn spreads(
    records: &[&Record],
    seen: &HashMap<String, Seen>,
    tokenizer: Option<&Tokenizer>,
) -> Result<Vec<(String, Spread)>> {
    let words = |text: &str| text.split_whitespace().count();
    let contents = || records.iter().map(|record| &record.content);
    let turns = || contents().flat_map(|content| &content.turns);
    let answers = || {
        let one = contents().filter(|content| content.captions.is_empty());
        let one = one.flat_map(|content| content.turns.iter().map(|turn| turn.answer.as_str()));
        one.chain(contents().flat_map(|content| content.captions.iter().map(String::as_str)))
    };
    let mut columns: Vec<(&str, Vec<usize>)> = vec![
        ("image width", seen.values().map(|seen| seen.size.0 as usize).collect()),
        ("image height", seen.values().map(|seen| seen.size.1 as usize).collect()),
        ("images per record", contents().map(|content| content.images.len()).collect()),
        ("turns per record", contents().map(|content| content.turns.len()).collect()),
        ("answers per turn", contents().map(|content| content.captions.len().max(1)).collect()),
        ("question, words", turns().map(|turn| words(&turn.question.replace(MARK, " "))).collect()),
        ("answer, words", answers().map(words).collect()),
        ("answer, characters", answers().map(|answer| answer.chars().count()).collect()),
    ];
    if let Some(tokenizer) = tokenizer {
        let count = |record: &&Record| -> Result<usize> {
            let turns = record.content.turns.iter();
            let texts = turns.flat_map(|turn| [turn.question.replace(MARK, " "), turn.answer.clone()]);
            let lengths = texts.map(|text| Ok(tokenizer.encode(&text)?.len()));
            lengths.sum()
        };
        let tokens = records.par_iter().map(count).collect::<Result<_>>()?;
        columns.push(("record, tokens", tokens));
    }
    let spread = |(name, values): (&str, Vec<usize>)| Some((name.to_string(), Spread::of(values)?));
    Ok(columns.into_iter().filter_map(spread).collect())
}

#[cfg(test)]
#[path = "survey_tests.rs"]
mod tests;
