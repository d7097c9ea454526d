//! The page around the sections.

use super::read::Files;
use super::{curves, escape, evaluation, files, matrix, samples, summary};
use anyhow::Result;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("hover.js");

/// The page of the run in `folder`.
pub fn page(folder: &Path) -> Result<String> {
    let run = Files::read(folder)?;
    let sections = [
        ("summary", "Summary", summary::section(&run)),
        ("loss", "Loss", curves::loss(&run)),
        ("rate", "Learning rate", curves::rate(&run)),
        ("throughput", "Throughput", curves::throughput(&run)),
        ("memory", "Memory", curves::memory(&run)),
        ("evaluation", "Evaluation", evaluation::section(&run)),
        ("samples", "Samples", samples::answers(&run)),
        ("attention", "Attention", samples::attention(&run)),
        ("similarity", "Similarity", matrix::section(&run)),
        ("files", "Files", files::section(&run)),
    ];
    Ok(frame(&run.name, &sections))
}

/// How every page starts.
const START: &str = "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
                     <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; ";

/// Whether a file is one of these pages.
pub fn is_page(file: &Path) -> bool {
    let mut start = vec![0; START.len()];
    let read = model::open_file(file).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start == START.as_bytes()
}

/// A page of sections, each with its id, title and body.
pub(super) fn frame(name: &str, sections: &[(&str, &str, String)]) -> String {
    let links = sections.iter().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>\n"));
    let bodies = sections.iter().map(|(id, title, body)| {
        format!("<section id=\"{id}\" aria-labelledby=\"{id}-title\">\n<h2 id=\"{id}-title\">{title}</h2>\n{body}</section>\n")
    });
    let (name, links, bodies) = (escape(name), links.collect::<String>(), bodies.collect::<String>());
    let policy = policy();
    format!(
        "{START}{policy}\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{name} – Lenslet</title>\n\
         <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{name}</h1>\n\
         <nav aria-label=\"Sections\">\n{links}</nav>\n</header>\n<main>\n{bodies}</main>\n\
         <footer><p>Made by Lenslet {version} from the files of its runs.</p></footer>\n\
         <script>{SCRIPT}</script>\n</body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// Lets the page's own script run, and nothing be fetched.
fn policy() -> String {
    let hash = BASE64_STANDARD.encode(Sha256::digest(SCRIPT.as_bytes()));
    format!("style-src 'unsafe-inline'; script-src 'sha256-{hash}'")
}
