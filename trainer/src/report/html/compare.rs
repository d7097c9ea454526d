//! Runs side by side: how their recipes differ, their curves, what they were measured at and what they say.

use super::chart::{Chart, number};
use super::curve::Curve;
use super::evaluation::rows;
use super::page::frame;
use super::picture::picture;
use super::read::Files;
use super::samples::{brief, line};
use super::{absent, escape};
use crate::eval::table;
use crate::metrics::{EVAL_LOSS, StepMetrics};
use crate::progress::duration;
use crate::recipe::values;
use crate::report::losses::{Losses, losses};
use crate::report::samples::Shown;
use crate::report::table::Table;
use anyhow::Result;
use model::{MAX_IMAGE_FILE, read_file};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use toml::Value;

/// Questions shown at the most.
const MOST: usize = 16;
/// Characters of a recipe's value that are shown.
const LONG: usize = 60;

/// Runs that are compared.
pub struct Comparison {
    runs: Vec<Files>,
    /// What each is called: its folder's name, or its whole path where others have that name.
    names: Vec<String>,
}

impl Comparison {
    /// Reads the runs in these folders; of those that cannot be read, why.
    pub fn read(folders: &[PathBuf]) -> (Comparison, Vec<anyhow::Error>) {
        let (mut runs, mut bad) = (Vec::new(), Vec::new());
        for folder in folders {
            match Files::read(folder) {
                Ok(run) => runs.push(run),
                Err(error) => bad.push(error),
            }
        }
        let short = |run: &Files| run.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = |run: &Files| {
            let own = short(run);
            let is_only = runs.iter().filter(|other| short(other) == own).count() == 1;
            own.filter(|_| is_only).unwrap_or_else(|| run.folder.display().to_string())
        };
        let names = runs.iter().map(name).collect();
        (Comparison { runs, names }, bad)
    }

    pub fn len(&self) -> usize {
        self.runs.len()
    }

    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The tables for a terminal.
    pub fn text(&self) -> Result<String> {
        let (differences, figures) = (self.differences()?, self.figures(false));
        let tables = [self.overview(), differences, figures];
        let shown = tables.iter().filter(|table| !table.rows().is_empty());
        Ok(shown.map(Table::to_string).collect::<Vec<_>>().join("\n"))
    }

    pub fn page(&self) -> Result<String> {
        let shown = |caption: &str, table: &Table, none: &str| match table.rows().is_empty() {
            true => absent(none),
            false => rows(caption, table),
        };
        let differences = self.differences()?;
        let sections = [
            ("runs", "Runs", rows("Losses with the step of each", &self.overview())),
            ("recipes", "Recipes", shown("What differs", &differences, "The recipes are the same.")),
            ("curves", "Curves", self.curves()),
            (
                "evaluation",
                "Evaluation",
                shown(
                    "Held out, in percent, with its interval and what a blank image gives",
                    &self.figures(true),
                    "None of the runs has been measured.",
                ),
            ),
            ("samples", "Samples", self.samples()),
        ];
        Ok(frame(&self.names.join(", "), &sections))
    }

    fn table(&self, first: &str) -> Table {
        Table::new([first].into_iter().chain(self.names.iter().map(String::as_str)))
    }

    /// A row for each run.
    fn overview(&self) -> Table {
        let mut table =
            Table::new(["run", "parameters", "phase", "steps", "last loss", "best", "held out, last", "best", "took"]);
        for (run, name) in self.runs.iter().zip(&self.names) {
            let about = run.summary.as_ref();
            let took = about.and_then(|about| about.seconds);
            let took = took.map_or("not over".into(), |seconds| duration(Duration::from_secs_f64(seconds.max(0.0))));
            let parameters = about.map_or("-".into(), |about| about.parameters.to_string());
            let phases = losses(&run.steps);
            if phases.is_empty() {
                table.row([name.clone(), parameters, "no step yet".into()]);
                continue;
            }
            for (i, (phase, found)) in phases.into_iter().enumerate() {
                let own = |text: &String| if i == 0 { text.clone() } else { String::new() };
                let [last, best] = ends(found.train);
                let [held_last, held_best] = ends(found.heldout);
                let steps = found.steps.to_string();
                let cells = [own(name), own(&parameters), phase, steps, last, best, held_last, held_best, own(&took)];
                table.row(cells);
            }
        }
        table
    }

    /// A row for each key whose value is not the same in all recipes.
    fn differences(&self) -> Result<Table> {
        let recipes = self.runs.iter().map(|run| Ok(values(&toml::from_str(&run.recipe)?)));
        let recipes = recipes.collect::<Result<Vec<_>>>()?;
        let mut keys: Vec<&String> = recipes.iter().flat_map(BTreeMap::keys).collect();
        keys.sort_unstable();
        keys.dedup();
        let mut table = self.table("recipe");
        for key in keys {
            let said: Vec<Option<&Value>> = recipes.iter().map(|recipe| recipe.get(key)).collect();
            if said.iter().any(|value| *value != said[0]) {
                let cell = |value: Option<&Value>| value.map_or("-".into(), |value| shorten(&value.to_string()));
                table.row([key.clone()].into_iter().chain(said.into_iter().map(cell)));
            }
        }
        Ok(table)
    }

    /// A row for each figure that a run was measured at.
    fn figures(&self, is_long: bool) -> Table {
        let (mut names, mut found) = (Vec::<String>::new(), Vec::new());
        for run in &self.runs {
            let measured = run.figures.as_ref().map(table::table).unwrap_or_default();
            let mut cells = BTreeMap::new();
            for row in measured.rows() {
                let [name, value, interval, blank] = [0, 1, 2, 3].map(|i| row.get(i).cloned().unwrap_or_default());
                let long = format!("{value} ({interval}; blank {blank})");
                cells.insert(name.clone(), if is_long { long } else { value });
                if !names.contains(&name) {
                    names.push(name);
                }
            }
            found.push(cells);
        }
        let mut table = self.table("held out, %");
        for name in names {
            let cells = found.iter().map(|cells| cells.get(&name).cloned().unwrap_or("-".into()));
            table.row([name.clone()].into_iter().chain(cells));
        }
        table
    }

    /// Of each phase the losses and the accuracy of all runs.
    fn curves(&self) -> String {
        let mut phases: Vec<&str> =
            self.runs.iter().flat_map(|run| &run.steps).map(|step| step.phase.as_str()).collect();
        phases.sort_unstable();
        phases.dedup();
        let charts = phases.into_iter().map(|phase| {
            let chart =
                |title: &str, about: &str, value: &dyn Fn(&StepMetrics) -> Option<f64>, format: fn(f64) -> String| {
                    let curve = |(run, name): (&Files, &String)| {
                        let steps = run.steps.iter().filter(|step| step.phase == phase);
                        Curve::new(name, steps.filter_map(|step| Some((step.step as f64, value(step)?))))
                    };
                    Chart {
                        title: &format!("{title} of {phase}"),
                        about,
                        curves: self.runs.iter().zip(&self.names).map(curve).collect(),
                        marks: &[],
                        format,
                        may_be_log: true,
                    }
                    .html()
                };
            let accuracy = |step: &StepMetrics| step.mean_token_accuracy.map(|share| 100.0 * share);
            [
                chart("Loss", "Thin as measured, thick smoothed.", &|step| Some(step.loss), number),
                chart("Held-out loss", "Measured on the way.", &|step| step.parts.get(EVAL_LOSS).copied(), number),
                chart("Token accuracy", "In percent, on what is trained on.", &accuracy, number),
            ]
            .concat()
        });
        let charts: String = charts.collect();
        match charts.is_empty() {
            true => absent("No step was taken yet."),
            false => format!("<div class=\"charts\">\n{charts}</div>\n"),
        }
    }

    /// Questions that all runs were asked about one and the same picture, with the last answer of each.
    fn samples(&self) -> String {
        let Some((first, others)) = self.runs.split_first() else {
            return String::new();
        };
        let bytes = |run: &Files, sample: &Shown| read_file(&run.folder.join(&sample.image), MAX_IMAGE_FILE).ok();
        let same = |sample: &&Shown| {
            let asked = |run: &Files| {
                let found = run.samples.iter().find(|other| is_same(other, sample));
                found.is_some_and(|other| bytes(run, other) == bytes(first, sample))
            };
            others.iter().all(asked)
        };
        let cards: String = first.samples.iter().filter(same).take(MOST).map(|sample| self.card(sample)).collect();
        match cards.is_empty() {
            true => absent("There is no question that all runs were asked about the same picture."),
            false => format!("<div class=\"cards\">\n{cards}</div>\n"),
        }
    }

    fn card(&self, sample: &Shown) -> String {
        let answers = self.runs.iter().zip(&self.names).map(|(run, name)| {
            let said = run.samples.iter().find(|other| is_same(other, sample)).and_then(|other| other.said.last());
            let (answer, mark) = match said {
                Some(said) if said.right => (said.answer.as_str(), "<dd class=\"right\">✓ right</dd>"),
                Some(said) => (said.answer.as_str(), "<dd class=\"wrong\">✗ wrong</dd>"),
                None => ("not asked yet", ""),
            };
            line(&escape(name), answer, mark)
        });
        let expected = sample.expected.as_ref().map_or(String::new(), |text| line("expected", text, ""));
        let alt = format!("Image of the question: {}", sample.question);
        let folder = self.runs.first().map_or(Path::new(""), |run| &run.folder);
        format!(
            "<article class=\"card\">\n{}\n<div>\n<h3>{}</h3>\n<dl>\n{}{expected}</dl>\n</div>\n</article>\n",
            picture(folder, &sample.image, &alt, 256),
            brief(&sample.question),
            answers.collect::<String>()
        )
    }
}

fn is_same(a: &Shown, b: &Shown) -> bool {
    (&a.image, &a.question, &a.expected) == (&b.image, &b.question, &b.expected)
}

/// The last and the best of losses, each with its step.
fn ends(losses: Option<Losses>) -> [String; 2] {
    let Some(losses) = losses else {
        return ["-".into(), "-".into()];
    };
    [losses.last, losses.best].map(|at| format!("{:.3} @ {}", at.loss, at.step))
}

fn shorten(text: &str) -> String {
    match text.chars().count() > LONG {
        true => text.chars().take(LONG).chain(['…']).collect(),
        false => text.into(),
    }
}
