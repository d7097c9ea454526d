//! A model's tensors in one file or several, and how they become its parameters.

use super::overlay::{Delta, Overlay};
use super::read::{Stored, TensorFile};
use crate::error::{Error, Result, at, input};
use crate::files::{parse_json, read_up_to};
use crate::lora::folded;
use crate::positions::resize_grid;
use engine::{DType, Device, ParamId, ParamSpec, Params, Shape, Tensor, Var, ops};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Largest index file read, in bytes.
const MAX_INDEX: u64 = 64 << 20;

/// Where a parameter's numbers come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// From the tensor that has the first of these names to be found.
    Tensor(Vec<String>),
    /// As `Tensor`, but where the tensor has fewer rows than the parameter, the other rows become their mean: a table of
    /// embeddings to which tokens were added (Hewitt 2021).
    Grown(Vec<String>),
    /// From rows of a tensor that holds several parameters on top of each other: its names, which part, of how many.
    Rows(Vec<String>, usize, usize),
    /// As `Tensor`, but the tensor is a table of positions for another number of patches: so many rows that stay as they are,
    /// then a square grid with so many patches a side, which is interpolated ([`crate::positions::resize_grid`]).
    Grid(Vec<String>, usize, usize),
    /// From nowhere: the parameter stays as it was initialised.
    Initial,
}

impl Source {
    /// A tensor under one of several names.
    pub fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Source {
        Source::Tensor(names.into_iter().map(Into::into).collect())
    }
}

/// Tensors by name, in one file or in shards.
#[derive(Debug)]
pub struct Checkpoint {
    /// What messages name: the file, or the index of the shards.
    path: PathBuf,
    files: Vec<TensorFile>,
    /// The file of each tensor.
    place: BTreeMap<String, usize>,
    /// A low-rank adapter that is to be folded in.
    overlay: Option<Overlay>,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Opens `model.safetensors` in `folder`, or the shards that `model.safetensors.index.json` names.
    ///
    /// # Errors
    /// When neither is there, a shard is missing or malformed, or the index and the shards do not agree.
    pub fn open(folder: &Path) -> Result<Checkpoint> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        match (single.is_file(), index.is_file()) {
            (true, _) => Checkpoint::file(&single),
            (false, true) => Checkpoint::shards(folder, index),
            (false, false) => {
                let hint = other_weights(folder).unwrap_or_default();
                let message = format!("holds neither model.safetensors nor model.safetensors.index.json{hint}");
                Err(at(folder)(message))
            }
        }
    }

    /// A checkpoint of a single file.
    pub fn file(path: &Path) -> Result<Checkpoint> {
        let file = TensorFile::open(path)?;
        let place = file.names().map(|name| (name.to_string(), 0)).collect();
        Ok(Checkpoint { path: path.to_path_buf(), files: vec![file], place, overlay: None })
    }

    fn shards(folder: &Path, index: PathBuf) -> Result<Checkpoint> {
        let Index { weight_map } = parse_json(&index, &read_up_to(&index, MAX_INDEX)?)?;
        let shards: BTreeSet<&String> = weight_map.values().collect();
        if let Some(shard) = shards.iter().find(|name| name.contains(['/', '\\']) || !name.ends_with(".safetensors")) {
            return Err(at(&index)(format!("shard `{shard}` is not the name of a safetensors file beside the index")));
        }
        let files: Vec<TensorFile> =
            shards.iter().map(|shard| TensorFile::open(&folder.join(shard))).collect::<Result<_>>()?;
        let mut place = BTreeMap::new();
        for (number, (shard, file)) in shards.iter().zip(&files).enumerate() {
            for name in file.names() {
                if weight_map.get(name) != Some(shard) {
                    return Err(at(file.path())(format!(
                        "tensor `{name}` is not in the index, or in another shard there"
                    )));
                }
                place.insert(name.to_string(), number);
            }
        }
        match weight_map.iter().find(|(name, _)| !place.contains_key(*name)) {
            None => Ok(Checkpoint { path: index, files, place, overlay: None }),
            Some((name, shard)) => Err(at(&index)(format!("tensor `{name}` is not in {shard}"))),
        }
    }

    /// The same with a low-rank adapter on top.
    pub(crate) fn with_overlay(self, overlay: Overlay) -> Checkpoint {
        Checkpoint { overlay: Some(overlay), ..self }
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.place.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.place.contains_key(name)
    }

    /// A tensor's numbers where they lie.
    ///
    /// # Errors
    /// When there is none of this name, or it is of a type that no model computes with.
    pub fn stored(&self, name: &str) -> Result<Stored<'_>> {
        if let Some(found) = self.overlay.as_ref().and_then(|overlay| overlay.whole(name)) {
            return found;
        }
        match self.place.get(name) {
            Some(&file) => self.files[file].stored(name),
            None => Err(self.bad(name, "is missing".into())),
        }
    }

    /// Finds every parameter's numbers, before room is made for any: `entries` are names and shapes, `belongs` says which
    /// tensors of the files are of the part of a model that is read. Sizes of 1 do not count: a vector (dim) may be stored as
    /// (1, 1, dim).
    ///
    /// # Errors
    /// When a parameter's tensor is missing or has another shape, or a tensor that belongs is left over.
    pub fn plan(
        &self,
        entries: &[ParamSpec],
        source: impl Fn(&str) -> Source,
        belongs: impl Fn(&str) -> bool,
    ) -> Result<Plan<'_>> {
        let mut used = BTreeSet::new();
        let (mut loads, mut deltas) = (Vec::new(), Vec::new());
        for ParamSpec { name: parameter, shape, .. } in entries {
            let (mut shape, mut grid) = (*shape, None);
            let (names, part, parts, grown) = match source(parameter) {
                Source::Initial => continue,
                Source::Tensor(names) => (names, 0, 1, false),
                Source::Grown(names) => (names, 0, 1, true),
                Source::Rows(names, part, parts) => (names, part, parts, false),
                Source::Grid(names, leading, side) => {
                    (shape, grid) = (with_rows(shape, leading + side * side), Some((leading, side)));
                    (names, 0, 1, false)
                }
            };
            if let Some(overlay) = &self.overlay {
                let delta = overlay.delta(&names, shape, (part, parts))?;
                deltas.extend(delta.map(|delta| (parameter.clone(), delta)));
                used.extend(names.iter().filter(|name| overlay.touches(name)).cloned());
            }
            let whole = |name: &&String| self.overlay.as_ref().is_some_and(|overlay| overlay.whole(name).is_some());
            let found = names.iter().find(|name| self.contains(name));
            used.extend(found.cloned());
            let Some(name) = names.iter().find(whole).or(found) else {
                let needed = stacked(shape, parts);
                return Err(
                    self.bad(&names.join("` or `"), format!("is missing; the model needs one of shape {needed}"))
                );
            };
            if let (true, Some(&rows)) = (grown, self.stored(name)?.shape.first()) {
                shape = with_rows(shape, rows.min(shape[0]));
            }
            loads.push(Load { parameter: parameter.clone(), stored: self.part(name, shape, part, parts)?, grid });
        }
        if let Some(overlay) = &self.overlay {
            let embedding = used.iter().find(|name| name.ends_with("embed_tokens.weight"));
            let embedding = embedding.map(|name| self.stored(name)).transpose()?;
            overlay.check_unused(|name| used.contains(name) || !belongs(name), embedding.map(|stored| stored.bytes))?;
        }
        for name in self.names().filter(|name| !used.contains(*name) && belongs(name)) {
            self.check_unused(name, &used)?;
        }
        Ok(Plan { loads, deltas })
    }

    /// The rows of tensor `name` that make up a parameter of this shape.
    fn part(&self, name: &str, shape: Shape, part: usize, parts: usize) -> Result<Stored<'_>> {
        let found = self.stored(name)?;
        let needed = stacked(shape, parts);
        let counted = |sizes: &[usize]| sizes.iter().copied().filter(|&size| size != 1).collect::<Vec<_>>();
        if counted(found.shape) != counted(&needed) {
            return Err(self.bad(name, format!("has shape {:?}, the model needs {needed}", found.shape)));
        }
        let bytes = found.bytes.len() / parts;
        Ok(Stored { bytes: &found.bytes[part * bytes..][..bytes], ..found })
    }

    /// Fails unless a tensor that no parameter comes from says nothing that the configuration does not say.
    fn check_unused(&self, name: &str, used: &BTreeSet<String>) -> Result<()> {
        if name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".position_ids") {
            return Ok(());
        }
        // Older tools store a tied output layer a second time.
        let embedding = used.iter().find(|used| used.ends_with("embed_tokens.weight"));
        if let (true, Some(embedding)) = (name.ends_with("lm_head.weight"), embedding) {
            return match self.stored(name)?.bytes == self.stored(embedding)?.bytes {
                true => Ok(()),
                false => Err(self
                    .bad(name, format!("differs from `{embedding}`, but tie_word_embeddings says that they are one"))),
            };
        }
        Err(self.bad(name, "is not a parameter of this model".into()))
    }

    fn bad(&self, name: &str, message: String) -> Error {
        let file = self.place.get(name).map(|&file| self.files[file].path());
        Error::Tensor { path: file.unwrap_or(&self.path).to_path_buf(), tensor: name.to_string(), message }
    }
}

/// What a folder without the files that are read has in their place.
fn other_weights(folder: &Path) -> Option<String> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let named = |endings: &[&str]| names.iter().find(|name| endings.iter().any(|ending| name.ends_with(ending)));
    if let Some(shard) = named(&[".safetensors"]) {
        return Some(format!("; {shard} is there, but not the file or the index that names it: download that, too"));
    }
    if let Some(name) = named(&[".bin", ".bin.index.json", ".pt", ".pth", ".ckpt"]) {
        return Some(format!("; {name} is not read, for it may run code: convert it to safetensors"));
    }
    let other = named(&[".gguf", ".h5", ".msgpack", ".onnx", ".npz"])?;
    Some(format!("; {other} is not read: convert it to safetensors, or download those"))
}

/// Where the numbers of a model's parameters lie.
#[derive(Debug)]
pub struct Plan<'c> {
    loads: Vec<Load<'c>>,
    /// What is added to parameters then.
    deltas: Vec<(String, Delta<'c>)>,
}

#[derive(Debug)]
struct Load<'c> {
    parameter: String,
    stored: Stored<'c>,
    /// Leading rows and side of a grid that is interpolated.
    grid: Option<(usize, usize)>,
}

impl Plan<'_> {
    /// Writes the parameters, straight from the mapped files.
    ///
    /// # Errors
    /// When `params` are others than those it was made for, or a device fails.
    pub fn load(self, params: &mut Params) -> Result<()> {
        for Load { parameter, stored: found, grid } in self.loads {
            let Some(id) = params.find(&parameter) else {
                return input("parameters", format!("have no `{parameter}`"));
            };
            if let Some((leading, side)) = grid {
                load_grid(params, id, &found, leading, side)?;
                continue;
            }
            params.load_rows(id, 0, found.bytes, found.dtype)?;
            let known = found.bytes.len() / found.dtype.size();
            let (all, row) = (params.shape(id).elements(), params.shape(id).last());
            if known < all {
                fill_with_mean(params, id, known / row.max(1))?;
            }
        }
        for (name, delta) in self.deltas {
            if let Some(id) = params.find(&name) {
                let dtype = params.master(id).dtype();
                let factors = delta.factors(params.device())?;
                let folded = folded(params, id, factors, delta.scale)?.cast(dtype)?;
                params.set(id, &folded)?;
            }
        }
        Ok(())
    }
}

/// Writes positions that were learned for a grid of another side.
fn load_grid(params: &mut Params, id: ParamId, found: &Stored<'_>, leading: usize, side: usize) -> Result<()> {
    let (shape, dim) = (params.shape(id), params.shape(id).last());
    let stored = Tensor::from_bytes(&Device::cpu(), found.dtype, found.bytes, [leading + side * side, dim])?;
    let new = (shape.rows() - leading).isqrt();
    let table = resize_grid(&stored.to_f64()?, leading, side, new, dim);
    let table = Tensor::from_slice(&Device::cpu(), &table, shape)?.cast(DType::F32)?;
    Ok(params.load_rows(id, 0, &table.to_bytes()?, DType::F32)?)
}

/// Gives a table's rows behind the first `known` their mean.
fn fill_with_mean(params: &mut Params, id: ParamId, known: usize) -> Result<()> {
    let shape = params.shape(id);
    let table = params.master(id).reshape([1, shape.rows(), shape.last()])?;
    let rows = ops::slice(&Var::constant(table), 0, known)?;
    let mean = ops::mean_axis(&rows, 1)?.tensor().clone();
    // Nothing may share the arena while it is written.
    drop(rows);
    for row in known..shape.rows() {
        params.load_rows(id, row, &mean.to_bytes()?, mean.dtype())?;
    }
    Ok(())
}

fn with_rows(shape: Shape, rows: usize) -> Shape {
    let mut sizes = shape.to_vec();
    sizes[0] = rows;
    Shape::new(&sizes)
}

/// The shape of `parts` tensors on top of each other.
fn stacked(shape: Shape, parts: usize) -> Shape {
    let mut sizes = shape.to_vec();
    if let Some(rows) = sizes.first_mut() {
        *rows *= parts;
    }
    Shape::new(&sizes)
}
