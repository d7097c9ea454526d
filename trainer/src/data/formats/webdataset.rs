//! WebDataset: tar shards in which the files of a sample have one name up to its first dot, `0001.jpg` and `0001.txt`. Beside
//! the image there is a caption (`.txt`), or a record (`.json`) of any of the other formats' fields or with a `caption`.

use super::fault::{Fault, fault};
use super::json::{self, Object};
use super::{Ask, add, fields};
use crate::data::record::{Content, Found, Select};
use crate::data::shards::{Member, Shards};
use anyhow::Result;
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
}

/// The samples of all shards, in order.
///
/// # Errors
/// Those of [`Shards::open`], and when no sample is wanted.
pub(super) fn records(pattern: &Path, select: &Select, ask: &Ask) -> Result<(Found, Shards)> {
    let mut samples: Vec<Files> = Vec::new();
    let shards = Shards::open(pattern, |name, member| {
        let (key, ending) = split(name);
        if samples.last().is_none_or(|last| last.key != key) {
            samples.push(Files {
                key: key.into(),
                ..Files::default()
            });
        }
        let Some(sample) = samples.last_mut() else { return };
        match ending.rsplit('.').next().unwrap_or_default() {
            "txt" => sample.text = Some(*member),
            "json" => sample.json = Some(*member),
            _ if super::is_image(name) => sample.images.push(name.into()),
            _ => {}
        }
    })?;
    let (mut found, mut splits) = (Found::default(), BTreeMap::new());
    for sample in samples {
        if select.is_full(&found) {
            break;
        }
        let key = sample.key.clone();
        let content = content(sample, &shards, select, ask, &mut splits);
        add(&mut found, pattern, key, content);
    }
    json::check_any(&found, pattern, select, &splits)?;
    Ok((found, shards))
}

/// A member's name up to the first dot of its file name, and what follows that.
fn split(name: &str) -> (&str, &str) {
    // The shard's own name has a dot.
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    match name[file..].find('.') {
        Some(dot) => (&name[..file + dot], &name[file + dot + 1..]),
        None => (name, ""),
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
    let read = |field: &str, member: Member| {
        let bytes = shards.read(member, json::MAX_RECORD as u64);
        bytes.or_else(|error| fault(field, format!("{error:#}")))
    };
    let record = match sample.json {
        Some(member) => json::object(&read("json", member)?)?,
        None => Object::new(),
    };
    if !json::is_wanted(&record, select, splits)? {
        return Ok(None);
    }
    let mut record = record;
    if let Some(member) = sample.text {
        let text = String::from_utf8_lossy(&read("txt", member)?).into_owned();
        record.entry("caption").or_insert(text.into());
    }
    fields::content(record, sample.images, ask).map(Some)
}
