//! Models as Hugging Face folders.

use super::{Model, decoder, names, towers, vlm};
use crate::config::LoraConfigs;
use crate::error::{Result, at};
use crate::lora::merged;
use crate::pretrained::write_json;
use crate::weights::{Entry, Source, write_shards};
use engine::{DType, ParamId, Params, Shape, Tensor};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest file of weights written, in bytes, as the reference has it.
const SHARD: usize = 5_000_000_000;

/// Writes `config.json` and the weights of a model to `folder`, which is made if need be, as the reference's classes load
/// them; adapters are folded into their weights. The weights come last, and each file is whole or absent.
///
/// # Errors
/// When the reference has no class for such a model ([`crate::Error::Config`], before anything is written); those of files.
pub fn save(folder: &Path, model: &Model, params: &Params) -> Result<()> {
    let mut config = config(model)?;
    let entries = entries(model, params)?;
    let low = entries.iter().all(|entry| entry.dtype == DType::BF16);
    config.insert("torch_dtype".into(), if low { "bfloat16" } else { "float32" }.into());
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    write_json(&folder.join("config.json"), &config)?;
    write_shards(folder, &entries, SHARD)
}

/// What `config.json` says of a model.
///
/// # Errors
/// When the reference has no class for it; the field that stands in the way is named.
pub fn config(model: &Model) -> Result<Map<String, Value>> {
    match model {
        Model::Decoder(model) => decoder::write(model.config(), model.vocab_size()),
        Model::Dual(model) => towers::write_dual(&model.config),
        Model::Vlm(model) => vlm::write(&model.config),
        Model::Retrieval(vit, qformer) => vlm::write_retrieval(vit.config(), qformer),
    }
}

/// The model's tensors under the reference's names.
fn entries<'p>(model: &Model, params: &'p Params) -> Result<Vec<Entry<'p>>> {
    let (source, lora) = (names::source(model), model.lora());
    let mut stacks: BTreeMap<String, (usize, Vec<ParamId>)> = BTreeMap::new();
    for id in params.ids().filter(|&id| !params.name(id).contains(".lora_")) {
        let (names, parts) = match source(params.name(id)) {
            Source::Initial => continue,
            Source::Tensor(names) => (names, 1),
            Source::Rows(names, _, parts) => (names, parts),
        };
        if let Some(name) = names.into_iter().next() {
            stacks.entry(name).or_insert((parts, Vec::new())).1.push(id);
        }
    }
    Ok(stacks
        .into_iter()
        .map(|(name, (parts, ids))| entry(model, params, lora.clone(), name, parts, ids))
        .collect())
}

/// One tensor of a file, made of the parameters `ids` on top of each other.
fn entry<'p>(
    model: &Model,
    params: &'p Params,
    lora: LoraConfigs,
    name: String,
    parts: usize,
    ids: Vec<ParamId>,
) -> Entry<'p> {
    let first = ids[0];
    let mut shape = names::stored_shape(model, params.name(first), params.shape(first)).to_vec();
    if let Some(rows) = shape.first_mut() {
        *rows *= parts;
    }
    let dtype = params.master(first).dtype();
    Entry {
        name,
        dtype,
        shape: Shape::new(&shape),
        parts: Box::new(move || {
            let part = |&id: &ParamId| Ok(merged(&lora, params, id)?.cast(dtype)?);
            ids.iter().map(part).collect::<Result<Vec<Tensor>>>()
        }),
    }
}
