//! LLaVA conversations: a JSON array, or JSON lines, of
//! `{"id": …, "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "…"}]}`.
//!
//! The image always stands in front of the first question, wherever its mark `<image>` is; the mark is taken out.

use super::bad_records::{BadRecord, BadRecords};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;

/// The mark for the image in a question.
const MARK: &str = "<image>";
/// The longest record in bytes; longer ones are bad records.
const MAX_RECORD: usize = 1 << 20;
/// The largest file in bytes.
const MAX_FILE: u64 = 4 << 30;

/// One question and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// What is asked, without the image's mark.
    pub question: String,
    /// What the model is to say.
    pub answer: String,
}

/// One conversation about one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its line in the file, counted from 1.
    pub line: usize,
    /// The record's `id`, or its line where it has none.
    pub id: String,
    /// The image's name as written.
    pub image: String,
    /// At least one.
    pub turns: Vec<Turn>,
}

/// Which records of a file are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Select {
    /// The field that names a record's split.
    pub field: String,
    /// The split wanted; None: every record.
    pub split: Option<String>,
    /// At most so many, the first of the file.
    pub limit: Option<usize>,
}

impl Default for Select {
    fn default() -> Select {
        Select {
            field: "split".into(),
            split: None,
            limit: None,
        }
    }
}

/// The conversations of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conversations {
    /// Those that are good, in the file's order.
    pub records: Vec<Record>,
    /// Records without an image and without a mark: left out.
    pub text_only: usize,
    /// Records of another split: left out.
    pub other_splits: usize,
    /// Records that cannot be used.
    pub bad: BadRecords,
}

/// Reads the conversations of `file`. Whether the images are there is not looked at.
///
/// # Errors
/// When the file cannot be read, is cut off, or holds no record that is wanted. Single bad records are counted in
/// [`Conversations::bad`].
pub fn read(file: &Path, select: &Select) -> Result<Conversations> {
    let about = std::fs::metadata(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    ensure!(about.is_file(), "{}: not a file of conversations", file.display());
    ensure!(
        about.len() <= MAX_FILE,
        "{}: {} bytes are more than the {MAX_FILE} that are read at once; split the file",
        file.display(),
        about.len()
    );
    let bytes = std::fs::read(file).with_context(|| format!("{}: cannot be read", file.display()))?;
    parse(&bytes, file, select)
}

/// As [`read`], from the file's bytes; `file` is the name messages use.
///
/// # Errors
/// As [`read`].
pub fn parse(bytes: &[u8], file: &Path, select: &Select) -> Result<Conversations> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = Reader {
        file,
        select,
        splits: BTreeMap::new(),
        found: Conversations::default(),
    };
    match bytes.iter().position(|byte| !byte.is_ascii_whitespace()) {
        None => bail!("{}: empty: not one record", file.display()),
        Some(start) if bytes[start] == b'[' => reader.array(bytes, start)?,
        Some(_) => reader.lines(bytes),
    }
    let Reader { splits, found, .. } = reader;
    if found.records.is_empty() && found.bad.count == 0 {
        let seen: Vec<String> = splits
            .iter()
            .map(|(split, count)| format!("{split} ({count})"))
            .collect();
        match &select.split {
            Some(split) if !seen.is_empty() => bail!(
                "{}: no record has {} = \"{split}\"; there are {}",
                file.display(),
                select.field,
                seen.join(", ")
            ),
            _ => bail!("{}: not one record with an image", file.display()),
        }
    }
    Ok(found)
}

/// What is wrong with a record: field and message.
type Fault = (String, String);

fn fault<T>(field: impl Into<String>, message: impl Into<String>) -> Result<T, Fault> {
    Err((field.into(), message.into()))
}

struct Reader<'a> {
    file: &'a Path,
    select: &'a Select,
    /// Records per split, of those left out.
    splits: BTreeMap<String, usize>,
    found: Conversations,
}

impl Reader<'_> {
    fn full(&self) -> bool {
        self.select.limit.is_some_and(|limit| self.found.records.len() >= limit)
    }

    fn lines(&mut self, bytes: &[u8]) {
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            if self.full() {
                return;
            }
            let line = line.trim_ascii();
            if !line.is_empty() {
                self.record(index + 1, line);
            }
        }
    }

    /// A JSON array whose `[` is at `at`, one element at a time, so that each has its line.
    fn array(&mut self, bytes: &[u8], mut at: usize) -> Result<()> {
        let (mut line, mut counted) = (1, 0);
        let mut line_at = |offset: usize| {
            line += bytes[counted..offset].iter().filter(|byte| **byte == b'\n').count();
            counted = offset;
            line
        };
        let skip = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        at = skip(at + 1);
        if bytes.get(at) == Some(&b']') {
            bail!("{}: empty: not one record", self.file.display());
        }
        while !self.full() {
            let line = line_at(at);
            let mut elements = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<&RawValue>();
            match elements.next() {
                Some(Ok(element)) => self.record(line, element.get().as_bytes()),
                Some(Err(error)) => {
                    bail!(
                        "{}:{}: not JSON: {}",
                        self.file.display(),
                        line + error.line() - 1,
                        plain(&error)
                    )
                }
                None => bail!(
                    "{}:{line}: the file ends within its list of records",
                    self.file.display()
                ),
            }
            at = skip(at + elements.byte_offset());
            match bytes.get(at) {
                Some(b',') => at = skip(at + 1),
                Some(b']') => return Ok(()),
                Some(_) => bail!(
                    "{}:{}: expected `,` or `]` after a record",
                    self.file.display(),
                    line_at(at)
                ),
                None => bail!(
                    "{}:{}: the file ends within its list of records",
                    self.file.display(),
                    line_at(at)
                ),
            }
        }
        Ok(())
    }

    fn record(&mut self, line: usize, bytes: &[u8]) {
        let mut id = None;
        match self.try_record(line, bytes, &mut id) {
            Ok(Some(record)) => self.found.records.push(record),
            Ok(None) => {}
            Err((field, message)) => self.found.bad.add(BadRecord {
                file: self.file.to_owned(),
                line,
                id,
                field,
                message,
            }),
        }
    }

    /// The record, None if it is not wanted; `id` is set as soon as it is known.
    fn try_record(&mut self, line: usize, bytes: &[u8], id: &mut Option<String>) -> Result<Option<Record>, Fault> {
        if bytes.len() > MAX_RECORD {
            return fault("", format!("{} bytes long, longer than {MAX_RECORD}", bytes.len()));
        }
        let value: Value =
            serde_json::from_slice(bytes).or_else(|error| fault("", format!("not JSON: {}", plain(&error))))?;
        let Value::Object(record) = value else {
            return fault("", format!("expected an object, found {}", kind(Some(&value))));
        };
        *id = match record.get("id") {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(Value::Number(number)) => Some(number.to_string()),
            other => return fault("id", format!("expected text or a number, found {}", kind(other))),
        };
        if let Some(wanted) = &self.select.split {
            let field = &self.select.field;
            let Some(Value::String(split)) = record.get(field) else {
                return fault(
                    field,
                    format!("expected the name of a split, found {}", kind(record.get(field))),
                );
            };
            *self.splits.entry(split.clone()).or_default() += 1;
            if split != wanted {
                self.found.other_splits += 1;
                return Ok(None);
            }
        }
        let image = match record.get("image") {
            None | Some(Value::Null) => None,
            Some(Value::String(name)) if !name.is_empty() => Some(name.clone()),
            other => return fault("image", format!("expected one file name, found {}", kind(other))),
        };
        let turns = conversation(record.get("conversations"), image.is_some())?;
        let Some(image) = image else {
            self.found.text_only += 1;
            return Ok(None);
        };
        let id = id.clone().unwrap_or_else(|| format!("line {line}"));
        Ok(Some(Record { line, id, image, turns }))
    }
}

/// The turns of `conversations`: human and gpt in alternation, each saying something.
fn conversation(value: Option<&Value>, has_image: bool) -> Result<Vec<Turn>, Fault> {
    let said = match value {
        Some(Value::Array(said)) => said,
        other => {
            return fault(
                "conversations",
                format!("expected a list of turns, found {}", kind(other)),
            );
        }
    };
    if said.is_empty() {
        return fault("conversations", "empty");
    }
    if said.len() % 2 == 1 {
        return fault(
            "conversations",
            format!("{} entries: the last question has no answer", said.len()),
        );
    }
    let mut marks = 0;
    let mut turns = Vec::with_capacity(said.len() / 2);
    for (index, pair) in said.chunks(2).enumerate() {
        let question = spoken(&pair[0], 2 * index, &["human", "user"])?;
        let answer = spoken(&pair[1], 2 * index + 1, &["gpt", "assistant"])?;
        if answer.contains(MARK) {
            return fault(value_field(2 * index + 1), format!("an answer with the mark `{MARK}`"));
        }
        marks += question.matches(MARK).count();
        let question = question.replace(MARK, "").trim().to_string();
        if question.is_empty() || answer.trim().is_empty() {
            return fault(
                value_field(2 * index + usize::from(!question.is_empty())),
                "says nothing",
            );
        }
        turns.push(Turn {
            question,
            answer: answer.trim().to_string(),
        });
    }
    match (marks, has_image) {
        (0, _) | (1, true) => Ok(turns),
        (_, false) => fault("image", format!("missing, but the conversation has the mark `{MARK}`")),
        _ => fault("conversations", format!("{marks} marks `{MARK}` for one image")),
    }
}

fn value_field(index: usize) -> String {
    format!("conversations[{index}].value")
}

/// What entry `index` says, if it is one of `speakers` that says it.
fn spoken<'a>(entry: &'a Value, index: usize, speakers: &[&str]) -> Result<&'a str, Fault> {
    let from = format!("conversations[{index}].from");
    match entry.get("from") {
        Some(Value::String(name)) if speakers.contains(&name.as_str()) => {}
        Some(Value::String(name)) if ["human", "user", "gpt", "assistant"].contains(&name.as_str()) => {
            return fault(
                from,
                format!("turns do not alternate: `{name}` speaks where `{}` should", speakers[0]),
            );
        }
        Some(Value::String(name)) => {
            return fault(from, format!("unknown speaker `{name}`; expected `{}`", speakers[0]));
        }
        other => return fault(from, format!("expected `{}`, found {}", speakers[0], kind(other))),
    }
    match entry.get("value") {
        Some(Value::String(text)) => Ok(text),
        other => fault(value_field(index), format!("expected text, found {}", kind(other))),
    }
}

/// A JSON value's kind, in words.
fn kind(value: Option<&Value>) -> &'static str {
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

/// serde_json's message without its own line and column, which count from the record.
fn plain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or_default().to_string()
}

#[cfg(test)]
#[path = "llava_tests.rs"]
mod tests;
