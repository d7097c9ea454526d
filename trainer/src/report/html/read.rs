//! What a run's folder holds of what the page shows.

use crate::eval::{Figures, records};
use crate::metrics::{self, StepMetrics};
use crate::report::samples::Shown;
use crate::report::summary::{SUMMARY, Summary};
use crate::run_folder::RECIPE;
use crate::sample_predictions::SAMPLES;
use crate::similarity::{SIMILARITY, Similarity};
use anyhow::{Context, Result, anyhow, ensure};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A run's files, as far as they are there.
#[derive(Debug, Default)]
pub(super) struct Files {
    /// Where they lie.
    pub(super) folder: PathBuf,
    /// What the recipe calls the run.
    pub(super) name: String,
    /// The recipe as it stands.
    pub(super) recipe: String,
    /// How the run is set up, and what it took.
    pub(super) summary: Option<Summary>,
    /// Every step.
    pub(super) steps: Vec<StepMetrics>,
    /// What the trained model was measured at.
    pub(super) figures: Option<Figures>,
    /// Questions and answers.
    pub(super) samples: Vec<Shown>,
    /// Images beside captions.
    pub(super) similarity: Option<Similarity>,
}

impl Files {
    /// Reads them.
    ///
    /// # Errors
    /// When the folder is no run's; names a file that is damaged.
    pub(super) fn read(folder: &Path) -> Result<Files> {
        let path = folder.join(RECIPE);
        ensure!(path.exists(), "{}: not a run's folder: it has no {RECIPE}", folder.display());
        let recipe = text(&path)?;
        let log = folder.join("metrics.jsonl");
        let figures: Option<BTreeMap<String, Option<f64>>> = json(&folder.join("eval.json"))?;
        let similarity: Option<Similarity> = json(&folder.join(SIMILARITY))?;
        if let Some(found) = &similarity {
            let n = found.images.len();
            let square = found.captions.len() == n && found.scores.len() == n;
            ensure!(
                square && n > 0 && found.scores.iter().all(|row| row.len() == n),
                "{}: expected as many captions, rows and columns of scores as images, of which there are {n}",
                folder.join(SIMILARITY).display()
            );
        }
        Ok(Files {
            folder: folder.to_owned(),
            name: name(&path, &recipe)?,
            recipe,
            summary: json(&folder.join(SUMMARY))?,
            steps: match log.exists() {
                true => metrics::read(&log)?,
                false => {
                    errln!("{}: not there, so nothing is known of single steps", log.display());
                    Vec::new()
                }
            },
            // A figure that is no number is written as null.
            figures: figures.map(|all| all.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()),
            samples: json(&folder.join(SAMPLES))?.unwrap_or_default(),
            similarity,
        })
    }

    /// Whether the run has come to its end.
    pub(super) fn is_over(&self) -> bool {
        self.summary.as_ref().is_some_and(|summary| summary.seconds.is_some())
    }
}

/// The run's name: `run.name` of the recipe.
fn name(path: &Path, recipe: &str) -> Result<String> {
    let table: toml::Table =
        toml::from_str(recipe).map_err(|error| anyhow!("{}: not TOML: {}", path.display(), error.message()))?;
    let name = table.get("run").and_then(|run| run.get("name")).and_then(|name| name.as_str());
    let name = name.with_context(|| format!("{}: expected run.name", path.display()))?;
    Ok(name.to_string())
}

fn text(path: &Path) -> Result<String> {
    String::from_utf8(records::bytes(path)?).with_context(|| format!("{}: not UTF-8", path.display()))
}

fn json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match path.exists() {
        true => records::document(&records::bytes(path)?, path).map(Some),
        false => Ok(None),
    }
}
