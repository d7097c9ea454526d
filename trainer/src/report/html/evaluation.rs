//! What the trained model was measured at.

use super::read::Files;
use super::{absent, escape};
use crate::eval::{Figures, table};
use crate::report::table::Table;

pub(super) fn section(run: &Files) -> String {
    let Some(figures) = &run.figures else {
        return absent("Not measured yet: the folder has no eval.json.");
    };
    if figures.is_empty() {
        return absent("Nothing is held out, so nothing was measured.");
    }
    let table = table::table(figures);
    let shown = match table.rows().is_empty() {
        true => String::new(),
        false => rows("Held out, in percent, beside a blank image and chance", &table),
    };
    let notes = table::notes(figures);
    let notes = notes.iter().map(|note| format!("<p>{}</p>\n", escape(note)));
    let shown = shown + &notes.collect::<String>();
    format!(
        "{shown}<details>\n<summary>All {} figures of eval.json</summary>\n{}</details>\n",
        figures.len(),
        rows("Every figure by its name", &all(figures))
    )
}

fn all(figures: &Figures) -> Table {
    let mut table = Table::new(["figure", "value"]);
    for (key, value) in figures {
        table.row([key.clone(), format!("{value:.4}")]);
    }
    table
}

/// A table as HTML. Rows that begin with spaces belong to the one above.
pub(super) fn rows(caption: &str, table: &Table) -> String {
    let class: Vec<&str> = (0..table.head().len())
        .map(|column| if column > 0 && table.is_numeric(column) { " class=\"number\"" } else { "" })
        .collect();
    let head = table.head().iter().zip(&class);
    let head = head.map(|(cell, class)| format!("<th scope=\"col\"{class}>{}</th>", escape(cell)));
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&class).enumerate().map(|(column, (cell, class))| match column {
            0 if cell.starts_with(' ') => format!("<th scope=\"row\" class=\"part\">{}</th>", escape(cell.trim())),
            0 => format!("<th scope=\"row\">{}</th>", escape(cell)),
            _ => format!("<td{class}>{}</td>", escape(cell)),
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    format!(
        "<div class=\"wide\" tabindex=\"0\">\n<table>\n<caption>{}</caption>\n<thead><tr>{}</tr></thead>\n\
         <tbody>\n{}</tbody>\n</table>\n</div>\n",
        escape(caption),
        head.collect::<String>(),
        table.rows().iter().map(line).collect::<String>()
    )
}
