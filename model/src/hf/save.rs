//! Models as Hugging Face folders.

use super::{Layout, Model, decoder, own, towers, vlm};
use crate::config::{DualConfig, LoraConfigs, VlmConfig};
use crate::error::{Error, Result, at};
use crate::lora::merged;
use crate::pretrained::write_json;
use crate::weights::{Entry, Source, write_shards};
use engine::{DType, ParamId, Params, Shape};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// Largest file of weights written, in bytes, as the reference has it.
const SHARD: usize = 5_000_000_000;

/// Who can read a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// `transformers`, by the class of this name, without further code.
    Transformers(&'static str),
    /// Lenslet alone, for this reason.
    Own(String),
}

/// Who can read the folder of a vision-language model with this configuration.
pub fn format(config: &VlmConfig) -> Format {
    match vlm::write(config) {
        Ok(_) if config.qformer.is_some() => Format::Transformers("Blip2ForConditionalGeneration"),
        Ok(_) => Format::Transformers("LlavaForConditionalGeneration"),
        Err(error) => Format::Own(error.to_string()),
    }
}

/// Fails unless the reference has a class for such a dual encoder.
///
/// # Errors
/// [`Error::Config`] with the field that stands in the way.
pub fn writes_dual(config: &DualConfig) -> Result<()> {
    towers::write_dual(config).map(|_| ())
}

/// `config.json` and the weights of a model as they will be written: where the reference has a class for such a model, as
/// that class loads them, adapters folded into their weights; vision-language models it has none for ([`format`]) as Lenslet
/// computes them.
#[derive(Debug)]
pub struct SavePlan {
    model: Model,
    config: Map<String, Value>,
    layout: Layout,
}

impl SavePlan {
    /// # Errors
    /// [`Error::Config`] when the reference has no class for another model than those.
    pub fn of(model: Model) -> Result<SavePlan> {
        let (config, layout) = describe(&model)?;
        Ok(SavePlan { model, config, layout })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Writes to `folder`, which is made if need be. The weights come last, and each file is whole or absent.
    pub fn write(&self, folder: &Path, params: &Params) -> Result<()> {
        let entries = entries(&self.model, self.layout, params);
        let low = entries.iter().all(|entry| entry.dtype == DType::BF16);
        let mut config = self.config.clone();
        config.insert("torch_dtype".into(), if low { "bfloat16" } else { "float32" }.into());
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        write_json(&folder.join("config.json"), &config)?;
        write_shards(folder, &entries, SHARD)
    }
}

/// Plans and writes a model's folder.
pub fn save(folder: &Path, model: &Model, params: &Params) -> Result<()> {
    SavePlan::of(model.clone())?.write(folder, params)
}

/// What `config.json` says of a model, and how its tensors are named.
fn describe(model: &Model) -> Result<(Map<String, Value>, Layout)> {
    Ok(match model {
        Model::Decoder(model) => (decoder::write(model.config(), model.vocab_size())?, Layout::Same),
        Model::Dual(model) => (towers::write_dual(&model.config)?, Layout::Dual),
        Model::Retrieval(vit, qformer) => (vlm::write_retrieval(vit.config(), qformer)?, Layout::Blip2),
        Model::Vlm(model) => match vlm::write(&model.config) {
            Ok(map) if model.qformer.is_some() => (map, Layout::Blip2),
            Ok(map) => (map, Layout::Llava),
            Err(Error::Config { .. }) => (own::write(&model.config), Layout::Same),
            Err(error) => return Err(error),
        },
    })
}

/// The model's tensors under the folder's names.
fn entries<'p>(model: &Model, layout: Layout, params: &'p Params) -> Vec<Entry<'p>> {
    let own = matches!((model, layout), (Model::Vlm(_), Layout::Same));
    let lora = match model {
        Model::Vlm(vlm) if !own => vlm.config.lora.clone(),
        _ => LoraConfigs::default(),
    };
    let mut stacks: BTreeMap<String, (usize, Vec<ParamId>)> = BTreeMap::new();
    for id in params.ids().filter(|&id| own || !params.name(id).contains(".lora_")) {
        let (names, parts) = match layout.source(params.name(id)) {
            Source::Initial => continue,
            Source::Tensor(names) | Source::Grown(names) | Source::Grid(names, ..) => (names, 1),
            Source::Rows(names, _, parts) => (names, parts),
        };
        if let Some(name) = names.into_iter().next() {
            stacks.entry(name).or_insert((parts, Vec::new())).1.push(id);
        }
    }
    let entry = |(name, (parts, ids)): (String, (usize, Vec<ParamId>))| {
        let mut shape = layout.shape(model, params.name(ids[0]), params.shape(ids[0])).to_vec();
        if let Some(rows) = shape.first_mut() {
            *rows *= parts;
        }
        stack(name, Shape::new(&shape), params, lora.clone(), ids)
    };
    stacks.into_iter().map(entry).collect()
}

/// One tensor of a file, made of parameters on top of each other.
fn stack<'p>(name: String, shape: Shape, params: &'p Params, lora: LoraConfigs, ids: Vec<ParamId>) -> Entry<'p> {
    let dtype = params.master(ids[0]).dtype();
    Entry {
        name,
        dtype,
        shape,
        parts: Box::new(move |out| ids.iter().try_for_each(|&id| out(&merged(&lora, params, id)?.cast(dtype)?))),
    }
}
