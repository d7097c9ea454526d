//! LLaVA conversations: a JSON array, or JSON lines, of
//! `{"id": …, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "…"}]}`.
//!
//! `image` may be a list, with a mark `<image>` for each in the questions. A single image stands in front of the first
//! question, wherever its mark is there. The first turn may be the system's; then one that is not the human's is passed over,
//! as by LLaVA.

use super::fault::{Fault, fault, kind};
use super::json::Object;
use super::talk::{self, Place, Said};
use crate::data::record::Content;
use serde_json::Value;

const SYSTEM: &str = "system";
const ASKS: [&str; 2] = ["human", "user"];
const ANSWERS: [&str; 2] = ["gpt", "assistant"];

/// What a record says.
pub(super) fn content(record: &Object) -> Result<Content, Fault> {
    let images = talk::images(record)?;
    let entries = match record.get("conversations") {
        Some(Value::Array(entries)) => entries,
        other => {
            let message = format!("expected a list of turns, found {}", kind(other));
            return fault("conversations", message);
        }
    };
    let is = |entry: Option<&Value>, names: &[&str]| {
        let name = entry.and_then(|entry| entry.get("from")?.as_str());
        name.is_some_and(|name| names.contains(&name))
    };
    let (mut system, mut start) = (talk::text(record, "system")?, 0);
    if is(entries.first(), &[SYSTEM]) {
        let text = value(&entries[0], 0)?;
        if system.is_some_and(|other| other.trim() != text.trim()) {
            return fault("system", "other than `conversations[0]`, the system's turn, says");
        }
        (system, start) = (Some(text), 1);
    }
    let skipped = is(entries.get(start), &ANSWERS) && is(entries.get(start + 1), &ASKS);
    start += usize::from(skipped);
    let spoken = entries.iter().enumerate().skip(start);
    let said = spoken.map(|(i, entry)| said(entry, i, (i - start) % 2 == 1));
    let said = said.collect::<Result<Vec<_>, _>>()?;
    let mut content = talk::conversation("conversations", said, system, images, Place::Front)?;
    if skipped {
        content.passed_over.push("first turns that are not the human's");
    }
    Ok(content)
}

/// One turn, of the side whose turn it is.
fn said(entry: &Value, index: usize, answers: bool) -> Result<Said, Fault> {
    let speakers = if answers { ANSWERS } else { ASKS };
    let (from, expected) = (format!("conversations[{index}].from"), speakers[0]);
    match entry.get("from") {
        Some(Value::String(name)) if speakers.contains(&name.as_str()) => {}
        Some(Value::String(name)) if ASKS.contains(&name.as_str()) || ANSWERS.contains(&name.as_str()) => {
            let message = format!("turns do not alternate: `{name}` speaks where `{expected}` should");
            return fault(from, message);
        }
        Some(Value::String(name)) if name == SYSTEM => return fault(from, "only the first turn may be the system's"),
        Some(Value::String(name)) => return fault(from, format!("unknown speaker `{name}`; expected `{expected}`")),
        other => return fault(from, format!("expected `{expected}`, found {}", kind(other))),
    }
    Ok(Said { answers, text: value(entry, index)?, field: format!("conversations[{index}].value") })
}

/// What a turn says, without white space around it.
fn value(entry: &Value, index: usize) -> Result<String, Fault> {
    match entry.get("value") {
        Some(Value::String(text)) => Ok(text.trim().into()),
        other => {
            let message = format!("expected text, found {}", kind(other));
            fault(format!("conversations[{index}].value"), message)
        }
    }
}

#[cfg(test)]
#[path = "llava_tests.rs"]
mod tests;
