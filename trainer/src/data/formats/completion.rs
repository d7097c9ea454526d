//! Prompts and completions as TRL has them: `{"prompt": "What is it?", "completion": "A cat.", "image": "a.png"}`; `images`
//! is a list. Both may be lists of messages in place of texts.

use super::fault::{Fault, fault, kind};
use super::json::Object;
use super::messages;
use super::talk::{self, Place, Said};
use crate::data::record::Content;
use serde_json::Value;

/// What a record says.
pub(super) fn content(record: &Object) -> Result<Content, Fault> {
    match (record.get("prompt"), record.get("completion")) {
        (Some(Value::Array(prompt)), Some(Value::Array(completion))) => {
            messages::conversation(record, "prompt + completion", prompt.iter().chain(completion))
        }
        (Some(Value::String(prompt)), Some(Value::String(completion))) => {
            let said = |field: &str, text: &String| Said {
                answers: field == "completion",
                text: text.clone(),
                field: field.into(),
            };
            let said = vec![said("prompt", prompt), said("completion", completion)];
            let (system, images) = (talk::text(record, "system")?, talk::images(record)?);
            talk::conversation("prompt", said, system, images, Place::Mark)
        }
        (Some(Value::String(_)), other) => fault("completion", format!("expected text, found {}", kind(other))),
        (Some(Value::Array(_)), other) => fault("completion", format!("expected messages, found {}", kind(other))),
        (other, _) => fault("prompt", format!("expected text or messages, found {}", kind(other))),
    }
}
