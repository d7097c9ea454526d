//! NLVR (Suhr et al. 2017): is a sentence true of a picture of three boxes? An example a line,
//! `{"sentence": "…", "label": "true", "identifier": "1572-0", "directory": "2", …}`, whose boxes stand in six orders, one
//! picture each: `dev-1572-0-0.png` to `dev-1572-0-5.png` for the example above in `dev.json`, in whatever folder.

use super::vsr::{ANSWER, PROMPT, neither, statement_scores};
use super::{Found, ImageAblation, Item, Kept, Setup, Source, Task, only};
use crate::eval::metrics::nlvr::{Answered, measures};
use crate::eval::pictures::Pictures;
use crate::eval::records::{self, Label};
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::HashMap;
use std::path::Path;

/// The orders of three boxes.
const ORDERS: usize = 6;

#[derive(Deserialize)]
struct Example {
    sentence: String,
    label: Label,
    identifier: String,
    #[serde(default)]
    directory: Option<String>,
}

pub(super) struct Nlvr {
    items: Vec<Item>,
    sentences: Vec<usize>,
}

impl Nlvr {
    pub(super) fn open(source: &Source, pictures: &Pictures) -> Result<Nlvr> {
        let file = only(&source.data)?;
        let stem = file.file_stem().map_or(String::new(), |stem| stem.to_string_lossy().into_owned());
        let name = |example: &Example, order: usize| {
            let plain = format!("{stem}-{}-{order}.png", example.identifier);
            let directory = example.directory.as_deref().unwrap_or_default();
            let names = [plain.clone(), format!("{directory}/{plain}"), format!("images/{directory}/{plain}")];
            let found = match names.into_iter().find(|name| pictures.has(name)) {
                None => pictures.find(&plain)?,
                usual => usual,
            };
            // Where it is nowhere, it cannot be asked.
            Ok(found.unwrap_or(plain))
        };
        Nlvr::read(&records::bytes(file)?, file, source, &name)
    }

    fn read(
        bytes: &[u8],
        file: &Path,
        source: &Source,
        name: &dyn Fn(&Example, usize) -> Result<String>,
    ) -> Result<Nlvr> {
        let prompt = source.prompt(PROMPT)?;
        let mut numbers = HashMap::new();
        let (mut items, mut sentences) = (Vec::new(), Vec::new());
        for (line, example) in records::each::<Example>(bytes, file, source.limit)? {
            let example = match example {
                Ok(example) => example,
                Err(unread) => {
                    items.push(Item::unread(unread));
                    // Of no sentence, and not measured.
                    sentences.push(usize::MAX);
                    continue;
                }
            };
            let expected = example.label.0.to_string();
            // "1572-0" is the first picture of sentence 1572.
            let sentence = example.identifier.split('-').next().unwrap_or_default().to_string();
            let next = numbers.len();
            let sentence = *numbers.entry(sentence).or_insert(next);
            for order in 0..ORDERS {
                items.push(Item {
                    image: name(&example, order).with_context(|| format!("{}:{line}", file.display()))?,
                    question: prompt.replace("{}", &example.sentence),
                    expected: expected.clone(),
                    ..Item::default()
                });
                sentences.push(sentence);
            }
        }
        Ok(Nlvr { items, sentences })
    }
}

impl Task for Nlvr {
    fn items(&self) -> &[Item] {
        &self.items
    }

    fn retain(&mut self, kept: &Kept) {
        kept.select(&mut self.items);
        kept.select(&mut self.sentences);
    }

    fn measure(&self, setup: &Setup<'_>, ablation: ImageAblation) -> Result<Found> {
        let answers = setup.answers(&self.items, ablation, ANSWER)?;
        let scores = statement_scores(&self.items, &answers);
        let answered = |i: usize| Answered {
            sentence: self.sentences[i],
            label: self.items[i].expected == "true",
            right: scores[i] == 1.0,
        };
        let mut measures = measures(&(0..scores.len()).map(answered).collect::<Vec<_>>());
        measures.push(neither(&self.sentences, &answers));
        Ok(Found { measures, answers, scores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_asked_and_sentences_are_told_by_the_identifier() {
        let lines = br#"{"sentence": "a", "label": "true", "identifier": "12-0", "directory": "2"}
            {"sentence": "a", "label": "False", "identifier": "12-3"}
            {"sentence": "b", "label": "true", "identifier": "13-0"}"#;
        let name = |example: &Example, order: usize| Ok(format!("{}-{order}", example.identifier));
        let nlvr = Nlvr::read(lines, Path::new("dev.json"), &Source::default(), &name).unwrap();
        assert_eq!((nlvr.items.len(), &nlvr.sentences[5..7], nlvr.sentences[12]), (18, &[0, 0][..], 1));
        assert_eq!((nlvr.items[7].image.as_str(), nlvr.items[7].expected.as_str()), ("12-3-1", "false"));
        assert_eq!(nlvr.items[0].question, "Is this statement true of the picture? a\nAnswer true or false.");
    }
}
