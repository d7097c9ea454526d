//! What a run reads from outside its folder, by its content: a run that goes on must find what it was begun with.
//!
//! Records are hashed as they were read (ids, texts, places of their images), images by their pixels where they are kept in
//! memory and by names, sizes and both ends of their files where they are decoded when needed, a tokenizer's and pretrained
//! parts' files by their bytes.

use super::manifest::{Fingerprint, fingerprint};
use crate::data::corpus::Corpus;
use crate::data::pictures::IMAGE_HASHES;
use crate::pretrained_parts::{PretrainedParts, key};
use crate::recipe::Recipe;
use crate::run_folder::{MAX_FILE, write_whole};
use crate::session::Dataset;
use anyhow::{Context, Result, bail};
use model::{open_file, read_file};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const NAME: &str = "data.json";

/// One thing read from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// Where it is.
    path: PathBuf,
    /// What was hashed, and how many there are: `34 records`, `120 bytes`.
    what: String,
    sha256: String,
}

/// All that a run reads from outside, by the recipe's key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seal(BTreeMap<String, Sealed>);

impl Seal {
    /// Of what this run reads; `start` are the pretrained parts.
    pub fn of(recipe: &Recipe, data: &Dataset, start: &PretrainedParts) -> Result<Seal> {
        let mut seal = Seal::default();
        if let Dataset::Corpus { train, heldout } = data {
            seal.corpus("data", &train.corpus)?;
            if let Some(heldout) = heldout {
                seal.corpus("held-out data", heldout)?;
            }
        }
        let mut files: Vec<(String, PathBuf)> = Vec::new();
        // Only a run's start reads it: it may have gone since.
        let tokenizer = recipe.tokenizer.path.iter().filter(|path| path.exists());
        files.extend(tokenizer.map(|path| ("tokenizer.path".into(), path.clone())));
        for (part, folder) in &start.parts {
            let key = format!("pretrained.{}", key(*part));
            files.extend(part_files(folder)?.into_iter().map(|path| (key.clone(), path)));
        }
        let sealed = files.into_par_iter().map(|(key, path)| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let print = open_file(&path).and_then(fingerprint);
            let Fingerprint { bytes, sha256 } = print.with_context(|| path.display().to_string())?;
            let what = format!("{bytes} bytes");
            Ok((format!("{key}, {name}"), Sealed { path: path.clone(), what, sha256 }))
        });
        seal.0.extend(sealed.collect::<Result<Vec<_>>>()?);
        Ok(seal)
    }

    fn corpus(&mut self, key: &str, corpus: &Corpus) -> Result<()> {
        for (of, what, sha256) in [corpus.hash_records(), corpus.hash_images()] {
            let path = corpus.path().to_owned();
            self.0.insert(format!("{key}, {of}"), Sealed { path, what, sha256 });
        }
        Ok(())
    }

    /// Fails where what is there now is not what the checkpoint in `folder` was made with, unless `accept`; says so then.
    ///
    /// # Errors
    /// Names each change.
    pub fn check(&self, folder: &Path, accept: bool) -> Result<()> {
        let path = folder.join(NAME);
        if !path.exists() {
            errln!("{}: not there, so whether the data is as it was is not known", path.display());
            return Ok(());
        }
        let text = read_file(&path, MAX_FILE).with_context(|| path.display().to_string())?;
        let then: Seal =
            serde_json::from_slice(&text).with_context(|| format!("{}: not as written", path.display()))?;
        for key in then.0.keys().filter(|key| self.hashes_otherwise(key) && !self.0.contains_key(*key)) {
            errln!("{key}: not compared, as memory lets them be kept otherwise now");
        }
        let changes = then.changes(self);
        match (changes.is_empty(), accept) {
            (true, _) => {}
            (false, true) => changes.iter().for_each(|change| errln!("changed since: {change}")),
            (false, false) => bail!(
                "{}: the run was begun with other data:\n  {}\nput back what was there, or go on with what is there now by \
                 --accept-changed-data; tokenizer and image processor stay the checkpoint's in any case",
                folder.display(),
                changes.join("\n  ")
            ),
        }
        Ok(())
    }

    /// What is otherwise now.
    fn changes(&self, now: &Seal) -> Vec<String> {
        let only = |here: &Seal, there: &Seal, when: &str, never: &str| -> Vec<String> {
            let keys = here.0.iter().filter(|(key, _)| !there.0.contains_key(*key) && !there.hashes_otherwise(key));
            let line = |(key, Sealed { path, what, .. }): (&String, &Sealed)| {
                format!("{key}: {}: {what} {when}, not read {never}", path.display())
            };
            keys.map(line).collect()
        };
        let both = self.0.iter().filter_map(|(key, then)| Some((key, then, now.0.get(key)?)));
        let both = both.filter(|(_, then, now)| then.sha256 != now.sha256);
        let both = both.map(|(key, then, now)| match now.what == then.what {
            true => format!("{key}: {}: {}, but not the same", now.path.display(), now.what),
            false => format!("{key}: {}: {} now, {} then", now.path.display(), now.what, then.what),
        });
        let mut changes: Vec<String> = both.collect();
        changes.extend(only(now, self, "now", "then"));
        changes.extend(only(self, now, "then", "now"));
        changes
    }

    /// Whether these images are hashed in the other way here, as there was more memory, or less.
    fn hashes_otherwise(&self, key: &str) -> bool {
        let [pixels, files] = IMAGE_HASHES;
        let other = match key.contains(pixels) {
            true => key.replace(pixels, files),
            false => key.replace(files, pixels),
        };
        other != key && self.0.contains_key(&other)
    }

    /// Writes it into a checkpoint's folder.
    pub fn write(&self, folder: &Path) -> Result<()> {
        write_whole(&folder.join(NAME), &serde_json::to_vec_pretty(self)?)
    }
}

/// The files that a part's shape and weights are read from.
fn part_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let read = ["config.json", "adapter_config.json"].contains(&name.as_str())
            || name.ends_with(".safetensors")
            || name.ends_with(".safetensors.index.json");
        if read && path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}
