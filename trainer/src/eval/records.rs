//! Records of JSON lines or a JSON array, and whole JSON documents: each error names file, line and field.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::path::Path;

/// The largest file in bytes.
const MAX_FILE: u64 = 1 << 30;
/// The longest record in bytes.
const MAX_RECORD: usize = 1 << 20;

/// A file's bytes, up to a gigabyte.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn bytes(file: &Path) -> Result<Vec<u8>> {
    let unreadable = || format!("{}: cannot be read", file.display());
    let about = std::fs::metadata(file).with_context(unreadable)?;
    ensure!(about.is_file(), "{}: not a file", file.display());
    ensure!(
        about.len() <= MAX_FILE,
        "{}: {} bytes are more than the {MAX_FILE} that are read at once; split the file",
        file.display(),
        about.len()
    );
    std::fs::read(file).with_context(unreadable)
}

/// The records of JSON lines or an array, each with its line, counted from 1. At most `limit`, the first of the file.
///
/// # Errors
/// Names the first record that is not what `T` expects, and a file without one.
pub fn parse<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: Option<usize>) -> Result<Vec<(usize, T)>> {
    let limit = limit.unwrap_or(usize::MAX);
    let records = match is_array(bytes) {
        true => array(bytes, file, limit)?,
        false => lines(bytes, file, limit)?,
    };
    ensure!(!records.is_empty(), "{}: not one record", file.display());
    Ok(records)
}

/// A whole JSON document.
///
/// # Errors
/// Names the line where it is not what `T` expects.
pub fn document<'b, T: Deserialize<'b>>(bytes: &'b [u8], file: &Path) -> Result<T> {
    let value = serde_json::from_slice(without_mark(bytes));
    value.map_err(|error| anyhow!("{}:{}: {}", file.display(), error.line(), plain(&error)))
}

/// Whether the file is an array.
pub fn is_array(bytes: &[u8]) -> bool {
    first(bytes) == Some(b'[')
}

/// Whether the file is one object with a field of this name at its top, rather than an object a line.
pub fn is_document(bytes: &[u8], field: &str) -> bool {
    #[derive(Deserialize)]
    struct Any<'a>(#[serde(borrow)] std::collections::BTreeMap<String, &'a RawValue>);
    first(bytes) == Some(b'{')
        && serde_json::from_slice::<Any<'_>>(without_mark(bytes)).is_ok_and(|any| any.0.contains_key(field))
}

fn first(bytes: &[u8]) -> Option<u8> {
    without_mark(bytes)
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .copied()
}

/// Without the mark that some editors put in front of UTF-8.
fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

fn lines<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: usize) -> Result<Vec<(usize, T)>> {
    let lines = without_mark(bytes).split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let filled = lines.enumerate().filter(|(_, line)| !line.is_empty());
    filled
        .take(limit)
        .map(|(i, line)| Ok((i + 1, record(line, file, i + 1)?)))
        .collect()
}

fn array<T: DeserializeOwned>(bytes: &[u8], file: &Path, limit: usize) -> Result<Vec<(usize, T)>> {
    let text = std::str::from_utf8(without_mark(bytes));
    let text = text.with_context(|| format!("{}: not UTF-8", file.display()))?;
    let elements: Vec<&RawValue> = document(text.as_bytes(), file)?;
    let (mut line, mut counted) = (1, 0);
    let mut records = Vec::new();
    for element in elements.into_iter().take(limit) {
        // The element is a part of the text: where it starts tells its line.
        let start = element.get().as_ptr() as usize - text.as_ptr() as usize;
        line += text.as_bytes()[counted..start]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        counted = start;
        records.push((line, record(element.get().as_bytes(), file, line)?));
    }
    Ok(records)
}

fn record<T: DeserializeOwned>(bytes: &[u8], file: &Path, line: usize) -> Result<T> {
    if bytes.len() > MAX_RECORD {
        bail!(
            "{}:{line}: {} bytes long, longer than {MAX_RECORD}",
            file.display(),
            bytes.len()
        );
    }
    serde_json::from_slice(bytes).map_err(|error| anyhow!("{}:{line}: {}", file.display(), plain(&error)))
}

/// serde_json's message without its own line and column.
fn plain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or_default().to_string()
}
