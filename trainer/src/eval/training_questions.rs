//! What a run asked in training, kept in its folder, so that an evaluation asks in the same words.

use crate::data::formats::Format;
use crate::recipe::Recipe;
use crate::run_folder::{MAX_FILE, RunFolder};
use crate::session::Dataset;
use anyhow::{Context, Result};
use model::read_file;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// The file in a run's folder.
const FILE: &str = "questions.json";
/// Questions that are kept.
const MOST: usize = 20;

/// How a model was asked in training.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrainingQuestions {
    /// The first questions of conversations, the most frequent first, and how often each was asked.
    pub questions: Vec<(String, usize)>,
    /// What was said of a class, with `{}` for the class.
    pub templates: Vec<String>,
    /// Whether questions were asked without what came before.
    pub independent_turns: bool,
}

impl TrainingQuestions {
    /// Of a run's data.
    pub fn new(recipe: &Recipe, data: &Dataset) -> TrainingQuestions {
        let questions = match data {
            Dataset::Scenes(_) => vec![("describe the image .".into(), 1)],
            Dataset::Corpus { train, .. } => {
                let first = |sample: &crate::data::corpus::Sample| {
                    let question = sample.turns.first()?.question.replace(crate::data::record::MARK, "");
                    Some(question.trim().to_string())
                };
                frequent(train.corpus.samples.iter().filter_map(first))
            }
        };
        let files = recipe.data.train();
        let classes = files.filter(|files| files.format == Format::Folder);
        TrainingQuestions {
            questions,
            templates: classes.map_or(Vec::new(), |files| files.ask.templates),
            independent_turns: recipe.independent_turns(),
        }
    }

    /// Writes it into the run's folder.
    pub fn write(&self, folder: &RunFolder) -> Result<()> {
        folder.write(FILE, &serde_json::to_vec_pretty(self).context(FILE)?)
    }

    /// Of a model's folder, a run's or one of its checkpoints'; None where that is not known.
    pub fn of(folder: &Path) -> Option<TrainingQuestions> {
        let folders = folder.ancestors().take(3);
        let text = folders.into_iter().find_map(|folder| read_file(&folder.join(FILE), MAX_FILE).ok())?;
        serde_json::from_slice(&text).ok()
    }
}

/// The most frequent first; of equally frequent ones the one that came first.
fn frequent(questions: impl Iterator<Item = String>) -> Vec<(String, usize)> {
    let mut counts = HashMap::<String, (usize, usize)>::new();
    for (place, question) in questions.enumerate() {
        counts.entry(question).or_insert((0, place)).0 += 1;
    }
    let mut counts: Vec<(String, (usize, usize))> = counts.into_iter().collect();
    counts.sort_by_key(|(_, (count, place))| (std::cmp::Reverse(*count), *place));
    counts.into_iter().take(MOST).map(|(question, (count, _))| (question, count)).collect()
}
