//! A low-rank adapter's file over the tensors of a checkpoint: what is added to them, and what stands in their place.

use super::read::{Stored, TensorFile};
use crate::error::{Error, Result};
use engine::{Device, Shape, Tensor};
use std::collections::BTreeMap;
use std::path::Path;

/// What PEFT puts in front of every name.
const PREFIX: &str = "base_model.model.";

/// What an adapter's settings say of a layer: its rank and the factor on `B·A`; None where they do not name it.
pub(crate) type Module = Box<dyn Fn(&str) -> Result<Option<(usize, f64)>> + Send + Sync>;

/// An adapter's file.
pub(crate) struct Overlay {
    file: TensorFile,
    /// The file's name of each tensor that stands in the place of a checkpoint's.
    whole: BTreeMap<String, String>,
    /// The layers with an adapter: the file's names of `A` and `B`.
    layers: BTreeMap<String, [Option<String>; 2]>,
    module: Module,
}

impl std::fmt::Debug for Overlay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Overlay").field("file", &self.file).finish_non_exhaustive()
    }
}

/// What is added to a parameter: `scale · B·A`.
#[derive(Debug)]
pub(crate) struct Delta<'f> {
    a: Stored<'f>,
    b: Stored<'f>,
    /// The rows of `B` that belong to the parameter.
    rows: usize,
    pub(super) scale: f64,
}

impl Delta<'_> {
    /// `A`, (rank, in), and `B`, (out, rank).
    pub(super) fn factors(&self, device: &Device) -> Result<[Tensor; 2]> {
        let tensor = |from: &Stored<'_>, rows: usize| {
            let shape = Shape::new(&[rows, from.shape[1]]);
            Tensor::from_bytes(device, from.dtype, from.bytes, shape)
        };
        Ok([tensor(&self.a, self.a.shape[0])?, tensor(&self.b, self.rows)?])
    }
}

impl Overlay {
    /// Reads an adapter's file, whose settings `module` knows.
    ///
    /// # Errors
    /// When it is malformed, a layer has only one of `A` and `B`, another rank than the settings say or none there, or a tensor
    /// is of a kind that is not supported; names it.
    pub(crate) fn open(path: &Path, module: Module) -> Result<Overlay> {
        let file = TensorFile::open(path)?;
        let mut whole = BTreeMap::new();
        let mut layers: BTreeMap<String, [Option<String>; 2]> = BTreeMap::new();
        for stored in file.names() {
            let Some(name) = stored.strip_prefix(PREFIX) else {
                return Err(bad(path, stored, format!("is not PEFT's, whose names start with {PREFIX}")));
            };
            let name = [".default", ".base_layer", ".modules_to_save"]
                .iter()
                .fold(name.to_string(), |name, part| name.replace(part, ""));
            match name.split_once(".lora_") {
                None => whole.insert(name, stored.to_string()),
                Some((layer, "A.weight")) => layers.entry(layer.into()).or_default()[0].replace(stored.into()),
                Some((layer, "B.weight")) => layers.entry(layer.into()).or_default()[1].replace(stored.into()),
                Some(_) => {
                    return Err(bad(
                        path,
                        stored,
                        "is not supported; of an adapter, lora_A.weight and lora_B.weight of linear layers are read"
                            .into(),
                    ));
                }
            };
        }
        let overlay = Overlay { file, whole, layers, module };
        overlay.layers.keys().try_for_each(|layer| overlay.check(layer))?;
        Ok(overlay)
    }

    fn check(&self, layer: &str) -> Result<()> {
        let (a, b) = self.stored(layer)?;
        let Some((rank, _)) = (self.module)(layer)? else {
            return Err(self.bad(
                layer,
                "has an adapter, but target_modules (with exclude_modules and layers_to_transform) does not name it"
                    .into(),
            ));
        };
        match (a.shape, b.shape) {
            ([r, _], [_, s]) if (*r, *s) == (rank, rank) => Ok(()),
            _ => Err(self.bad(
                layer,
                format!(
                    "lora_A has shape {:?} and lora_B {:?}; by `r` and `rank_pattern` the rank is {rank}",
                    a.shape, b.shape
                ),
            )),
        }
    }

    /// `A` and `B` of a layer.
    fn stored(&self, layer: &str) -> Result<(Stored<'_>, Stored<'_>)> {
        match &self.layers[layer] {
            [Some(a), Some(b)] => Ok((self.file.stored(a)?, self.file.stored(b)?)),
            [a, _] => {
                let missing = if a.is_none() { "lora_A" } else { "lora_B" };
                Err(self.bad(layer, format!("has no {missing}.weight in the file")))
            }
        }
    }

    /// The tensor that stands in the place of the checkpoint's of this name.
    pub(super) fn whole(&self, name: &str) -> Option<Result<Stored<'_>>> {
        self.whole.get(name).map(|stored| self.file.stored(stored))
    }

    /// The names of such tensors.
    pub(crate) fn whole_names(&self) -> impl Iterator<Item = &str> {
        self.whole.keys().map(String::as_str)
    }

    /// Whether there is anything for the checkpoint's tensor of this name.
    pub(super) fn touches(&self, name: &str) -> bool {
        self.whole.contains_key(name) || layer_of(name).is_some_and(|layer| self.layers.contains_key(layer))
    }

    /// What is added to a parameter of this shape, which is one of `parts` on top of each other in the checkpoint's tensor of
    /// one of these names.
    ///
    /// # Errors
    /// When the adapter does not fit the parameter, or lacks the layer though its settings name it.
    pub(super) fn delta(
        &self,
        names: &[String],
        shape: Shape,
        (part, parts): (usize, usize),
    ) -> Result<Option<Delta<'_>>> {
        let layers = || names.iter().filter_map(|name| layer_of(name));
        let Some(layer) = layers().find(|layer| self.layers.contains_key(*layer)) else {
            // Only a layer's products with a matrix can have one; what is no layer of a block may be an embedding.
            let matrix = shape.to_vec().len() == 2
                && names.iter().any(|name| name.contains("layers.") || name.contains("layer."));
            for layer in layers().filter(|_| matrix) {
                if (self.module)(layer)?.is_some() {
                    return Err(self.bad(layer, "has no adapter in the file, but target_modules names it".into()));
                }
            }
            return Ok(None);
        };
        let (a, b) = self.stored(layer)?;
        let (rows, columns) = (shape.rows(), shape.last());
        if shape.to_vec().len() != 2 || a.shape[1] != columns || b.shape[0] != rows * parts {
            return Err(self.bad(
                layer,
                format!("lora_A has shape {:?} and lora_B {:?}, but the layer {shape}", a.shape, b.shape),
            ));
        }
        let bytes = b.bytes.len() / parts;
        let scale = (self.module)(layer)?.map_or(0.0, |(_, scale)| scale);
        let b = Stored { bytes: &b.bytes[part * bytes..][..bytes], ..b };
        Ok(Some(Delta { a, b, rows, scale }))
    }

    /// Fails at the first of its tensors that no parameter has taken, unless it is a tied output layer, the embedding's bytes a
    /// second time.
    pub(super) fn check_unused(&self, taken: impl Fn(&str) -> bool, embedding: Option<&[u8]>) -> Result<()> {
        let layers = self.layers.keys().map(|layer| format!("{layer}.weight"));
        for name in layers.chain(self.whole.keys().cloned()).filter(|name| !taken(name)) {
            let message = match self.whole.get(&name).filter(|_| name.ends_with("lm_head.weight")) {
                Some(stored) if embedding == Some(self.file.stored(stored)?.bytes) => continue,
                Some(_) => {
                    "is an output layer by itself, but the base's tie_word_embeddings says that it is the embedding"
                }
                None => "is not of the base model",
            };
            return Err(self.bad(&name, message.into()));
        }
        Ok(())
    }

    fn bad(&self, name: &str, message: String) -> Error {
        bad(self.file.path(), name, message)
    }
}

fn layer_of(name: &str) -> Option<&str> {
    name.strip_suffix(".weight")
}

fn bad(path: &Path, tensor: &str, message: String) -> Error {
    Error::Tensor { path: path.to_path_buf(), tensor: tensor.to_string(), message }
}
