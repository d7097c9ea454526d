//! The records kept, as a file to train on.

use super::Judged;
use crate::data::formats::{self, Format};
use crate::data::record::{Content, Record};
use anyhow::{Context, Result};
use model::write_atomically;
use serde_json::{Value, json};
use std::io::{BufWriter, Write};
use std::path::Path;

/// How the records kept were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    pub format: Format,
    pub records: usize,
}

/// Writes the records kept to `out`, whole or not at all: JSON lines, as they were in the input where that is JSON, COCO's
/// captions by image, all else as messages, which say where an image stands.
///
/// # Errors
/// When the input cannot be read again, or the file cannot be written.
pub fn write(judged: &Judged, out: &Path) -> Result<Kept> {
    let records = &judged.found.records;
    let as_it_was = records.iter().all(|record| record.bytes.is_some());
    let text = match as_it_was {
        true => formats::bytes(&judged.path)?,
        false => Vec::new(),
    };
    let format = match (as_it_was, judged.format) {
        (true, format) => format,
        (false, Format::Coco) => Format::Coco,
        (false, _) => Format::Messages,
    };
    let line = |record: &Record| -> Result<Vec<u8>> {
        let place = record.bytes.clone().filter(|_| as_it_was);
        match place {
            Some(place) => {
                let bytes = text.get(place).context("the input was changed meanwhile")?;
                // Outside its texts, which have none, JSON may have line breaks anywhere.
                let plain = |byte: &u8| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte };
                Ok(bytes.iter().map(plain).collect())
            }
            None if format == Format::Coco => Ok(coco(record).to_string().into_bytes()),
            None => Ok(messages(record).to_string().into_bytes()),
        }
    };
    let mut kept = 0;
    let lines = judged.kept().map(|number| line(&records[number])).collect::<Result<Vec<_>>>()?;
    let written = write_atomically(out, |file| {
        let mut file = BufWriter::new(file);
        for line in &lines {
            file.write_all(line)?;
            file.write_all(b"\n")?;
            kept += 1;
        }
        file.flush()
    });
    written.with_context(|| out.display().to_string())?;
    Ok(Kept { format, records: kept })
}

fn coco(record: &Record) -> Value {
    let Content { images, turns, captions, .. } = &record.content;
    let captions: Vec<&String> = match captions.is_empty() {
        true => turns.iter().map(|turn| &turn.answer).collect(),
        false => captions.iter().collect(),
    };
    json!({ "id": record.id, "file": images.first(), "captions": captions })
}

fn messages(record: &Record) -> Value {
    let content = &record.content;
    let message = |role: &str, text: &str| json!({ "role": role, "content": text });
    let system = content.system.iter().map(|text| message("system", text));
    let turns = content.turns.iter();
    let turns = turns.flat_map(|turn| [message("user", &turn.question), message("assistant", &turn.answer)]);
    let messages: Vec<Value> = system.chain(turns).collect();
    json!({ "id": record.id, "images": content.images, "messages": messages })
}
