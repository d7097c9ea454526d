//! VSR (Liu et al. 2023): is a statement about where things are true? A statement a line:
//! `{"image": "000000519208.jpg", "caption": "The person is touching the elephant.", "label": 0, "relation": "touching"}`.

use super::{Found, ImageAblation, Item, Kept, Setup, Source, Task, by_image, only, score};
use crate::eval::generate::Reply;
use crate::eval::metrics::yes_no::says_true;
use crate::eval::metrics::{Measure, guess};
use crate::eval::records::{self, Label};
use anyhow::Result;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// How a statement is put.
pub(super) const PROMPT: &str = "Is this statement true of the picture? {}\nAnswer true or false.";
/// The longest answer in tokens.
pub(super) const ANSWER: usize = 16;

#[derive(Deserialize)]
struct Line {
    image: String,
    caption: String,
    label: Label,
    relation: Option<String>,
}

pub(super) struct Vsr {
    items: Vec<Item>,
    relations: Vec<String>,
}

impl Vsr {
    pub(super) fn open(source: &Source) -> Result<Vsr> {
        let file = only(&source.data)?;
        Vsr::read(&records::bytes(file)?, file, source)
    }

    fn read(bytes: &[u8], file: &Path, source: &Source) -> Result<Vsr> {
        let prompt = source.prompt(PROMPT)?;
        let (mut items, mut relations) = (Vec::new(), Vec::new());
        for (_, record) in records::each::<Line>(bytes, file, source.limit)? {
            let relation = record.as_ref().ok().and_then(|record| record.relation.clone());
            let item = |record: Line| Item {
                image: record.image,
                question: prompt.replace("{}", &record.caption),
                expected: record.label.0.to_string(),
                ..Item::default()
            };
            items.push(record.map_or_else(Item::unread, item));
            relations.push(relation.unwrap_or_default());
        }
        Ok(Vsr { items, relations })
    }
}

impl Task for Vsr {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.relations);
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let answers = setup.answers(&self.items, ablation, ANSWER)?;
        let scores = statement_scores(&self.items, &answers);
        let clusters = by_image(&self.items);
        let of = |name: &str, chosen: &dyn Fn(usize) -> bool| {
            let places = || (0..scores.len()).filter(|&i| chosen(i));
            Measure::mean(name, places().map(|i| (clusters[i], scores[i])))
                .guessing(guess::most_frequent(places().map(|i| &self.items[i].expected), 1))
        };
        let mut measures = vec![of("accuracy", &|_| true), neither(&clusters, &answers)];
        let relations: BTreeSet<&String> = self.relations.iter().filter(|relation| !relation.is_empty()).collect();
        measures.extend(relations.iter().map(|relation| of(relation, &|i| self.relations[i] == **relation)));
        Ok(Found { measures, answers, scores })
    }
}

/// 1 where the answer takes a true statement for true or a false one for false; answers that do neither are wrong.
pub(super) fn statement_scores(items: &[Item], answers: &[Reply]) -> Vec<f64> {
    let right = |(item, answer): (&Item, &Reply)| {
        score(says_true(&answer.text).is_some_and(|said| said == (item.expected == "true")))
    };
    items.iter().zip(answers).map(right).collect()
}

/// The share of answers that say neither true nor false.
pub(super) fn neither(clusters: &[usize], answers: &[Reply]) -> Measure {
    let rows = clusters.iter().zip(answers);
    Measure::mean("neither_true_nor_false", rows.map(|(&c, answer)| (c, score(says_true(&answer.text).is_none()))))
}
