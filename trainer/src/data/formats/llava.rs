//! LLaVA conversations: a JSON array, or JSON lines, of
//! `{"id": …, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "…"}]}`.
//!
//! `image` may be a list, with a mark `<image>` for each in the questions. A single image stands in front of the first
//! question, wherever its mark is there.

use super::fault::{Fault, fault, kind};
use super::json::Object;
use super::talk::{self, Said};
use crate::data::record::Content;
use serde_json::Value;

/// What a record says.
pub(super) fn content(record: &Object) -> Result<Content, Fault> {
    let images = talk::images(record)?;
    let said = match record.get("conversations") {
        Some(Value::Array(said)) => said,
        other => {
            let message = format!("expected a list of turns, found {}", kind(other));
            return fault("conversations", message);
        }
    };
    if said.len() % 2 == 1 {
        let message = format!("{} entries: the last question has no answer", said.len());
        return fault("conversations", message);
    }
    let said = said.iter().enumerate().map(|(i, entry)| spoken(entry, i));
    let said = said.collect::<Result<Vec<_>, _>>()?;
    talk::conversation("conversations", said, talk::text(record, "system")?, images)
}

/// What entry `index` says, if the right one says it: human and gpt in alternation.
fn spoken(entry: &Value, index: usize) -> Result<Said, Fault> {
    const ASKS: [&str; 2] = ["human", "user"];
    const ANSWERS: [&str; 2] = ["gpt", "assistant"];
    let answers = index % 2 == 1;
    let speakers = if answers { ANSWERS } else { ASKS };
    let (from, expected) = (format!("conversations[{index}].from"), speakers[0]);
    match entry.get("from") {
        Some(Value::String(name)) if speakers.contains(&name.as_str()) => {}
        Some(Value::String(name)) if ASKS.contains(&name.as_str()) || ANSWERS.contains(&name.as_str()) => {
            let message = format!("turns do not alternate: `{name}` speaks where `{expected}` should");
            return fault(from, message);
        }
        Some(Value::String(name)) => return fault(from, format!("unknown speaker `{name}`; expected `{expected}`")),
        other => return fault(from, format!("expected `{expected}`, found {}", kind(other))),
    }
    let field = format!("conversations[{index}].value");
    match entry.get("value") {
        Some(Value::String(text)) => Ok(Said {
            answers,
            text: text.clone(),
            field,
        }),
        other => fault(field, format!("expected text, found {}", kind(other))),
    }
}

#[cfg(test)]
#[path = "llava_tests.rs"]
mod tests;
