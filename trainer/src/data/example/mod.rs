//! A small data set to begin with: digits, arrows and bar charts, drawn from a seed, with captions and questions, a part of
//! it held out, in the forms that training and evaluation read, and with a recipe that trains on it.

mod canvas;
mod digits;
mod picture;

use crate::recipe::as_written;
use crate::run_folder::write_whole;
use anyhow::{Context, Result, ensure};
use picture::Picture;
use rayon::prelude::*;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The recipe that trains on the set, the same file that `lenslet train --recipe recipes/example.toml` reads.
const RECIPE: &str = include_str!("../../../../recipes/example.toml");
/// Where that recipe says the set is.
const PLACE: &str = "${EXAMPLE:-data/example}";
/// Of so many pictures in a row the last is held out.
const EVERY: usize = 5;
/// What the first question of each picture is.
const DESCRIBE: &str = "Describe the picture.";

/// The files of the set, and what is in them.
pub const FILES: [(&str, &str); 5] = [
    ("data.json", "LLaVA conversations with their splits, which recipe.toml trains on"),
    ("captions.jsonl", "two captions of each picture with their splits, for `source = \"coco\"`"),
    ("heldout-questions.jsonl", "for `eval --tasks vqa`"),
    ("heldout-captions.jsonl", "for `eval --tasks caption`, and with a CLIP or [phase1] `retrieval,matching`"),
    ("recipe.toml", "trains a small model on data.json, from scratch"),
];

/// How many pictures and questions were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Pictures to train on.
    pub train: usize,
    /// Pictures held out.
    pub heldout: usize,
    /// Questions about all of them.
    pub questions: usize,
}

/// Writes `count` pictures and all that belongs to them into a new folder.
///
/// # Errors
/// When the folder has something in it, or cannot be written.
pub fn write(folder: &Path, count: usize, seed: u64) -> Result<Written> {
    let name = folder.display();
    // A link that leads nowhere is the user's, too.
    let new = fs::symlink_metadata(folder).is_err();
    let empty = fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    ensure!(empty, "{name}: has something in it; choose another folder, or remove this one");
    fill(folder, count, seed).inspect_err(|_| {
        if new {
            // What is not whole is of no use; that it cannot be removed must not hide why.
            let _ = fs::remove_dir_all(folder);
        }
    })
}

fn fill(folder: &Path, count: usize, seed: u64) -> Result<Written> {
    let name = folder.display();
    let images = folder.join("images");
    fs::create_dir_all(&images).with_context(|| format!("{name}: cannot be made"))?;
    let draw = |index: usize| -> Result<Record> {
        let (name, picture) = (format!("{index:04}.png"), Picture::draw(seed, index));
        let path = images.join(&name);
        picture.image.save(&path).with_context(|| path.display().to_string())?;
        Ok(Record {
            name,
            is_heldout: index % EVERY == EVERY - 1,
            captions: picture.captions,
            questions: picture.questions,
        })
    };
    let records = (0..count).into_par_iter().map(draw).collect::<Result<Vec<Record>>>()?;
    let heldout = || records.iter().filter(|record| record.is_heldout);
    let conversations: Vec<Value> = records.iter().map(Record::conversation).collect();
    let file = |name: &str, bytes: &[u8]| write_whole(&folder.join(name), bytes);
    file("data.json", &serde_json::to_vec_pretty(&conversations)?)?;
    file("captions.jsonl", &lines(records.iter().map(Record::pair)))?;
    file("heldout-captions.jsonl", &lines(heldout().map(Record::pair)))?;
    file("heldout-questions.jsonl", &lines(heldout().flat_map(Record::asked)))?;
    let place = fs::canonicalize(folder).with_context(|| name.to_string())?;
    file("recipe.toml", recipe(&place)?.as_bytes())?;
    let questions = records.iter().map(|record| 1 + record.questions.len());
    Ok(Written { train: count - heldout().count(), heldout: heldout().count(), questions: questions.sum() })
}

/// The recipe for a set at `place`.
fn recipe(place: &Path) -> Result<String> {
    let mut recipe = RECIPE.to_string();
    for name in ["data.json", "images"] {
        let path = place.join(name);
        let text = path.to_str().with_context(|| format!("{}: not a name in UTF-8", path.display()))?;
        let value = toml::Value::String(as_written(text)).to_string();
        recipe = recipe.replace(&format!("\"{PLACE}/{name}\""), &value);
    }
    Ok(recipe)
}

/// A picture's file and all that is said of it.
struct Record {
    name: String,
    is_heldout: bool,
    captions: Vec<String>,
    questions: Vec<(&'static str, String)>,
}

impl Record {
    fn split(&self) -> &'static str {
        if self.is_heldout { "heldout" } else { "train" }
    }

    /// As LLaVA keeps conversations.
    fn conversation(&self) -> Value {
        let describe = (DESCRIBE, self.captions[0].as_str());
        let others = self.questions.iter().map(|(question, answer)| (*question, answer.as_str()));
        let turns = [describe].into_iter().chain(others).enumerate();
        let turns = turns.flat_map(|(i, (question, answer))| {
            let mark = if i == 0 { "<image>\n" } else { "" };
            [
                json!({ "from": "human", "value": format!("{mark}{question}") }),
                json!({ "from": "gpt", "value": answer }),
            ]
        });
        let turns: Vec<Value> = turns.collect();
        json!({ "id": self.name, "image": self.name, "split": self.split(), "conversations": turns })
    }

    /// An image with its captions.
    fn pair(&self) -> Value {
        json!({ "image": self.name, "captions": self.captions, "split": self.split() })
    }

    /// A line for each question.
    fn asked(&self) -> impl Iterator<Item = Value> {
        let line =
            |(question, answer): &(&str, String)| json!({ "image": self.name, "question": question, "answer": answer });
        self.questions.iter().map(line)
    }
}

fn lines(values: impl Iterator<Item = Value>) -> Vec<u8> {
    values.flat_map(|value| format!("{value}\n").into_bytes()).collect()
}
