//! WebDataset: tar shards in which the files of a sample have one name up to its first dot, `0001.jpg` and `0001.txt`. Beside
//! the image there is a caption (`.txt`), or a record (`.json`) of any of the other formats' fields or with a `caption`, which
//! counts before the `.txt`. As in the `webdataset` library the whole of what follows the first dot is the field, in upper or
//! lower case (`0001.ocr.txt` is another), and names that begin with a dot are passed over.

use super::fault::{Fault, fault};
use super::json::{self, Object};
use super::{Ask, IMAGES, add, fields};
use crate::data::passed_over::PassedOver;
use crate::data::record::{Content, Found, Select};
use crate::data::shards::{Member, Shards};
use anyhow::Result;
use model::file_kind;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

/// The files of one sample.
#[derive(Default)]
struct Files {
    key: String,
    /// Names of images, in order.
    images: Vec<String>,
    text: Option<Member>,
    json: Option<Member>,
    fields: Vec<String>,
    twice: Option<String>,
}

/// The samples of all shards, in order.
pub(super) fn records(pattern: &Path, select: &Select, ask: &Ask) -> Result<(Found, Shards)> {
    let mut samples: Vec<Files> = Vec::new();
    let mut passed = PassedOver::default();
    let mut shards = Shards::open(pattern, |name, member| {
        let (key, field) = match split(name) {
            Ok(parts) => parts,
            Err(why) => return passed.add(why, name),
        };
        if samples.last().is_none_or(|last| last.key != key) {
            samples.push(Files { key: key.into(), ..Files::default() });
        }
        let Some(sample) = samples.last_mut() else { return };
        match field.as_str() {
            "txt" => sample.text = Some(*member),
            "json" => sample.json = Some(*member),
            image if IMAGES.contains(&image) => sample.images.push(name.into()),
            other => passed.add(format!("members `.{other}`, which are not read"), name),
        }
        match sample.fields.contains(&field) {
            true => sample.twice = Some(field),
            false => sample.fields.push(field),
        }
    })?;
    passed.extend(std::mem::take(&mut shards.passed_over));
    let (mut found, mut splits) = (Found::default(), BTreeMap::new());
    found.passed_over = passed;
    for sample in samples {
        if select.is_full(&found) {
            break;
        }
        // A sample of nothing that is read is passed over with its members.
        if sample.images.is_empty() && sample.text.is_none() && sample.json.is_none() {
            continue;
        }
        let key = sample.key.clone();
        let content = content(sample, &shards, select, ask, &mut splits);
        add(&mut found, pattern, key, content);
    }
    json::check_any(&found, pattern, select, &splits)?;
    Ok((found, shards))
}

/// A member's name up to the first dot of its file name, and the field that follows; otherwise what such members are.
fn split(name: &str) -> Result<(&str, String), &'static str> {
    // The shard's own name has a dot.
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(0) => Err("members whose names begin with a dot"),
        Some(dot) => Ok((&name[..file + dot], name[file + dot + 1..].to_lowercase())),
        None => Err("members without a suffix"),
    }
}

/// What a sample says; none where it is of another split.
fn content(
    sample: Files,
    shards: &Shards,
    select: &Select,
    ask: &Ask,
    splits: &mut BTreeMap<String, usize>,
) -> Result<Option<Content>, Fault> {
    if let Some(field) = sample.twice {
        return fault(field, "two members of this name");
    }
    // Images are read by their names, later.
    for name in &sample.images {
        if let Err(error) = shards.find(name) {
            return fault("image", format!("{error:#}"));
        }
    }
    let read = |field: &str, member: Member| {
        let bytes = shards.read(member, json::MAX_RECORD as u64);
        bytes.or_else(|error| fault(field, format!("{error:#}")))
    };
    let bytes = match sample.json {
        Some(member) => read("json", member)?,
        None => Vec::new(),
    };
    let mut record = match sample.json {
        Some(_) => json::object(&bytes)?,
        None => Object::new(),
    };
    if !json::is_wanted(&record, select, splits)? {
        return Ok(None);
    }
    let mut unread = false;
    if let Some(member) = sample.text {
        let said = text(read("txt", member)?);
        match fields::said(&record) {
            None => drop(record.insert("caption".into(), said?.into())),
            Some(own) => unread = !said.is_ok_and(|said| says(own, said.trim())),
        }
    }
    let mut content = fields::content(record, sample.images, ask)
        .map_err(|fault| Fault { message: fault.message + &json::about_nan(&bytes, 0..bytes.len()), ..fault })?;
    if unread {
        content.passed_over.push("texts `.txt` that say otherwise than their `.json`");
    }
    Ok(Some(content))
}

/// A caption's text.
fn text(bytes: Vec<u8>) -> Result<String, Fault> {
    match String::from_utf8(bytes) {
        Ok(text) if text.contains('\0') => fault("txt", "not UTF-8 text: it has NUL characters"),
        Ok(text) => Ok(text.trim_start_matches('\u{feff}').into()),
        Err(error) => match file_kind(error.as_bytes()) {
            Some(kind) => fault("txt", format!("not UTF-8, but {kind}")),
            None => fault("txt", "not UTF-8"),
        },
    }
}

/// Whether a caption, or one of several, is this text.
fn says(caption: &Value, text: &str) -> bool {
    match caption {
        Value::String(caption) => caption.trim() == text,
        Value::Array(captions) => captions.iter().any(|caption| says(caption, text)),
        _ => false,
    }
}

#[cfg(test)]
#[path = "webdataset_tests.rs"]
mod tests;
