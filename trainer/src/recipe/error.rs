//! What is wrong with a recipe.

use std::path::{Path, PathBuf};

/// The first thing wrong with a recipe. Printed as `file:line: key: what is wrong and what was expected`, or as
/// `--set override: …` where the value came from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipeError {
    /// The recipe file.
    pub file: PathBuf,
    /// Its line, counted from 1, where one is to blame.
    pub line: Option<usize>,
    /// The key with its tables, as in `phase1.lr`; empty for the file as a whole.
    pub key: String,
    /// The `--set` argument to blame, if one is.
    pub set: Option<String>,
    /// What is wrong and what was expected.
    pub message: String,
}

impl RecipeError {
    /// An error of the file as a whole, or of one of its lines.
    pub(super) fn in_file(file: &Path, line: Option<usize>, message: impl Into<String>) -> RecipeError {
        RecipeError { file: file.to_owned(), line, key: String::new(), set: None, message: message.into() }
    }
}

impl std::fmt::Display for RecipeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.set, self.line) {
            (Some(set), _) => write!(f, "--set {set}")?,
            (None, Some(line)) => write!(f, "{}:{line}", self.file.display())?,
            (None, None) => write!(f, "{}", self.file.display())?,
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.message)
    }
}

impl std::error::Error for RecipeError {}

/// A value that has the right type and is still wrong.
#[derive(Debug)]
pub struct Invalid {
    /// The key with its tables.
    pub(crate) key: String,
    /// What is wrong and what was expected.
    pub(crate) message: String,
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

impl std::error::Error for Invalid {}

impl Invalid {
    /// What a model says of its configuration, which is the recipe's `table`.
    pub(crate) fn of_model(table: &str, error: model::Error) -> Invalid {
        match error {
            model::Error::Config { field, message } => Invalid::new(format!("{table}.{field}"), message),
            other => Invalid::new(table, other.to_string()),
        }
    }

    pub(crate) fn new(key: impl Into<String>, message: impl Into<String>) -> Invalid {
        Invalid { key: key.into(), message: message.into() }
    }
}
