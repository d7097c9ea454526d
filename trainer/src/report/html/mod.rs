//! `report.html`: a run on one page that needs nothing but itself: no network, no other file.
//!
//! It is made from the files of the run's folder alone, so it can be made again at any time, of a run that is under way,
//! too. Everything is there without JavaScript; with it, curves can be read off under the pointer. Whatever comes from
//! data is escaped, and a content security policy lets no other script run and nothing be fetched.

mod chart;
mod compare;
mod curve;
mod curves;
mod evaluation;
mod files;
mod matrix;
mod page;
mod picture;
mod read;
mod samples;
mod summary;

pub use compare::Comparison;
pub use page::{is_page, page};

use crate::run_folder::write_whole;
use anyhow::Result;
use std::path::Path;

/// The page's file in a run's folder.
pub const REPORT: &str = "report.html";

/// Makes the page of the run in `folder` and writes it there.
///
/// # Errors
/// When a file of the run is damaged, by its name; when the page cannot be written.
pub fn write(folder: &Path) -> Result<()> {
    write_whole(&folder.join(REPORT), page(folder)?.as_bytes())
}

/// Text as HTML shows it, in elements and in quoted attributes.
fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe += "&amp;",
            '<' => safe += "&lt;",
            '>' => safe += "&gt;",
            '"' => safe += "&quot;",
            '\'' => safe += "&#39;",
            '\n' | '\t' => safe.push(c),
            c if c.is_control() => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// A paragraph in place of what a run does not have.
fn absent(why: &str) -> String {
    format!("<p class=\"absent\">{}</p>\n", escape(why))
}

#[cfg(test)]
mod tests;
