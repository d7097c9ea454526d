//! What is wrong with a record.

use serde_json::Value;

/// The field to blame, empty for the record as a whole, and what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) field: String,
    pub(super) message: String,
}

impl Fault {
    /// The same of a record that is part of another.
    pub(super) fn within(self, place: &str) -> Fault {
        let field = match self.field.is_empty() {
            true => place.to_string(),
            false => format!("{place}.{}", self.field),
        };
        Fault { field, ..self }
    }
}

pub(super) fn fault<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Fault> {
    Err(Fault { field: field.into(), message: message.into() })
}

/// A JSON value's kind, in words.
pub(super) fn kind(value: Option<&Value>) -> &'static str {
    match value {
        None => "nothing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "true or false",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(text)) if text.is_empty() => "empty text",
        Some(Value::String(_)) => "text",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}
