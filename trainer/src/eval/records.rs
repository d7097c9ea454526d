//! Records of JSON lines or a JSON array, and whole JSON documents: each error names file, line and field.

pub(crate) use crate::data::formats::bytes;

use crate::data::formats::{about_nan, nan_at, without_nan};
use anyhow::{Result, anyhow, ensure};
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

/// The longest record in bytes.
const MAX_RECORD: usize = 1 << 20;

/// The records of JSON lines or an array, each with its line, counted from 1. At most `limit`, the first of the file.
///
/// # Errors
/// Names the first record that is not what `T` expects, and a file without one.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: Option<usize>) -> Result<Vec<(usize, T)>> {
    let records = each(bytes, file, limit)?.into_iter();
    records.map(|(line, record)| Ok((line, record?))).collect()
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// File and line.
    pub place: String,
    /// What is wrong with it.
    pub why: String,
}

impl Unread {
    /// Of the record at a line, counted from 1.
    pub fn new(file: &Path, line: usize, why: impl Into<String>) -> Unread {
        let place = format!("{}:{line}", file.display());
        Unread { place, why: why.into() }
    }
}

impl fmt::Display for Unread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.why)
    }
}

impl std::error::Error for Unread {}

/// A record with its line.
type Read<T> = (usize, Result<T, Unread>);

/// As [`parse`], with what is wrong with a record in its place.
///
/// # Errors
/// Where not one record can be read that of the first; a file without one.
pub fn each<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: Option<usize>) -> Result<Vec<Read<T>>> {
    let limit = limit.unwrap_or(usize::MAX);
    let mut records = match is_array(bytes) {
        true => array(bytes, file, limit)?,
        false => lines(bytes, file, limit),
    };
    ensure!(!records.is_empty(), "{}: not one record", file.display());
    if !records.iter().any(|(_, record)| record.is_ok()) {
        records.swap_remove(0).1?;
    }
    Ok(records)
}

/// A whole JSON document.
///
/// # Errors
/// Names the line, and the field at its top, where it is not what `T` expects.
pub fn document<T: DeserializeOwned>(bytes: &[u8], file: &Path) -> Result<T> {
    let bytes = without_mark(bytes);
    let plain = &without_nan(bytes);
    serde_json::from_slice(plain).map_err(|error| {
        // Of all NaN of a document the one that the error is about.
        let place = nan_at(bytes, offset(plain, &error), 1);
        let nan = place.map_or(String::new(), |place| about_nan(bytes, place));
        anyhow!("{}:{}: {}{nan}", file.display(), error.line(), message(plain, &error))
    })
}

/// Whether the file is an array.
pub fn is_array(bytes: &[u8]) -> bool {
    first(bytes) == Some(b'[')
}

/// Whether the file is one object with a field of this name at its top, rather than an object a line.
pub fn is_document(bytes: &[u8], field: &str) -> bool {
    first(bytes) == Some(b'{') && {
        let plain = &without_nan(without_mark(bytes));
        serde_json::from_slice::<Fields<'_>>(plain).is_ok_and(|fields| fields.0.contains_key(field))
    }
}

fn first(bytes: &[u8]) -> Option<u8> {
    without_mark(bytes).iter().find(|byte| !byte.is_ascii_whitespace()).copied()
}

/// Without the mark that some editors put in front of UTF-8.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// The fields of an object, unread.
#[derive(Deserialize)]
struct Fields<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

/// A label that says yes or no: true or false, 1 or 0, or one of these as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(pub bool);

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Label, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let text = match &value {
            Value::String(text) => text.trim().to_lowercase(),
            other => other.to_string(),
        };
        match text.as_str() {
            "true" | "yes" | "1" | "1.0" => Ok(Label(true)),
            "false" | "no" | "0" | "0.0" => Ok(Label(false)),
            _ => Err(D::Error::custom(format!("expected true or false, yes or no, or 1 or 0, found {value}"))),
        }
    }
}

fn lines<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: usize) -> Vec<Read<T>> {
    let lines = without_mark(bytes).split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let filled = lines.enumerate().filter(|(_, line)| !line.is_empty());
    filled.take(limit).map(|(i, line)| (i + 1, record(line, bytes, file, i + 1))).collect()
}

fn array<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: usize) -> Result<Vec<Read<T>>> {
    let bytes = without_mark(bytes);
    let plain = &without_nan(bytes);
    let elements: Vec<&RawValue> = serde_json::from_slice(plain)
        .map_err(|error| anyhow!("{}:{}: {}", file.display(), error.line(), message(plain, &error)))?;
    let (mut line, mut counted) = (1, 0);
    let mut records = Vec::new();
    for element in elements.into_iter().take(limit) {
        // The element is a part of the text: where it starts tells its line.
        let place = place(element.get().as_bytes(), plain);
        line += plain[counted..place.start].iter().filter(|byte| **byte == b'\n').count();
        counted = place.start;
        records.push((line, record(&bytes[place], bytes, file, line)));
    }
    Ok(records)
}

/// Where a part of some bytes lies in them.
fn place(part: &[u8], whole: &[u8]) -> Range<usize> {
    let start = part.as_ptr() as usize - whole.as_ptr() as usize;
    start..start + part.len()
}

/// The record that these bytes of a file are.
fn record<T: DeserializeOwned>(bytes: &[u8], whole: &[u8], file: &Path, line: usize) -> Result<T, Unread> {
    let unread = |why| Unread::new(file, line, why);
    if bytes.len() > MAX_RECORD {
        return Err(unread(format!("{} bytes long, longer than {MAX_RECORD}", bytes.len())));
    }
    let plain = &without_nan(bytes);
    serde_json::from_slice(plain).map_err(|error| {
        let nan = about_nan(whole, place(bytes, whole));
        unread(format!("{}{nan}", message(plain, &error)))
    })
}

/// serde_json's message without its own line and column, behind the field at the top that it is about.
fn message(bytes: &[u8], error: &serde_json::Error) -> String {
    if std::str::from_utf8(bytes).is_err() {
        return "not UTF-8".into();
    }
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    match field(bytes, error).filter(|_| error.is_data() && !text.contains("field `")) {
        Some(field) => format!("{field}: {text}"),
        None => text.into(),
    }
}

/// The byte that an error is about, or the one before it.
fn offset(bytes: &[u8], error: &serde_json::Error) -> usize {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let before = lines.take(error.line().saturating_sub(1));
    before.map(<[u8]>::len).sum::<usize>() + error.column()
}

/// The field at an object's top whose value an error is about.
fn field(bytes: &[u8], error: &serde_json::Error) -> Option<String> {
    let at = offset(bytes, error);
    let Fields(fields) = serde_json::from_slice(bytes).ok()?;
    let start = |value: &RawValue| place(value.get().as_bytes(), bytes).start;
    // Some errors are told behind the value, but before the next.
    let read = fields.into_iter().filter(|(_, value)| start(value) <= at);
    Some(read.max_by_key(|(_, value)| start(value))?.0)
}
