//! A record of a format that holds its images, which may have any other format's fields.

use super::fault::{Fault, fault, kind};
use super::json::Object;
use super::talk::{Place, Said};
use super::{Ask, completion, llava, messages, talk};
use crate::data::record::Content;
use serde_json::Value;

/// Fields of conversations, then those of captions.
const TALKS: [&str; 4] = ["conversations", "messages", "prompt", "texts"];
const CAPTIONS: [&str; 3] = ["captions", "caption", "text"];

/// The first of some fields that is there; null is nothing.
pub(super) fn first<'r>(record: &'r Object, names: &[&'static str]) -> Option<(&'static str, &'r Value)> {
    let field = |name: &&'static str| Some((*name, record.get(*name).filter(|value| !value.is_null())?));
    names.iter().find_map(field)
}

/// What a record says by itself, whatever text stands beside it.
pub(super) fn said(record: &Object) -> Option<&Value> {
    let found = first(record, &TALKS).or_else(|| first(record, &CAPTIONS[..2]));
    found.map(|(_, value)| value)
}

/// What a record says of `images`: as `conversations`, `messages`, `prompt` and `completion`, `texts` of user and assistant
/// (the Cauldron's), `captions`, `caption` or `text`, whichever comes first. Without an image it says nothing.
pub(super) fn content(mut record: Object, images: Vec<String>, ask: &Ask) -> Result<Content, Fault> {
    let talk = first(&record, &TALKS).map(|(name, _)| name);
    let caption = first(&record, &CAPTIONS).map(|(name, _)| name);
    // The images are those that come with it, whatever the record calls them.
    record.remove("image");
    record.insert("images".into(), images.clone().into());
    match (talk, caption) {
        (Some("conversations"), _) => llava::content(&record),
        (Some("messages"), _) => messages::content(&record),
        (Some("texts"), _) => texts(&record, images),
        (Some(_), _) => completion::content(&record),
        (None, Some(field)) => captioned(&record, field, images, ask),
        (None, None) => fault("", "no conversations, messages, prompt and completion, texts, caption or text"),
    }
}

fn captioned(record: &Object, field: &str, images: Vec<String>, ask: &Ask) -> Result<Content, Fault> {
    let text = |value: &Value| match value {
        Value::String(text) if !text.trim().is_empty() => Ok(text.trim().to_string()),
        Value::String(_) => fault(field, "says nothing"),
        other => fault(field, format!("expected text, found {}", kind(Some(other)))),
    };
    let captions: Vec<String> = match &record[field] {
        Value::Array(captions) => captions.iter().map(text).collect::<Result<_, _>>()?,
        one => vec![text(one)?],
    };
    let mut images = images.into_iter();
    match (images.next(), images.next()) {
        (None, _) => Ok(Content::default()),
        (Some(image), None) => match Content::captioned(image, &ask.question, captions) {
            Some(content) => Ok(content),
            None => fault(field, "none"),
        },
        _ => fault("images", "several with one caption"),
    }
}

/// The Cauldron's turns: `[{"user": "…", "assistant": "…"}]`.
fn texts(record: &Object, images: Vec<String>) -> Result<Content, Fault> {
    let Some(Value::Array(turns)) = record.get("texts") else {
        return fault("texts", format!("expected a list of turns, found {}", kind(record.get("texts"))));
    };
    let mut said = Vec::with_capacity(2 * turns.len());
    for (i, turn) in turns.iter().enumerate() {
        for (name, answers) in [("user", false), ("assistant", true)] {
            let field = format!("texts[{i}].{name}");
            match turn.get(name) {
                Some(Value::String(text)) => said.push(Said { answers, text: text.clone(), field }),
                other => return fault(field, format!("expected text, found {}", kind(other))),
            }
        }
    }
    talk::conversation("texts", said, talk::text(record, "system")?, images, Place::Mark)
}
