//! What can go wrong with models and their files.

use std::path::{Path, PathBuf};

/// A model error: names the field, the file or the tensor, and what would have been right.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tensor operation refused.
    #[error(transparent)]
    Engine(#[from] engine::Error),
    /// A configuration that makes no model.
    #[error("config field `{field}`: {message}")]
    Config {
        /// The field, with dots from the outermost table.
        field: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file that cannot be read, written or understood.
    #[error("{}: {message}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        message: String,
    },
    /// A tensor in a file that is not what the model needs.
    #[error("{}: tensor `{tensor}`: {message}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's full name.
        tensor: String,
        /// What was found and what was expected.
        message: String,
    },
    /// Arguments that do not fit the model.
    #[error("{what}: {message}")]
    Input {
        /// What was given.
        what: &'static str,
        /// What is wrong with it.
        message: String,
    },
    /// The tokenizer could not be made, or refused a text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

impl From<crate::guard::Panicked> for Error {
    fn from(panicked: crate::guard::Panicked) -> Error {
        Error::Tokenizer(panicked.to_string())
    }
}

/// The result of everything in this crate that touches more than tensors.
pub type Result<T> = std::result::Result<T, Error>;

/// A [`Error::Config`] with a formatted message.
pub(crate) fn config<T>(field: &str, message: impl Into<String>) -> Result<T> {
    Err(Error::Config { field: field.into(), message: message.into() })
}

/// A [`Error::Input`] with a formatted message.
pub(crate) fn input<T>(what: &'static str, message: impl Into<String>) -> Result<T> {
    Err(Error::Input { what, message: message.into() })
}

/// Turns any error met at `path` into an [`Error::File`].
pub(crate) fn at<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> Error {
    move |error| Error::File { path: path.to_path_buf(), message: error.to_string() }
}

/// A shape error of the engine's kind, for layers.
pub(crate) fn shape<T>(op: &'static str, message: impl Into<String>) -> engine::Result<T> {
    Err(engine::Error::Shape { op, message: message.into() })
}
