//! Links to what lies in the run's folder.

use super::read::Files;
use super::{absent, escape};
use crate::memory;
use std::fs;

/// Names listed at the most.
const MOST: usize = 200;

pub(super) fn section(run: &Files) -> String {
    let mut names: Vec<(String, bool, u64)> = Vec::new();
    for entry in fs::read_dir(&run.folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let (false, Ok(about)) = (name.starts_with('.'), entry.metadata()) {
            names.push((name, about.is_dir(), about.len()));
        }
    }
    names.retain(|(name, ..)| name != super::REPORT);
    if names.is_empty() {
        return absent("The folder is empty.");
    }
    names.sort();
    names.truncate(MOST);
    let item = |(name, is_folder, size): &(String, bool, u64)| {
        let (slash, size) = match is_folder {
            true => ("/", String::new()),
            false => ("", format!(" <span class=\"muted\">{}</span>", memory::size(*size))),
        };
        format!("<li><a href=\"./{}{slash}\">{}{slash}</a>{size}</li>\n", url(name), escape(name))
    };
    format!("<ul class=\"files\">\n{}</ul>\n", names.iter().map(item).collect::<String>())
}

/// A file's name as part of an address: everything but letters, digits and what is safe among them by its bytes.
fn url(name: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    name.bytes().map(byte).collect()
}
