//! What an evaluation leaves: a table to read, `results.json`, and the items by themselves.

use super::runner::{Figure, Items, Outcome};
use super::subject::Ability;
use super::table::{interval, percent};
use crate::report::table::Table;
use crate::run_folder::write_whole;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use std::path::Path;

/// A task's figures times 100: the value, its 95 % interval, both controls, what guessing reaches, and on how many items
/// the figure rests.
pub fn table(outcome: &Outcome) -> Table {
    let without = match outcome.name.needs() {
        Ability::Answer => "text only",
        _ => "shuffled",
    };
    let mut table =
        Table::new([outcome.name.text().as_str(), "x100", "95 %", "blank image", without, "guess", "items"]);
    for figure in &outcome.figures {
        table.row([
            figure.name.clone(),
            percent(Some(figure.value)),
            interval(figure.low.zip(figure.high)),
            percent(figure.blank),
            percent(figure.text_only.or(figure.shuffled)),
            percent(figure.guess),
            figure.items.to_string(),
        ]);
    }
    table
}

/// A task's table and what it rests on.
pub fn text(outcome: &Outcome) -> String {
    let mut lines = vec![table(outcome).to_string()];
    lines.extend(notes(&outcome.items));
    lines.join("\n")
}

/// What figures rest on, where that is not all there is.
fn notes(items: &Items) -> Vec<String> {
    /// Items that are named.
    const NAMED: usize = 5;
    let mut notes = Vec::new();
    let (out, first) = (items.not_asked.len(), items.not_asked.iter().take(NAMED));
    if out > 0 {
        notes.push(format!("{out} of {} items could not be measured:", items.of));
        notes.extend(first.map(|item| format!("  item {}, {}: {}", item.id, item.image, item.why)));
        notes.extend((out > NAMED).then(|| format!("  and {} more", out - NAMED)));
    }
    if items.cut_answers > 0 {
        let (cut, all) = (items.cut_answers, items.measured);
        notes.push(format!(
            "{cut} of {all} answers were cut at the longest that --max-tokens allows; none of them is an exact one"
        ));
    }
    if items.cut_texts > 0 {
        let cut = items.cut_texts;
        notes.push(format!("{cut} texts are longer than the model reads and were cut"));
    }
    notes.extend(items.unknown.as_ref().map(|unknown| format!("of questions and answers, {unknown}")));
    notes
}

/// Makes the folder for an evaluation, before anything is computed.
///
/// # Errors
/// When an earlier evaluation lies there, or it cannot be made.
pub fn make(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == RESULTS || name.starts_with(SAMPLES) {
            bail!("{} exists already; choose another folder with --output", entry.path().display());
        }
    }
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))
}

const RESULTS: &str = "results.json";
/// What stands in front of a task's name.
const SAMPLES: &str = "samples_";

/// Writes `results.json`, and with `samples` a `samples_<task>.jsonl` per task before it: one line an item.
pub fn write(folder: &Path, config: &Value, outcomes: &[Outcome], samples: bool) -> Result<()> {
    for outcome in outcomes.iter().filter(|_| samples) {
        let mut lines = String::new();
        for sample in &outcome.samples {
            lines += &serde_json::to_string(sample).context("a sample")?;
            lines.push('\n');
        }
        write_whole(&folder.join(format!("{SAMPLES}{}.jsonl", outcome.name.text())), lines.as_bytes())?;
    }
    let figures = |figures: &[Figure]| -> Result<Map<String, Value>> {
        figures.iter().map(|figure| Ok((figure.name.clone(), serde_json::to_value(figure)?))).collect()
    };
    let tasks = outcomes.iter().map(|outcome| Ok((outcome.name.text(), figures(&outcome.figures)?.into())));
    let items = outcomes.iter().map(|outcome| Ok((outcome.name.text(), serde_json::to_value(&outcome.items)?)));
    let results = json!({
        "config": config,
        "results": tasks.collect::<Result<Map<String, Value>>>()?,
        "items": items.collect::<Result<Map<String, Value>>>()?,
    });
    write_whole(&folder.join(RESULTS), format!("{results:#}\n").as_bytes())
}
