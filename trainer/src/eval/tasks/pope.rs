//! POPE (Li et al. 2023): is there such an object? One file a split, `coco_pope_random.json` and so on, a question a line:
//! `{"question_id": 1, "image": "COCO_val2014_000000310196.jpg", "text": "Is there a snowboard in the image?", "label": "yes"}`.

use super::{Found, ImageAblation, Item, Kept, Setup, Source, Task, by_image, score, unmarked};
use crate::data::files::{Entry, ends_in, entries};
use crate::data::passed_over::PassedOver;
use crate::eval::metrics::{Measure, yes_no};
use crate::eval::records::{self, Label};
use anyhow::{Result, bail};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// The splits, as they stand in the names of files.
const SPLITS: [&str; 3] = ["random", "popular", "adversarial"];
/// The longest answer in tokens.
const ANSWER: usize = 16;

#[derive(Deserialize)]
struct Line {
    image: String,
    text: String,
    label: Label,
}

pub(super) struct Pope {
    items: Vec<Item>,
    splits: Vec<String>,
}

impl Pope {
    pub(super) fn open(source: &Source) -> Result<Pope> {
        let prompt = source.prompt("{}")?;
        let mut pope = Pope { items: Vec::new(), splits: Vec::new() };
        let files = files(&source.data)?;
        for file in &files {
            // Two files of one split are no one set.
            let alike = files.iter().filter(|other| split(other) == split(file)).count();
            let name = if alike > 1 { stem(file) } else { split(file) };
            pope.read(&records::bytes(file)?, file, &name, source.limit, &prompt)?;
        }
        Ok(pope)
    }

    fn read(&mut self, bytes: &[u8], file: &Path, split: &str, limit: Option<usize>, prompt: &str) -> Result<()> {
        for (_, record) in records::each(bytes, file, limit)? {
            let item = |Line { image, text, label }| Item {
                image,
                question: prompt.replace("{}", &unmarked(&text)),
                expected: if label.0 { "yes" } else { "no" }.into(),
                ..Item::default()
            };
            self.items.push(record.map_or_else(Item::unread, item));
            self.splits.push(split.into());
        }
        Ok(())
    }
}

/// The files given, and in folders those named after a split.
fn files(data: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in data {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut passed = PassedOver::default();
        let mut found = Vec::new();
        for Entry { name, .. } in entries(path, &mut passed)? {
            let file = path.join(&name);
            match (ends_in(&name, "json") || ends_in(&name, "jsonl")) && named_split(&file).is_some() {
                true => found.push(file),
                false => passed.add("files not named after a split", name),
            }
        }
        for line in passed.lines() {
            errln!("{}: {line}", path.display());
        }
        if found.is_empty() {
            bail!("{}: no .json named after a split: {}", path.display(), SPLITS.join(", "));
        }
        found.sort_by_key(|file| SPLITS.iter().position(|s| named_split(file) == Some(*s)));
        files.extend(found);
    }
    Ok(files)
}

fn named_split(file: &Path) -> Option<&'static str> {
    let name = file.file_stem()?.to_string_lossy();
    SPLITS.into_iter().find(|split| name.contains(split))
}

fn split(file: &Path) -> String {
    named_split(file).map_or_else(|| stem(file), String::from)
}

fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

impl Task for Pope {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.splits);
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let answers = setup.answers(&self.items, ablation, ANSWER)?;
        let read: Vec<&str> = answers.iter().map(|answer| yes_no::pope_reads(&answer.text)).collect();
        let clusters = by_image(&self.items);
        let mut names: Vec<&String> = self.splits.iter().collect();
        names.dedup();
        let mut measures = Vec::new();
        let rows = |name: Option<&String>| {
            let places = (0..read.len()).filter(|&i| name.is_none_or(|name| *name == self.splits[i]));
            places.map(|i| (clusters[i], self.items[i].expected == "yes", read[i])).collect::<Vec<_>>()
        };
        for name in &names {
            measures.extend(yes_no::measures(&format!("{name}."), &rows(Some(name))));
        }
        if names.len() > 1 {
            measures.extend(yes_no::measures("all.", &rows(None)));
        }
        let neither =
            clusters.iter().zip(&answers).map(|(&c, answer)| (c, score(yes_no::says_true(&answer.text).is_none())));
        measures.push(Measure::mean("neither_yes_nor_no", neither));
        let right = self.items.iter().zip(&read).map(|(item, read)| score(item.expected == *read));
        Ok(Found { measures, scores: right.collect(), answers })
    }
}
