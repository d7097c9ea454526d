//! COCO's captions: the published file, `{"images": [{"id": 1, "file_name": "1.jpg"}, …], "annotations": [{"image_id": 1,
//! "caption": "…"}, …]}`, or JSON lines of `{"file": "1.jpg", "captions": ["…", …]}`. An image is one record with all its captions.

use super::add;
use super::fault::{Fault, fault, kind};
use super::fields::first;
use super::json::{self, Object};
use crate::data::bad_records::BadRecord;
use crate::data::record::{Content, Found, Select};
use anyhow::{Result, anyhow, ensure};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

/// The most captions of one image.
const MAX_CAPTIONS: usize = 1000;

/// The largest published file in bytes, ten times COCO's own: it is held as a whole.
const MAX_PUBLISHED: usize = 1 << 30;

/// The published file; whatever else it holds is passed over.
#[derive(Deserialize)]
struct Published<'a> {
    #[serde(borrow)]
    images: Vec<&'a RawValue>,
    #[serde(borrow)]
    annotations: Vec<&'a RawValue>,
}

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
    let field = first(record, &["file", "file_name", "image"]).map_or("file", |(field, _)| field);
    let name = file_name(record, field)?;
    let captions = match first(record, &["captions", "caption"]).map(|(_, captions)| captions) {
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
fn published(original: &[u8], file: &Path, select: &Select, question: &str) -> Result<Found> {
    let bytes = &json::without_nan(original);
    let Published { images, annotations } = whole(bytes, file)?;
    let (mut found, mut splits) = (Found::default(), BTreeMap::new());
    // A fault of an entry, with its place.
    let within = |fault: Fault, place: &str, raw: &RawValue| {
        let start = raw.get().as_ptr() as usize - bytes.as_ptr() as usize;
        let about = json::about_nan(original, start..start + raw.get().len());
        let Fault { field, message } = fault.within(place);
        Fault { field, message: message + &about }
    };
    let mut captions = BTreeMap::<String, Vec<String>>::new();
    for (i, raw) in annotations.into_iter().enumerate() {
        match caption(raw) {
            Ok((image, caption)) => captions.entry(image).or_default().push(caption),
            Err(fault) => {
                let Fault { field, message } = within(fault, &format!("annotations[{i}]"), raw);
                found.bad.add(BadRecord { file: file.to_owned(), line: 0, id: None, field, message });
            }
        }
    }
    let mut seen = HashSet::new();
    for (i, raw) in images.into_iter().enumerate() {
        if select.is_full(&found) {
            break;
        }
        let place = format!("images[{i}]");
        let image = json::object(raw.get().as_bytes());
        let id = image.clone().and_then(|image| number(&image, "id"));
        let content = image.and_then(|image| {
            let id = id.clone()?;
            let wanted = json::is_wanted(&image, select, &mut splits)?;
            if !seen.insert(id.clone()) {
                return fault("id", "an image before has it, too");
            }
            let captions = captions.remove(&id).unwrap_or_default();
            let content = captioned(file_name(&image, "file_name")?, question, captions)?;
            Ok(wanted.then_some(content))
        });
        add(&mut found, file, id.unwrap_or(place.clone()), content.map_err(|fault| within(fault, &place, raw)));
    }
    if !select.is_full(&found) {
        for (id, captions) in captions {
            let of = format!("image {id}: {}", captions[0]);
            (0..captions.len()).for_each(|_| found.passed_over.add("captions of no image in `images`", &of));
        }
    }
    json::check_any(&found, file, select, &splits)?;
    Ok(found)
}

/// A caption and the number of its image.
fn caption(raw: &RawValue) -> Result<(String, String), Fault> {
    let annotation = json::object(raw.get().as_bytes())?;
    Ok((number(&annotation, "image_id")?, caption_text(annotation.get("caption"), "caption")?))
}

fn whole<'b>(bytes: &'b [u8], file: &Path) -> Result<Published<'b>> {
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

/// The number of an image, which may be written as text.
fn number(record: &Object, field: &str) -> Result<String, Fault> {
    match record.get(field) {
        // Tables write whole numbers as 4.0.
        Some(Value::Number(number)) => match number.as_f64().filter(|value| number.is_f64() && value.fract() == 0.0) {
            Some(whole) => Ok(format!("{whole:.0}")),
            None => Ok(number.to_string()),
        },
        Some(Value::String(text)) if !text.is_empty() => Ok(text.clone()),
        other => fault(field, format!("expected an image's number, found {}", kind(other))),
    }
}
