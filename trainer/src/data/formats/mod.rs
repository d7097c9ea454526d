//! The formats data sets are kept in, one file each, all read into [`Found`].

mod coco;
mod completion;
mod fault;
mod fields;
mod folder;
mod json;
mod llava;
mod messages;
#[cfg(feature = "parquet")]
mod parquet;
mod talk;
mod webdataset;

use super::bad_records::BadRecord;
use super::files::ends_in;
use super::images::ImageSource;
use super::record::{Content, Found, Record, Select, Turn};
pub(crate) use json::{Object, Once, about_nan, bytes, nan_at, without_nan};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use fault::Fault;
use serde_json::Value;
use std::path::Path;

/// How a data set is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// LLaVA's `conversations`.
    Llava,
    /// `messages` with roles, as in TRL.
    Messages,
    /// `prompt` and `completion`, as in TRL.
    Completion,
    /// COCO's captions.
    Coco,
    /// A folder of images for each class.
    Folder,
    /// Tar shards of images with their texts.
    Webdataset,
    /// Parquet files of images with their texts.
    Parquet,
}

/// What is asked about images that come with captions or classes only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub question: String,
    /// What is said of an image of a class; `{}` is the class.
    pub templates: Vec<String>,
}

impl Default for Ask {
    fn default() -> Ask {
        Ask { question: "Describe the image.".into(), templates: vec!["a photo of a {}.".into()] }
    }
}

impl Format {
    /// Its name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Format::Llava => "llava",
            Format::Messages => "messages",
            Format::Completion => "completion",
            Format::Coco => "coco",
            Format::Folder => "folder",
            Format::Webdataset => "webdataset",
            Format::Parquet => "parquet",
        }
    }

    /// Whether images lie beside the records, under a path of their own.
    pub fn has_images(self) -> bool {
        !matches!(self, Format::Folder | Format::Webdataset | Format::Parquet)
    }

    /// Whether records may say which split they belong to.
    pub fn has_splits(self) -> bool {
        self != Format::Folder
    }

    /// Reads the records of `path`, and opens where their images are: `images`, or `path` itself. Images are not looked at.
    ///
    /// # Errors
    /// When a file cannot be read or is cut off, or no record is wanted. Single bad records are counted in [`Found::bad`].
    pub fn open(self, path: &Path, images: Option<&Path>, select: &Select, ask: &Ask) -> Result<(Found, ImageSource)> {
        match self {
            Format::Folder => Ok((folder::records(path, select, ask)?, ImageSource::open(path)?)),
            Format::Webdataset => {
                let (found, shards) = webdataset::records(path, select, ask)?;
                Ok((found, ImageSource::of_shards(path, shards)))
            }
            #[cfg(feature = "parquet")]
            Format::Parquet => {
                let (found, tables) = parquet::records(path, select, ask)?;
                Ok((found, ImageSource::of_tables(path, tables)))
            }
            #[cfg(not(feature = "parquet"))]
            Format::Parquet => {
                bail!("{}: this lenslet was built without Parquet; build it with `--features parquet`", path.display())
            }
            _ => {
                let images = images.context("the images' folder or archive is missing")?;
                let images = ImageSource::open(images)?;
                let mut found = self.parse(&json::bytes(path)?, path, select, ask)?;
                // One image has one name; a name that leads elsewhere is told when it is read.
                for name in found.records.iter_mut().flat_map(|record| &mut record.content.images) {
                    if let Ok(inside) = images.relative(name) {
                        *name = inside;
                    }
                }
                Ok((found, images))
            }
        }
    }

    /// The records of a file's bytes, of a format that is kept in one file; `file` is the name messages use.
    pub fn parse(self, bytes: &[u8], file: &Path, select: &Select, ask: &Ask) -> Result<Found> {
        match self {
            Format::Llava => json::records(bytes, file, select, &llava::content),
            Format::Messages => json::records(bytes, file, select, &messages::content),
            Format::Completion => json::records(bytes, file, select, &completion::content),
            Format::Coco => coco::records(bytes, file, select, &ask.question),
            _ => bail!("{}: not a file of records", file.display()),
        }
    }
}

/// The fields of the formats that are conversations, as messages name them.
pub(crate) const CONVERSATIONS: &str = "`conversations`, `messages`, or `prompt` and `completion`";

/// What a record says as LLaVA's `conversations`, TRL's `messages`, or `prompt` and `completion`; None where it is none of them.
///
/// # Errors
/// The field to blame and what is wrong with it.
pub(crate) fn conversation(record: &Object) -> Option<Result<Content>> {
    let (field, _) = fields::first(record, &["conversations", "messages", "completion"])?;
    let content = match field {
        "conversations" => llava::content(record),
        "messages" => messages::content(record),
        _ => completion::content(record),
    };
    Some(content.map_err(|Fault { field, message }| anyhow!("{field}: {message}")))
}

/// The name of a record's only image.
pub(crate) fn image(record: &Object) -> Result<String> {
    match fields::first(record, &["image"]) {
        Some((_, Value::String(name))) => Ok(name.clone()),
        None => bail!("missing field `image`"),
        Some((_, other)) => bail!("image: expected the name of a file, found {other}"),
    }
}

/// A question about so many images with their marks as a record's are brought in order.
///
/// # Errors
/// When there are marks, but not one for each image.
pub(crate) fn place_images(question: &str, images: usize) -> Result<String, String> {
    let mut turns = [Turn { question: question.into(), answer: String::new() }];
    talk::put_marks("question", &mut turns, images, talk::Place::Mark).map_err(|fault| fault.message)?;
    let [turn] = turns;
    Ok(turn.question)
}

/// Adds what is known of the sample `id`: good, broken, without an image or, where there is no content, of another split.
fn add(found: &mut Found, file: &Path, id: String, content: Result<Option<Content>, Fault>) {
    match content {
        Ok(Some(content)) => found.add(Record { line: 0, id, bytes: None, content }),
        Ok(None) => found.other_splits += 1,
        Err(fault) => found.bad.add(BadRecord {
            file: file.to_owned(),
            line: 0,
            id: Some(id),
            field: fault.field,
            message: fault.message,
        }),
    }
}

/// Endings of images.
const IMAGES: [&str; 4] = ["png", "jpg", "jpeg", "webp"];

/// Whether a file is an image, by its name.
fn is_image(name: &str) -> bool {
    IMAGES.iter().any(|ending| ends_in(name, ending))
}

#[cfg(test)]
mod tests;
