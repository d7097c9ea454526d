//! Messages as TRL has them: `{"messages": [{"role": "user", "content": …}, {"role": "assistant", "content": …}], "images": […]}`.
//!
//! A message's content is text, with a mark `<image>` for each image, or a list of parts `{"type": "text", "text": …}` and
//! `{"type": "image"}`, which may name its file as `image` or `path`. An image goes where its part or mark stands. The first
//! message may be the system's.

use super::fault::{Fault, fault, kind};
use super::json::Object;
use super::talk::{self, Place, Said};
use crate::data::record::{Content, MARK};
use serde_json::Value;

/// What a record says.
pub(super) fn content(record: &Object) -> Result<Content, Fault> {
    match record.get("messages") {
        Some(Value::Array(messages)) => conversation(record, "messages", messages.iter()),
        other => fault("messages", format!("expected a list of messages, found {}", kind(other))),
    }
}

/// The same of a list of messages called `field`.
pub(super) fn conversation<'m>(
    record: &Object,
    field: &str,
    messages: impl Iterator<Item = &'m Value>,
) -> Result<Content, Fault> {
    let (mut system, mut said) = (None, Vec::new());
    let mut named = Vec::new();
    for (index, message) in messages.enumerate() {
        let place = format!("{field}[{index}]");
        let (role, text) = (role(message, &place)?, words(message, &place, &mut named)?);
        match role {
            "system" | "developer" if index == 0 => system = Some(text),
            "system" | "developer" => return fault(place + ".role", "only the first message may be the system's"),
            _ => said.push(Said { answers: role == "assistant", text, field: place + ".content" }),
        }
    }
    if let Some((_, wrong)) = said.iter().enumerate().find(|(i, said)| said.answers != (i % 2 == 1)) {
        let (found, expected) = match wrong.answers {
            true => ("assistant", "user"),
            false => ("user", "assistant"),
        };
        let message = format!("turns do not alternate: `{found}` speaks where `{expected}` should");
        return fault(wrong.field.replace(".content", ".role"), message);
    }
    let mut images = talk::images(record)?;
    if images.is_empty() {
        images = named;
    } else if !named.is_empty() && named != images {
        return fault(field, "its parts name other images than the record's `images`; leave one of them out");
    }
    talk::conversation(field, said, system, images, Place::Mark)
}

fn role<'m>(message: &'m Value, place: &str) -> Result<&'m str, Fault> {
    const ROLES: [&str; 4] = ["system", "developer", "user", "assistant"];
    match message.get("role") {
        Some(Value::String(role)) if ROLES.contains(&role.as_str()) => Ok(role),
        Some(Value::String(role)) => {
            fault(format!("{place}.role"), format!("unknown role `{role}`; expected `system`, `user` or `assistant`"))
        }
        other => fault(format!("{place}.role"), format!("expected `user` or `assistant`, found {}", kind(other))),
    }
}

/// A message's text with its images as marks; those that are named are added to `named`.
fn words(message: &Value, place: &str, named: &mut Vec<String>) -> Result<String, Fault> {
    let field = format!("{place}.content");
    let parts = match message.get("content") {
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        other => {
            return fault(field, format!("expected text or a list of parts, found {}", kind(other)));
        }
    };
    let mut words = String::new();
    for (i, part) in parts.iter().enumerate() {
        let place = format!("{field}[{i}]");
        match (part.get("type"), part.get("text")) {
            (Some(Value::String(one)), Some(Value::String(text))) if one == "text" => words += text,
            (Some(Value::String(one)), _) if one == "image" => {
                words += MARK;
                let mut name = [part.get("image"), part.get("path")].into_iter().flatten();
                match name.find(|name| !name.is_null()) {
                    Some(Value::String(name)) => named.push(name.clone()),
                    None => {}
                    other => return fault(place + ".image", format!("expected a file name, found {}", kind(other))),
                }
            }
            (Some(Value::String(other)), text) if other == "text" => {
                return fault(place + ".text", format!("expected text, found {}", kind(text)));
            }
            (Some(Value::String(other)), _) => {
                return fault(place + ".type", format!("`{other}`: expected `text` or `image`"));
            }
            (other, _) => {
                let message = format!("expected `text` or `image`, found {}", kind(other));
                return fault(place + ".type", message);
            }
        }
    }
    Ok(words)
}
