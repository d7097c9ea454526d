//! COCO's captions: the published file, `{"images": [{"id": 1, "file_name": "1.jpg"}, …], "annotations": [{"image_id": 1,
//! "caption": "…"}, …]}`, or JSON lines of `{"file": "1.jpg", "captions": ["…", …]}`. An image is one record with all its captions.

use super::add;
use super::fault::{Fault, fault, kind};
use super::json::{self, Object};
use crate::data::bad_records::BadRecord;
use crate::data::record::{Content, Found, Select};
use anyhow::{Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// The most captions of one image.
const MAX_CAPTIONS: usize = 1000;

/// The largest published file in bytes, ten times COCO's own: it is held as a whole.
const MAX_PUBLISHED: usize = 1 << 30;

/// The published file; whatever else it holds is passed over.
#[derive(Deserialize)]
struct Published {
    images: Vec<Object>,
    annotations: Vec<Object>,
}

/// The records of a file's bytes.
///
/// # Errors
/// As [`json::records`].
pub(super) fn records(bytes: &[u8], file: &Path, select: &Select, question: &str) -> Result<Found> {
    let published = json::first(bytes).is_some_and(|start| bytes[start] == b'{' && !is_line(&bytes[start..]));
    match published {
        true => self::published(bytes, file, select, question),
        false => json::records(bytes, file, select, &|record| line(record, question)),
    }
}

/// Whether the first line is a record by itself.
fn is_line(bytes: &[u8]) -> bool {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    line.len() <= json::MAX_RECORD && json::object(line).is_ok_and(|record| !record.contains_key("annotations"))
}

fn line(record: &Object, question: &str) -> Result<Content, Fault> {
    let field = ["file", "file_name", "image"]
        .into_iter()
        .find(|field| record.contains_key(*field));
    let name = file_name(record, field.unwrap_or("file"))?;
    let captions = match record.get("captions").or(record.get("caption")) {
        Some(Value::Array(captions)) => captions.iter().collect(),
        Some(one @ Value::String(_)) => vec![one],
        other => return fault("captions", format!("expected a list of texts, found {}", kind(other))),
    };
    let text = |(i, caption): (usize, &Value)| caption_text(Some(caption), &format!("captions[{i}]"));
    let captions: Vec<String> = captions.into_iter().enumerate().map(text).collect::<Result<_, _>>()?;
    captioned(name, question, captions)
}

fn captioned(name: String, question: &str, captions: Vec<String>) -> Result<Content, Fault> {
    if captions.len() > MAX_CAPTIONS {
        let message = format!("{} captions, at most {MAX_CAPTIONS} are taken", captions.len());
        return fault("captions", message);
    }
    match Content::captioned(name, question, captions) {
        Some(content) => Ok(content),
        None => fault("captions", "none"),
    }
}

fn file_name(record: &Object, field: &str) -> Result<String, Fault> {
    match record.get(field) {
        Some(Value::String(name)) if !name.is_empty() => Ok(name.clone()),
        other => fault(field, format!("expected a file name, found {}", kind(other))),
    }
}

fn caption_text(value: Option<&Value>, field: &str) -> Result<String, Fault> {
    match value {
        Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim().to_string()),
        Some(Value::String(_)) => fault(field, "says nothing"),
        other => fault(field, format!("expected text, found {}", kind(other))),
    }
}

/// COCO's own file: captions are gathered under their images, whose order is kept.
fn published(bytes: &[u8], file: &Path, select: &Select, question: &str) -> Result<Found> {
    let Published { images, annotations } = whole(bytes, file)?;
    let (mut found, mut splits) = (Found::default(), BTreeMap::new());
    let mut captions = captions(&annotations, file, &mut found);
    for (i, image) in images.iter().enumerate() {
        if select.is_full(&found) {
            break;
        }
        let id = number(image, "id");
        let content = id.clone().and_then(|id| {
            let wanted = json::is_wanted(image, select, &mut splits)?;
            let captions = captions.remove(&id).unwrap_or_default();
            let content = captioned(file_name(image, "file_name")?, question, captions)?;
            Ok(wanted.then_some(content))
        });
        let place = format!("images[{i}]");
        let content = content.map_err(|fault| fault.within(&place));
        add(&mut found, file, id.unwrap_or(place), content);
    }
    json::check_any(&found, file, select, &splits)?;
    Ok(found)
}

fn whole(bytes: &[u8], file: &Path) -> Result<Published> {
    let (start, name) = (json::first(bytes).unwrap_or(0), file.display());
    ensure!(
        bytes.len() <= MAX_PUBLISHED,
        "{name}: {} bytes are more than the {MAX_PUBLISHED} that one object may have; write JSON lines of `file` and \
         `captions`",
        bytes.len()
    );
    let whole = serde_json::from_slice(&bytes[start..]);
    whole.map_err(|error| anyhow!("{name}: neither COCO's `images` and `annotations` nor JSON lines: {error}"))
}

/// The captions of each image by its number; broken ones are counted.
fn captions(annotations: &[Object], file: &Path, found: &mut Found) -> HashMap<String, Vec<String>> {
    let mut captions: HashMap<String, Vec<String>> = HashMap::new();
    for (i, annotation) in annotations.iter().enumerate() {
        let image = number(annotation, "image_id");
        let caption = image.and_then(|image| Ok((image, caption_text(annotation.get("caption"), "caption")?)));
        match caption.map_err(|fault| fault.within(&format!("annotations[{i}]"))) {
            Ok((image, caption)) => captions.entry(image).or_default().push(caption),
            Err(Fault { field, message }) => found.bad.add(BadRecord {
                file: file.to_owned(),
                line: 0,
                id: None,
                field,
                message,
            }),
        }
    }
    captions
}

/// The number of an image, which may be written as text.
fn number(record: &Object, field: &str) -> Result<String, Fault> {
    match record.get(field) {
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        other => fault(field, format!("expected an image's number, found {}", kind(other))),
    }
}
