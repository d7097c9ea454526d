//! Changes to files that keep their structure more often than not: most reach the code behind the parser.

use rand::seq::IndexedRandom;
use rand::{Rng, RngExt};
use serde_json::{Map, Value, json};

/// The most bytes that one change adds.
const MAX_ADDED: usize = 256 << 10;

/// What files like to trip over.
const TEXTS: [&str; 14] = [
    "",
    "0",
    "-1",
    "NaN",
    "1e308",
    "18446744073709551616",
    "../../x",
    "/dev/zero",
    "<image>",
    "$A",
    "\u{0}",
    "\u{1b}[2J",
    "é\u{301}",
    "\u{202e}x",
];

/// A changed copy of a file; how it is changed depends on the ending of its name.
pub(crate) fn file(rng: &mut impl Rng, name: &str, bytes: &[u8]) -> Vec<u8> {
    let ending = name.rsplit('.').next().unwrap_or_default();
    let mut changed = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        changed = match (ending, rng.random_range(0..8)) {
            (_, 0) => raw(rng, &changed),
            ("json", 1..6) => json_file(rng, &changed),
            ("jsonl", 1..6) => json_line(rng, &changed),
            ("safetensors", 1..6) => safetensors(rng, &changed),
            ("tar", 1..6) => tar(rng, changed),
            ("png", 1..6) => png(rng, &changed),
            ("json" | "jsonl" | "toml" | "jinja" | "md", _) => tokens(rng, &changed),
            _ => fields(rng, changed),
        };
    }
    changed
}

/// Bytes flipped, cut off, repeated or put in.
fn raw(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let from = rng.random_range(0..=bytes.len());
    let until = rng.random_range(from..=bytes.len().min(from + 64));
    match rng.random_range(0..4) {
        0 => bytes.truncate(from),
        1 => drop(bytes.drain(from..until)),
        2 => {
            let again = bytes[from..until].repeat(rng.random_range(1..20));
            bytes.splice(from..from, again);
        }
        _ => bytes[from..until].iter_mut().for_each(|byte| *byte ^= 1 << rng.random_range(0..8)),
    }
    bytes
}

/// A number of 1, 2, 4 or 8 bytes set to one at an edge, in either order of bytes.
fn fields(rng: &mut impl Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    let size = 1 << rng.random_range(0..4);
    if bytes.len() < size {
        return bytes;
    }
    // Headers stand at the start, and some at the end.
    let near = 512.min(bytes.len() - size);
    let at = match rng.random_range(0..3) {
        0 => rng.random_range(0..=near),
        1 => bytes.len() - size - rng.random_range(0..=near),
        _ => rng.random_range(0..=bytes.len() - size),
    };
    let edges = [0, 1, 2, 127, 128, 255, 256, 65535, 1 << 31, (1 << 31) - 1, u64::MAX, 1 << 40, rng.random()];
    let value = *edges.choose(rng).unwrap_or(&0);
    let written = match rng.random() {
        true => value.to_le_bytes()[..size].to_vec(),
        false => value.to_be_bytes()[8 - size..].to_vec(),
    };
    bytes[at..at + size].copy_from_slice(&written);
    bytes
}

/// Words and signs of a text taken out, doubled, swapped or nested.
fn tokens(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let kind = |letter: char| (letter.is_alphanumeric(), letter.is_whitespace());
    let mut parts: Vec<String> = Vec::new();
    for letter in text.chars() {
        match parts.last_mut().filter(|part| kind(letter).0 && part.ends_with(char::is_alphanumeric)) {
            Some(part) => part.push(letter),
            None => parts.push(letter.to_string()),
        }
    }
    if parts.is_empty() {
        return TEXTS.choose(rng).map_or(Vec::new(), |text| text.as_bytes().to_vec());
    }
    let at = rng.random_range(0..parts.len());
    let until = rng.random_range(at..parts.len().min(at + 40)) + 1;
    match rng.random_range(0..6) {
        0 => drop(parts.drain(at..until)),
        1 => {
            let length = parts[at..until].iter().map(String::len).sum::<usize>().max(1);
            let times = (1 << rng.random_range(1..15)).min(1 + MAX_ADDED / length);
            let again: Vec<String> = parts[at..until].iter().cloned().cycle().take((until - at) * times).collect();
            parts.splice(at..at, again);
        }
        2 => {
            let to = rng.random_range(0..parts.len());
            parts.swap(at, to);
        }
        3 => parts[at] = TEXTS.choose(rng).map_or(String::new(), |text| text.to_string()),
        4 => {
            let other = parts[rng.random_range(0..parts.len())].clone();
            parts[at] = other;
        }
        _ => parts.insert(at, TEXTS.choose(rng).map_or(String::new(), |text| text.to_string())),
    }
    parts.concat().into_bytes()
}

fn json_file(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    match serde_json::from_slice(bytes) {
        Ok(value) => node(rng, value).to_string().into_bytes(),
        Err(_) => tokens(rng, bytes),
    }
}

fn json_line(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    let at = rng.random_range(0..lines.len());
    lines[at] = json_file(rng, &lines[at]);
    lines.join(&b'\n')
}

/// A tree with one node changed.
fn node(rng: &mut impl Rng, mut tree: Value) -> Value {
    let mut places = Vec::new();
    pointers(&tree, String::new(), &mut places);
    let Some(place) = places.choose(rng) else { return tree };
    let other = places.choose(rng).and_then(|place| tree.pointer(place)).cloned();
    let new = match rng.random_range(0..8) {
        0 => other.unwrap_or_default(),
        1 => (0..rng.random_range(1..100)).fold(json!(1), |inner, _| json!([inner])),
        2 => json!(vec![other; rng.random_range(0..300)]),
        3 => json!(TEXTS.choose(rng)),
        4 => json!("x".repeat(rng.random_range(0..5000))),
        5 => Value::Null,
        _ => number(rng),
    };
    let (above, key) = place.rsplit_once('/').unwrap_or_default();
    let remove = rng.random_ratio(1, 5);
    match tree.pointer_mut(above) {
        Some(Value::Object(fields)) if remove => drop(fields.remove(key)),
        Some(Value::Array(items)) if remove => items.truncate(key.parse().unwrap_or(0)),
        Some(Value::Object(fields)) => rename(rng, fields, key, new),
        Some(Value::Array(items)) => match key.parse::<usize>() {
            Ok(at) if at < items.len() => items[at] = new,
            _ => items.push(new),
        },
        _ => return new,
    }
    tree
}

/// Sets a field, now and then under another name.
fn rename(rng: &mut impl Rng, fields: &mut Map<String, Value>, key: &str, value: Value) {
    let key = match rng.random_range(0..10) {
        0 => TEXTS.choose(rng).map_or(String::new(), |text| text.to_string()),
        1 => key.to_uppercase(),
        _ => key.replace("~1", "/").replace("~0", "~"),
    };
    fields.insert(key, value);
}

fn number(rng: &mut impl Rng) -> Value {
    let whole = [0, 1, -1, 2, 3, 7, 255, 65536, i64::from(i32::MAX), i64::MAX, i64::MIN, 1 << 40];
    match rng.random_range(0..4) {
        0 => json!(rng.random::<f64>() * 10.0),
        1 => json!([1e308, -1e308, 1e-308, 0.5].choose(rng)),
        2 => json!(u64::MAX),
        _ => json!(whole.choose(rng)),
    }
}

/// JSON pointers of all nodes below the top.
fn pointers(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let at = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                all.push(at.clone());
                pointers(inner, at, all);
            }
        }
        Value::Array(items) => {
            for (i, inner) in items.iter().enumerate() {
                all.push(format!("{at}/{i}"));
                pointers(inner, format!("{at}/{i}"), all);
            }
        }
        _ => {}
    }
}

/// The header changed, its length set right.
fn safetensors(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    let length = bytes.get(..8).and_then(|length| Some(u64::from_le_bytes(length.try_into().ok()?) as usize));
    let Some(header) = length.and_then(|length| bytes.get(8..length.checked_add(8)?)) else {
        return raw(rng, bytes);
    };
    let changed = json_file(rng, header);
    let length = (changed.len() as u64).to_le_bytes();
    [&length[..], &changed, &bytes[8 + header.len()..]].concat()
}

/// A field of a tar header changed, its sum set right.
fn tar(rng: &mut impl Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    const BLOCK: usize = 512;
    /// Name, mode, size, type and link of a header: from, and how long.
    const FIELDS: [(usize, usize); 5] = [(0, 100), (100, 8), (124, 12), (156, 1), (157, 100)];
    let blocks = bytes.len() / BLOCK;
    if blocks == 0 {
        return bytes;
    }
    let start = BLOCK * rng.random_range(0..blocks);
    let header = &mut bytes[start..start + BLOCK];
    let (from, length) = *FIELDS.choose(rng).unwrap_or(&FIELDS[0]);
    let value = match from {
        124 => format!("{:011o}", [0, 1, 511, 513, 1 << 20, 0o77777777777u64].choose(rng).unwrap_or(&0)),
        156 => "0123456xgLKS".chars().nth(rng.random_range(0..12)).unwrap_or('0').to_string(),
        _ => TEXTS.choose(rng).map_or(String::new(), |text| text.to_string()),
    };
    let field = &mut header[from..from + length];
    field.fill(0);
    let taken = value.len().min(length);
    field[..taken].copy_from_slice(&value.as_bytes()[..taken]);
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    bytes
}

/// A chunk of a PNG changed, its sum set right.
fn png(rng: &mut impl Rng, bytes: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    let mut at = 8;
    while let Some(length) = bytes.get(at..at + 4) {
        let length = u32::from_be_bytes(length.try_into().unwrap_or_default()) as usize;
        let Some(chunk) = bytes.get(at + 4..at + 8 + length) else {
            break;
        };
        chunks.push(chunk.to_vec());
        at += 12 + length;
    }
    if chunks.is_empty() {
        return raw(rng, bytes);
    }
    let which = rng.random_range(0..chunks.len());
    match rng.random_range(0..4) {
        0 => drop(chunks.remove(which)),
        1 => chunks.push(chunks[which].clone()),
        _ => {
            let chunk = std::mem::take(&mut chunks[which]);
            chunks[which] = fields(rng, chunk);
        }
    }
    let mut png = bytes[..8].to_vec();
    for chunk in &chunks {
        png.extend((chunk.len().saturating_sub(4) as u32).to_be_bytes());
        png.extend(chunk);
        png.extend(crc(chunk).to_be_bytes());
    }
    png
}

/// CRC-32 as PNG has it (ISO 3309).
fn crc(bytes: &[u8]) -> u32 {
    let step = |crc: u32| {
        if crc & 1 == 1 { 0xedb8_8320 ^ (crc >> 1) } else { crc >> 1 }
    };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
