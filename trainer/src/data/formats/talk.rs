//! What conversations of all formats have in common: speakers in turn, images at their marks.

use super::fault::{Fault, fault, kind};
use super::fields::first;
use super::json::Object;
use crate::data::record::{Content, MARK, Turn};
use serde_json::Value;

/// The most images of one record.
const MAX_IMAGES: usize = 64;

/// Who says something, what, and the field it stands in.
pub(super) struct Said {
    pub(super) answers: bool,
    pub(super) text: String,
    pub(super) field: String,
}

/// Where an image goes whose mark stands in the first question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In front of the question, as LLaVA has it.
    Front,
    /// Where its mark is.
    Mark,
}

/// A record's image names: `images`, a list, or `image`, one name or a list; none where neither is there.
pub(super) fn images(record: &Object) -> Result<Vec<String>, Fault> {
    let names = match first(record, &["images", "image"]) {
        Some((field, value)) => names(field, value)?,
        None => return Ok(Vec::new()),
    };
    if let (Some(_), Some(("image", other))) = (first(record, &["images"]), first(record, &["image"]))
        && self::names("image", other)? != names
    {
        return fault("image", "other than `images` says; leave one of them out");
    }
    Ok(names)
}

fn names(field: &str, value: &Value) -> Result<Vec<String>, Fault> {
    let names = match value {
        Value::String(name) if !name.is_empty() => return Ok(vec![name.clone()]),
        Value::Array(names) => names,
        other => {
            let found = kind(Some(other));
            return fault(field, format!("expected a file name or a list of them, found {found}"));
        }
    };
    if names.len() > MAX_IMAGES {
        return fault(field, format!("{} images, at most {MAX_IMAGES} are taken", names.len()));
    }
    let name = |(i, name): (usize, &Value)| match name.get("path").unwrap_or(name) {
        Value::String(name) if !name.is_empty() => Ok(name.clone()),
        other => fault(format!("{field}[{i}]"), format!("expected a file name, found {}", kind(Some(other)))),
    };
    names.iter().enumerate().map(name).collect()
}

/// Text of a field that may be missing.
pub(super) fn text(record: &Object, field: &str) -> Result<Option<String>, Fault> {
    match record.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        other => fault(field, format!("expected text, found {}", kind(other))),
    }
}

/// A conversation about `images`, whose questions and answers alternate; `field` is the list they stand in. Texts stay as
/// they are, but for white space around the mark of an image that goes in front.
pub(super) fn conversation(
    field: &str,
    said: Vec<Said>,
    system: Option<String>,
    images: Vec<String>,
    place: Place,
) -> Result<Content, Fault> {
    if system.as_ref().is_some_and(|system| system.contains(MARK)) {
        return fault("system", format!("a system text with the mark `{MARK}` of an image"));
    }
    if said.is_empty() {
        return fault(field, "empty");
    }
    if said.len() % 2 == 1 {
        return fault(field, format!("{} entries: the last question has no answer", said.len()));
    }
    let mut turns = Vec::with_capacity(said.len() / 2);
    for pair in said.chunks(2) {
        let [asked, told] = pair else { continue };
        if told.text.contains(MARK) {
            return fault(&told.field, format!("an answer with the mark `{MARK}`"));
        }
        for entry in [asked, told] {
            if entry.text.replace(MARK, "").trim().is_empty() {
                return fault(&entry.field, "says nothing");
            }
        }
        turns.push(Turn { question: asked.text.clone(), answer: told.text.clone() });
    }
    put_marks(field, &mut turns, images.len(), place)?;
    Ok(Content { images, system: system.filter(|text| !text.trim().is_empty()), turns, ..Content::default() })
}

/// Brings the marks in order: none where the only image stands in front of the first question, otherwise one for each.
pub(super) fn put_marks(field: &str, turns: &mut [Turn], images: usize, place: Place) -> Result<(), Fault> {
    let count = |turn: &Turn| turn.question.matches(MARK).count();
    let marks: usize = turns.iter().map(count).sum();
    let Some(first) = turns.first_mut() else { return Ok(()) };
    match (marks, images) {
        (0, 0 | 1) => {}
        (0, _) => first.question = MARK.repeat(images) + &first.question,
        (_, 0) => return fault("image", format!("missing, but the conversation has the mark `{MARK}`")),
        (1, 1) if count(first) == 1 && place == Place::Front => {
            first.question = first.question.replace(MARK, "").trim().to_string();
        }
        (1, 1) => {
            if let Some(question) = first.question.trim_start().strip_prefix(MARK) {
                first.question = question.trim_start().to_string();
            }
        }
        _ if marks == images => {}
        (_, 1) => return fault(field, format!("{marks} marks `{MARK}` for one image")),
        _ => return fault(field, format!("{marks} marks `{MARK}` for {images} images")),
    }
    Ok(())
}
