//! Records in a JSON array or in JSON lines, one at a time, each with its place.

use super::fault::{Fault, fault, kind};
use crate::data::bad_records::{BadRecord, NAMED};
use crate::data::record::{Content, Found, Record, Select};
use anyhow::{Context, Result, bail};
use model::{file_kind, read_file};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// A record's fields.
pub(crate) type Object = serde_json::Map<String, Value>;

/// The longest record in bytes; longer ones are bad records.
pub(super) const MAX_RECORD: usize = 1 << 20;
/// The largest file in bytes.
const MAX_FILE: u64 = 4 << 30;

/// A whole file of text, no longer than is read at once.
pub(crate) fn bytes(file: &Path) -> Result<Vec<u8>> {
    let bytes = read_file(file, MAX_FILE).with_context(|| format!("{}: cannot be read", file.display()))?;
    match file_kind(&bytes).filter(|_| !bytes.is_empty()) {
        Some(kind) => bail!("{}: {kind}, no records in JSON (UTF-8)", file.display()),
        None => Ok(bytes),
    }
}

/// What Python writes though JSON does not have it.
const NOT_JSON: [&str; 3] = ["NaN", "Infinity", "-Infinity"];

/// Hands `see` each token outside of texts that Python writes though JSON does not have it.
fn each_nan(bytes: &[u8], mut see: impl FnMut(Range<usize>, &'static str)) {
    let (mut at, mut quoted) = (0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if quoted => at += 1,
            b'"' => quoted = !quoted,
            // Texts end with their line: one that is cut off does not hide the others.
            b'\n' => quoted = false,
            b'N' | b'I' | b'-' if !quoted => {
                let token = NOT_JSON.iter().find(|token| bytes[at..].starts_with(token.as_bytes()));
                if let Some(token) = token {
                    see(at..at + token.len(), token);
                    at += token.len() - 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
}

/// JSON as Python writes it with an empty object, of the same length, for every NaN and infinity: where nobody reads the field
/// it does no harm, and otherwise it is neither a number nor a text.
pub(crate) fn without_nan(bytes: &[u8]) -> Cow<'_, [u8]> {
    let mut plain = Cow::Borrowed(bytes);
    each_nan(bytes, |place, _| {
        let token = &mut plain.to_mut()[place];
        token.fill(b' ');
        let last = token.len() - 1;
        (token[0], token[last]) = (b'{', b'}');
    });
    plain
}

/// What is to be said of a fault of the record at `place`: where it has NaN, which was read as an object. Columns are counted
/// from 1, in bytes.
pub(crate) fn about_nan(bytes: &[u8], place: Range<usize>) -> String {
    let (mut places, mut more) = (Vec::new(), "");
    each_nan(&bytes[place.clone()], |token, name| {
        if places.len() == NAMED {
            more = ", …";
            return;
        }
        let at = place.start + token.start;
        let line = bytes[..at].iter().rposition(|byte| *byte == b'\n');
        places.push(format!("{name} at column {}", at - line.map_or(0, |end| end + 1) + 1));
    });
    match places.is_empty() {
        true => String::new(),
        false => format!(" ({}: not JSON, allowed only in fields that are not read)", places.join(", ")),
    }
}

/// Where the NaN is that an error at a byte is about, if there is one that ends at most `behind` bytes before.
pub(crate) fn nan_at(bytes: &[u8], at: usize, behind: usize) -> Option<Range<usize>> {
    let before = &bytes[..at.min(bytes.len())];
    // Whether a byte is within a text is known from the line's start.
    let line = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let mut found = None;
    each_nan(&bytes[line..], |token, _| {
        let place = line + token.start..line + token.end;
        if place.start <= at && at <= place.end + behind {
            found = Some(place);
        }
    });
    found
}

/// The records of a file's bytes, each made by `content` of its fields; `file` is the name messages use.
///
/// # Errors
/// When the file is cut off, or holds no record that is wanted. Single bad records are counted in [`Found::bad`].
pub(super) fn records(
    bytes: &[u8],
    file: &Path,
    select: &Select,
    content: &dyn Fn(&Object) -> Result<Content, Fault>,
) -> Result<Found> {
    let mut reader =
        Reader { original: bytes, file, select, content, splits: BTreeMap::new(), found: Found::default() };
    let bytes = &without_nan(bytes);
    match first(bytes) {
        None => bail!("{}: empty: not one record", file.display()),
        Some(start) if bytes[start] == b'[' => reader.array(bytes, start)?,
        Some(start) => reader.lines(bytes, start),
    }
    let Reader { splits, found, .. } = reader;
    check_any(&found, file, select, &splits)?;
    Ok(found)
}

/// Where the first byte is that says something: behind a byte order mark and white space.
pub(super) fn first(bytes: &[u8]) -> Option<usize> {
    let start = if bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let place = bytes[start..].iter().position(|byte| !byte.is_ascii_whitespace());
    place.map(|place| start + place)
}

/// Fails where nothing was found; a split that is absent is answered by those there are.
pub(super) fn check_any(found: &Found, file: &Path, select: &Select, splits: &BTreeMap<String, usize>) -> Result<()> {
    if !found.records.is_empty() || found.bad.count > 0 {
        return Ok(());
    }
    let seen: Vec<String> = splits.iter().map(|(split, count)| format!("{split} ({count})")).collect();
    match &select.split {
        Some(split) if !seen.is_empty() => {
            bail!("{}: no record has {} = \"{split}\"; there are {}", file.display(), select.field, seen.join(", "))
        }
        _ => bail!("{}: not one record with an image", file.display()),
    }
}

/// Whether a record is of the split that is wanted; counts the splits seen.
pub(super) fn is_wanted(record: &Object, select: &Select, splits: &mut BTreeMap<String, usize>) -> Result<bool, Fault> {
    let Some(wanted) = &select.split else { return Ok(true) };
    let field = &select.field;
    let Some(Value::String(split)) = record.get(field) else {
        let found = kind(record.get(field));
        return fault(field, format!("expected the name of a split, found {found}"));
    };
    *splits.entry(split.clone()).or_default() += 1;
    Ok(split == wanted)
}

/// A record's `id`, if it has one.
pub(super) fn id(record: &Object) -> Result<Option<String>, Fault> {
    match record.get("id") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Number(number)) => Ok(Some(number.to_string())),
        other => fault("id", format!("expected text or a number, found {}", kind(other))),
    }
}

/// The fields of a record of JSON.
pub(super) fn object(bytes: &[u8]) -> Result<Object, Fault> {
    if bytes.len() > MAX_RECORD {
        return fault("", format!("{} bytes long, longer than {MAX_RECORD}", bytes.len()));
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let bytes = &without_nan(bytes);
    match serde_json::from_slice(bytes) {
        Ok(Once(record)) => Ok(record),
        Err(_) if std::str::from_utf8(bytes).is_err() => fault("", "not UTF-8"),
        Err(error) if !error.is_data() => fault("", format!("not JSON: {}", plain(&error))),
        Err(error) => match serde_json::from_slice(bytes) {
            Err(error) => fault("", format!("not JSON: {}", plain(&error))),
            Ok(Value::Object(_)) => fault("", plain(&error)),
            Ok(other) => fault("", format!("expected an object, found {}", kind(Some(&other)))),
        },
    }
}

/// An object that has each of its fields once: of two, other readers take one or the other.
pub(crate) struct Once(pub(crate) Object);

impl<'de> Deserialize<'de> for Once {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Once, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Once;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Once, A::Error> {
                let mut fields = Object::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("the field `{name}` twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(Once(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

struct Reader<'a> {
    /// The file's bytes, with what is not JSON.
    original: &'a [u8],
    file: &'a Path,
    select: &'a Select,
    content: &'a dyn Fn(&Object) -> Result<Content, Fault>,
    /// Records per split, of all that name one.
    splits: BTreeMap<String, usize>,
    found: Found,
}

impl Reader<'_> {
    fn lines(&mut self, bytes: &[u8], start: usize) {
        let mut line = 1 + newlines(&bytes[..start]);
        let mut at = start;
        while at < bytes.len() && !self.select.is_full(&self.found) {
            let length = bytes[at..].iter().position(|byte| *byte == b'\n');
            let end = length.map_or(bytes.len(), |length| at + length);
            let text = bytes[at..end].trim_ascii_start();
            let begin = end - text.len();
            let text = text.trim_ascii_end();
            if !text.is_empty() {
                self.record(line, bytes, begin..begin + text.len());
            }
            line += 1;
            at = end + 1;
        }
    }

    /// A JSON array whose `[` is at `at`, one element at a time, so that each has its line.
    fn array(&mut self, bytes: &[u8], mut at: usize) -> Result<()> {
        let (mut line, mut counted) = (1, 0);
        let mut line_at = |offset: usize| {
            line += newlines(&bytes[counted..offset]);
            counted = offset;
            line
        };
        let skip = |at: usize| at + bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let name = self.file.display();
        at = skip(at + 1);
        if bytes.get(at) == Some(&b']') {
            bail!("{name}: empty: not one record");
        }
        while !self.select.is_full(&self.found) {
            let line = line_at(at);
            let mut elements = serde_json::Deserializer::from_slice(&bytes[at..]).into_iter::<&RawValue>();
            match elements.next() {
                Some(Ok(element)) => self.record(line, bytes, at..at + element.get().len()),
                Some(Err(error)) => bail!("{name}:{}: not JSON: {}", line + error.line() - 1, plain(&error)),
                None => bail!("{name}:{line}: the file ends within its list of records"),
            }
            at = skip(at + elements.byte_offset());
            match bytes.get(at) {
                Some(b',') => at = skip(at + 1),
                Some(b']') => return Ok(()),
                Some(_) => bail!("{name}:{}: expected `,` or `]` after a record", line_at(at)),
                None => bail!("{name}:{}: the file ends within its list of records", line_at(at)),
            }
        }
        Ok(())
    }

    fn record(&mut self, line: usize, bytes: &[u8], place: Range<usize>) {
        let mut id = None;
        match self.try_record(line, bytes, place.clone(), &mut id) {
            Ok(Some(record)) => self.found.add(record),
            Ok(None) => {}
            Err(fault) => self.found.bad.add(BadRecord {
                file: self.file.to_owned(),
                line,
                id,
                field: fault.field,
                message: fault.message + &about_nan(self.original, place),
            }),
        }
    }

    /// The record, None if it is not wanted; `id` is set as soon as it is known.
    fn try_record(
        &mut self,
        line: usize,
        bytes: &[u8],
        place: Range<usize>,
        name: &mut Option<String>,
    ) -> Result<Option<Record>, Fault> {
        let record = object(&bytes[place.clone()])?;
        *name = id(&record)?;
        if !is_wanted(&record, self.select, &mut self.splits)? {
            self.found.other_splits += 1;
            return Ok(None);
        }
        let content = (self.content)(&record)?;
        Ok(Some(Record {
            line,
            id: name.clone().unwrap_or_else(|| format!("line {line}")),
            bytes: Some(place),
            content,
        }))
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

/// serde_json's message without its own line and column, which count from the record.
pub(super) fn plain(error: &serde_json::Error) -> String {
    let message = error.to_string();
    message.split(" at line ").next().unwrap_or_default().to_string()
}
