//! Recipes: one TOML file says everything a run does.
//!
//! ```toml
//! [run]
//! name = "first"
//! seed = 1
//!
//! [data]
//! source = "scenes"
//!
//! [phase2]
//! steps = 1000
//! batch_size = 32
//! lr = 1e-3
//! ```
//! A phase left out is not run. Unknown keys, wrong types and values out of range are errors that name file, line, key
//! and what was expected.

mod check;
mod effect;
mod error;
mod given;
pub mod keys;
mod parse;
mod paths;
mod phase;
mod pretrained;
mod resume;

pub(crate) use error::Invalid;
pub use error::RecipeError;
pub(crate) use given::{Given, values};
pub use paths::as_written;
pub use phase::{ContrastPhase, Curve, Phase1, Phase2, Training};
pub use pretrained::Pretrained;

use crate::data::corpus::{Files, Part};
use crate::data::formats::{Ask, Format};
use crate::data::record::Select;
use crate::data::scenes::World;
use model::{DualConfig, Fit, VlmConfig, read_file};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name, seed and where to compute.
    pub run: Run,
    /// What to train on.
    pub data: Data,
    /// Trained parts to start from.
    #[serde(default, skip_serializing_if = "Pretrained::is_empty")]
    pub pretrained: Pretrained,
    /// How text becomes ids; that of the pretrained language model where there is one.
    #[serde(default)]
    pub tokenizer: Tokenizer,
    /// The parts of the model. `vocab_size` is 0 in a recipe as written, and filled in from the tokenizer.
    #[serde(default)]
    pub model: VlmConfig,
    /// A dual encoder, trained in place of a vision-language model; None: none. Its vocabulary is filled in from the
    /// tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dual: Option<DualConfig>,
    /// Contrastive training of a dual encoder, `[dual]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contrast: Option<ContrastPhase>,
    /// Contrastive learning, matching and captioning; None: not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase1: Option<Phase1>,
    /// Instruction tuning; None: not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase2: Option<Phase2>,
    /// What is kept on the way, to go on from.
    #[serde(default)]
    pub checkpoints: Checkpoints,
    /// What is measured and shown at the end.
    #[serde(default)]
    pub eval: Eval,
    #[serde(skip)]
    pub(crate) given: Given,
}

/// Name, seed and where to compute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The run folder is `runs/<name>` unless `--out` says otherwise.
    pub name: String,
    /// The seed of everything random. Default 0.
    #[serde(default)]
    pub seed: u64,
    /// `cpu`, or `cuda:N`. Default `cpu`.
    #[serde(default = "default_device")]
    pub device: String,
    /// Type of weights and activations; master weights, statistics and losses are f32 in any case. Default f32.
    #[serde(default)]
    pub dtype: Precision,
    /// Threads to compute with; None: one per core.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
}

fn default_device() -> String {
    "cpu".into()
}

/// Type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// IEEE single.
    #[default]
    F32,
    /// IEEE single; a GPU rounds the operands of products to tf32, which its tensor cores multiply.
    Tf32,
    /// Brain float, the upper half of a single.
    Bf16,
}

/// What to train on. Paths may contain `${NAME}` and `${NAME:-default}`, replaced by environment variables.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// Where samples come from.
    pub source: Source,
    /// Side of the scenes drawn, in pixels; None: the vision tower's. `source = "scenes"` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<usize>,
    /// How rich the scenes are; None: `full`. `source = "scenes"` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub world: Option<World>,
    /// The records: a file of JSON, the folder of classes, or tar shards (`shard-{000..003}.tar`, `a.tar::b.tar`, a folder).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// The folder, `.zip` (stored entries) or `.tar` that the records' image names are relative to; not for folders of
    /// classes and tar shards, which hold them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub images: Option<PathBuf>,
    /// Records to evaluate on; None: those of `path` that `heldout_split` selects, if given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout_path: Option<PathBuf>,
    /// Images of `heldout_path`; None: `images`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout_images: Option<PathBuf>,
    /// The record field that names its split. Default `split`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub split_field: Option<String>,
    /// Train only on records whose split is this; None: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_split: Option<String>,
    /// Evaluate only on records whose split is this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout_split: Option<String>,
    /// Hold out this share of the images with their records, where records say no split: always the same images, none of which is
    /// trained on. In place of `heldout_split` and `heldout_path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heldout_share: Option<f64>,
    /// Use at most this many training samples, the first of the file; None: all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_samples: Option<usize>,
    /// The share of bad records above which loading fails; None: 0.01.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bad: Option<f64>,
    /// What is asked about images that come with captions or classes only; None: `Describe the image.`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub question: Option<String>,
    /// What is said of an image of a class, `{}` standing for it; one is drawn for every pass. `source = "folder"` only;
    /// None: `a photo of a {}.`
    #[serde(skip_serializing_if = "Option::is_none")]
    pub templates: Option<Vec<String>>,
    /// Keep all images in memory, decoded; None: where they take at most a quarter of what is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<bool>,
    /// The longest conversation in tokens, its image slots included where they stand within the text; the rest is cut off.
    /// Rows of `phase2.packing` are filled up to it. None: not cut; packed rows are as long as the decoder can take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<usize>,
    /// Phase 2's batches are of conversations of similar length, which saves padding. Default false.
    #[serde(default)]
    pub group_by_length: bool,
    /// How an image that is not square becomes square. Default `squash`.
    #[serde(default)]
    pub fit: Fit,
}

impl Data {
    /// The data set on disk to train on; none where scenes are drawn.
    pub fn train(&self) -> Option<Files<'_>> {
        let (format, path) = self.source.format().zip(self.path.as_deref())?;
        Some(self.train_files(format, path, false))
    }

    /// The one that is held out, if any is.
    pub fn heldout(&self) -> Option<Files<'_>> {
        let (format, path) = self.source.format().zip(self.path.as_deref())?;
        if self.heldout_share.is_some() {
            return Some(self.train_files(format, path, true));
        }
        let own = self.heldout_path.as_deref();
        if own.is_none() && self.heldout_split.is_none() {
            return None;
        }
        let images = own.and(self.heldout_images.as_deref()).or(self.images.as_deref());
        let select = self.select(self.heldout_split.as_ref(), None);
        Some(self.files(format, own.unwrap_or(path), images, select))
    }

    /// Those to train on, or the share of them that is held out.
    fn train_files<'a>(&'a self, format: Format, path: &'a Path, heldout: bool) -> Files<'a> {
        let select = self.select(self.train_split.as_ref(), self.max_samples);
        let files = self.files(format, path, self.images.as_deref(), select);
        let part = self.heldout_share.map(|share| Part { share, heldout });
        Files { part, ..files }
    }

    fn select(&self, split: Option<&String>, limit: Option<usize>) -> Select {
        Select {
            field: self.split_field.clone().unwrap_or_else(|| Select::default().field),
            split: split.cloned(),
            limit,
        }
    }

    fn files<'a>(&self, format: Format, path: &'a Path, images: Option<&'a Path>, select: Select) -> Files<'a> {
        let usual = Files::new(format, path, images);
        Files {
            select,
            ask: Ask {
                question: self.question.clone().unwrap_or(usual.ask.question),
                templates: self.templates.clone().unwrap_or(usual.ask.templates),
            },
            max_bad: self.max_bad.unwrap_or(usual.max_bad),
            keep: self.keep,
            ..usual
        }
    }
}

/// Where samples come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The built-in scenes: coloured shapes drawn on the fly, nothing on disk.
    Scenes,
    /// LLaVA conversations: `conversations`.
    Llava,
    /// Conversations as in TRL: `messages` with roles.
    Messages,
    /// Questions and answers as in TRL: `prompt` and `completion`.
    Completion,
    /// COCO's captions.
    Coco,
    /// A folder of images for each class.
    Folder,
    /// Tar shards, read in place.
    Webdataset,
    /// Parquet files, if this was built with them.
    Parquet,
}

impl Source {
    /// How the data set is kept; none where nothing is on disk.
    pub fn format(self) -> Option<Format> {
        match self {
            Source::Scenes => None,
            Source::Llava => Some(Format::Llava),
            Source::Messages => Some(Format::Messages),
            Source::Completion => Some(Format::Completion),
            Source::Coco => Some(Format::Coco),
            Source::Folder => Some(Format::Folder),
            Source::Webdataset => Some(Format::Webdataset),
            Source::Parquet => Some(Format::Parquet),
        }
    }
}

/// How text becomes ids.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenizer {
    /// Which kind. Default `bpe`, which reads any text; `words` for scenes, whose vocabulary is built in.
    #[serde(default)]
    pub kind: TokenizerKind,
    /// Vocabulary size of `bpe`, the most words of `words`. Default 1024.
    #[serde(default = "default_vocabulary")]
    pub size: usize,
    /// The `tokenizer.json` of `kind = "file"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

fn default_vocabulary() -> usize {
    1024
}

impl Default for Tokenizer {
    fn default() -> Tokenizer {
        Tokenizer { kind: TokenizerKind::Bpe, size: default_vocabulary(), path: None }
    }
}

/// Kinds of tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TokenizerKind {
    /// One id per lower-case word of the training text; the others are unknown.
    Words,
    /// Byte-pair encoding trained on the training text: no word is unknown.
    #[default]
    Bpe,
    /// Read from a `tokenizer.json`.
    File,
    /// That of the pretrained language model, which a resolved recipe says.
    Pretrained,
}

/// What is kept on the way, to go on from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Checkpoints {
    /// Steps from one checkpoint to the next, counted over all phases; 0: only at the end of a phase and when stopped.
    pub every: usize,
    /// How many of the newest stay.
    pub keep: usize,
}

impl Default for Checkpoints {
    fn default() -> Checkpoints {
        Checkpoints { every: 500, keep: 2 }
    }
}

/// What is measured and shown at the end.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Eval {
    /// Records whose questions are all shown in `samples.md`.
    pub samples: usize,
    /// Attention pictures of the first of these questions. Default 4, or as many as there are samples.
    pub attention: usize,
    /// Held-out records that are measured, with all their questions; of scenes questions per kind and split.
    pub limit: usize,
    /// Questions answered at once.
    pub batch_size: usize,
    /// The longest answer, in tokens.
    pub max_tokens: usize,
}

impl Default for Eval {
    fn default() -> Eval {
        Eval { samples: 16, attention: 4, limit: 500, batch_size: 64, max_tokens: 64 }
    }
}

/// The largest recipe read, in bytes.
const MAX_TEXT: u64 = 1 << 20;

/// The text of a recipe's file.
fn text(file: &Path) -> std::io::Result<String> {
    String::from_utf8(read_file(file, MAX_TEXT)?).map_err(|_| std::io::Error::other("not UTF-8"))
}

impl Recipe {
    /// Reads a recipe file, applies `--set` overrides (`a.b=value`, the value in TOML or a bare word), replaces
    /// environment variables in paths and checks every value.
    ///
    /// # Errors
    /// The first thing wrong, with file, line, key and what was expected.
    pub fn load(file: &Path, overrides: &[String]) -> Result<Recipe, RecipeError> {
        let text = text(file).map_err(|error| RecipeError::in_file(file, None, format!("cannot be read: {error}")))?;
        Recipe::parse(&text, file, overrides)
    }

    /// As [`Recipe::load`], from text; `file` is the name messages use.
    pub fn parse(text: &str, file: &Path, overrides: &[String]) -> Result<Recipe, RecipeError> {
        parse::recipe(text, file, overrides)
    }

    /// An error met after the recipe in `file` was read: where a key of it is to blame, with line or override.
    pub fn locate(error: anyhow::Error, file: &Path, overrides: &[String]) -> anyhow::Error {
        let text = text(file).unwrap_or_default();
        match error.downcast::<Invalid>() {
            Ok(invalid) => parse::located(invalid, &text, file, overrides).into(),
            Err(other) => other,
        }
    }

    /// Stops each phase after `most` steps.
    pub fn limit_steps(&mut self, most: usize) {
        if let Some(phase) = &mut self.contrast {
            phase.steps = phase.steps.min(most);
            phase.warmup = phase.warmup.min(phase.steps);
        }
        if let Some(phase) = &mut self.phase1 {
            phase.steps = phase.steps.min(most);
            phase.warmup = phase.warmup.min(phase.steps);
        }
        if let Some(phase) = &mut self.phase2 {
            phase.steps = phase.steps.min(most);
            phase.warmup = phase.warmup.min(phase.steps);
        }
    }

    /// Of each phase there is: its batch size, how many batches are accumulated, and the shards a batch is cut into.
    pub fn batches(&mut self) -> impl Iterator<Item = (&mut usize, &mut usize, usize)> {
        let contrast = self.contrast.as_mut();
        let contrast = contrast.map(|p| (&mut p.batch_size, &mut p.accumulate, p.shards));
        let phase1 = self.phase1.as_mut().map(|p| (&mut p.batch_size, &mut p.accumulate, p.shards));
        let phase2 = self.phase2.as_mut().map(|p| (&mut p.batch_size, &mut p.accumulate, p.shards));
        [contrast, phase1, phase2].into_iter().flatten()
    }

    /// Whether phase 2 asks each question about an image without those before.
    pub fn independent_turns(&self) -> bool {
        self.phase2.as_ref().is_some_and(|phase| phase.independent_turns)
    }

    /// The same recipe, which now means the same in every folder: its paths are absolute.
    #[must_use]
    pub fn anchored(mut self) -> Recipe {
        paths::anchor(&mut self);
        self
    }

    /// The recipe with every default spelled out; reading it back gives the same recipe.
    pub fn to_toml(&self) -> String {
        let mut recipe = self.clone();
        paths::write(&mut recipe);
        toml::to_string(&recipe).expect("every field of a checked recipe has a TOML form")
    }
}

#[cfg(test)]
mod tests;
