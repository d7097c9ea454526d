//! What was left out and why, as one page with pictures.

use super::{Criteria, Judged, Reason, Verdict, words};
use crate::report::attention_png::png;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use model::{Resample, resize, write_atomically};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Examples shown of each reason, and of what is kept.
const SHOWN: usize = 12;
/// The longer side of a thumbnail, in pixels.
const SIDE: u32 = 128;
/// Characters of a text that are shown.
const LONGEST: usize = 240;

const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;margin:2em auto;max-width:75em;padding:0 1em}\
    table{border-collapse:collapse}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ccc}\
    td.n{text-align:right}.all{display:flex;flex-wrap:wrap;gap:1em}\
    figure{margin:0;padding:.5em;border:1px solid #ccc;border-radius:.4em;width:18em}\
    figure img{max-width:8.5em;margin-right:.3em;vertical-align:top}figcaption{overflow-wrap:anywhere}small{color:#666}";

/// Writes the page, whole or not at all.
pub fn report(judged: &Judged, criteria: &Criteria, out: &Path) -> Result<()> {
    let page = page(judged, criteria);
    write_atomically(out, |file| file.write_all(page.as_bytes())).with_context(|| out.display().to_string())
}

fn page(judged: &Judged, criteria: &Criteria) -> String {
    let name = escape(&judged.path.display().to_string());
    let (all, kept) = (judged.verdicts.len(), judged.kept().count());
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{name}</title><style>{STYLE}</style>\n\
         <h1>{name}</h1>\n<p>{kept} of {all} records are kept.</p>\n<table><tr><th>left out<th>records<th>limit</tr>\n"
    );
    for reason in Reason::ALL {
        let (count, limit) = (judged.count(reason), limit(criteria, reason));
        let _ = writeln!(page, "<tr><td>{}<td class=\"n\">{count}<td>{limit}</tr>", reason.name());
    }
    page += "</table>\n";
    let bad = &judged.found.bad;
    if bad.count > 0 {
        let _ =
            writeln!(page, "<p>{} further records could not be read:</p><pre>{}</pre>", bad.count, escape(&bad.list()));
    }
    page += &measures(judged);
    for reason in Reason::ALL {
        let of_reason = |verdict: &Verdict| verdict.reason == reason;
        let gone = judged.verdicts.iter().enumerate();
        let gone = gone.filter_map(|(number, verdict)| Some((number, verdict.as_ref().filter(|v| of_reason(v))?)));
        let figures: String = gone.take(SHOWN).map(|(number, verdict)| figure(judged, number, Some(verdict))).collect();
        if !figures.is_empty() {
            let _ = writeln!(page, "<h2>{}</h2>\n<div class=\"all\">{figures}</div>", reason.name());
        }
    }
    let figures: String = judged.kept().take(SHOWN).map(|number| figure(judged, number, None)).collect();
    let _ = writeln!(page, "<h2>kept</h2>\n<div class=\"all\">{figures}</div></html>");
    page
}

/// What was asked, in words.
fn limit(criteria: &Criteria, reason: Reason) -> String {
    let text = |value: Option<String>| value.unwrap_or_else(|| "not asked for".into());
    match reason {
        Reason::Broken => String::new(),
        Reason::Short => text(criteria.min_words.map(|n| format!("at least {n}"))),
        Reason::Long => text(criteria.max_words.map(|n| format!("at most {n}"))),
        Reason::Thin => text(criteria.min_density.map(|x| format!("density of at least {x}"))),
        Reason::TwinImage => text(criteria.max_hamming.map(|n| format!("hashes that differ in at most {n} bits"))),
        Reason::TwinText => text(criteria.max_overlap.map(|x| format!("at least {x} of their words in common"))),
        Reason::Unlike => {
            let least = criteria.min_similarity.map(|x| format!("cosine of at least {x}"));
            let share = criteria.keep_share.map(|x| format!("the best {} %", 100.0 * x));
            text(least.into_iter().chain(share).reduce(|a, b| format!("{a}, {b}")))
        }
    }
}

/// Words, density and similarity of what is kept and what is not.
fn measures(judged: &Judged) -> String {
    let mut table = String::from("<h2>measures</h2>\n<table><tr><th><th>least<th>median<th>most</tr>\n");
    let mut row = |name: &str, mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        if let (Some(least), Some(most)) = (values.first(), values.last()) {
            let median = values[(values.len() - 1) / 2];
            let cells = [*least, median, *most].map(|value| format!("<td class=\"n\">{value:.3}"));
            let _ = writeln!(table, "<tr><td>{name}{}</tr>", cells.concat());
        }
    };
    for (whose, wanted) in [("kept", true), ("left out", false)] {
        let numbers = || (0..judged.verdicts.len()).filter(|&n| judged.verdicts[n].is_none() == wanted);
        let words = |n: usize| words::words(&judged.texts[n]);
        row(&format!("words, {whose}"), numbers().map(|n| words(n).len() as f64).collect());
        row(&format!("density, {whose}"), numbers().map(|n| words::density(&words(n))).collect());
        row(&format!("similarity, {whose}"), numbers().filter_map(|n| judged.similarities[n]).collect());
    }
    table + "</table>\n"
}

/// One record with its image; beside it the image that is kept in its place.
fn figure(judged: &Judged, number: usize, verdict: Option<&Verdict>) -> String {
    let twin = verdict.and_then(|verdict| verdict.twin);
    let mut figure = String::from("<figure>");
    for number in std::iter::once(number).chain(twin) {
        let record = &judged.found.records[number];
        let name = record.content.images.first().map_or("", String::as_str);
        if let Some(data) = thumbnail(judged, name) {
            let _ =
                write!(figure, "<img alt=\"{0}\" title=\"{0}\" src=\"data:image/png;base64,{data}\">", escape(name));
        }
    }
    let shown = |number: usize| escape(&shorten(&judged.texts[number]));
    let _ = write!(figure, "<figcaption>{}<br><small>{}", shown(number), escape(&judged.found.records[number].id));
    if let Some(detail) = verdict.map(|verdict| &verdict.detail).filter(|detail| !detail.is_empty()) {
        let _ = write!(figure, ": {}", escape(detail));
    }
    if let Some(cosine) = judged.similarities[number].filter(|_| verdict.is_none()) {
        let _ = write!(figure, ": similarity {cosine:.3}");
    }
    if let Some(twin) = twin {
        let id = escape(&judged.found.records[twin].id);
        let _ = write!(figure, "<br>kept: {id}, {}", shown(twin));
    }
    figure + "</small></figcaption></figure>\n"
}

/// A small PNG in base 64; none of what cannot be read.
fn thumbnail(judged: &Judged, name: &str) -> Option<String> {
    let image = judged.source.load(name).ok()?;
    let (width, height) = image.dimensions();
    let longest = width.max(height).max(1);
    let side = |length: u32| match longest > SIDE {
        true => (u64::from(length) * u64::from(SIDE) / u64::from(longest)).max(1) as u32,
        false => length,
    };
    let small = resize(&image, side(width), side(height), Resample::Bilinear);
    Some(STANDARD.encode(png(&small).ok()?))
}

fn shorten(text: &str) -> String {
    match text.chars().count() > LONGEST {
        true => text.chars().take(LONGEST).chain(['…']).collect(),
        false => text.to_string(),
    }
}

/// Text as HTML shows it.
fn escape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => plain += "&amp;",
            '<' => plain += "&lt;",
            '>' => plain += "&gt;",
            '"' => plain += "&quot;",
            c => plain.push(c),
        }
    }
    plain
}
