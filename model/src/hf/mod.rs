//! Models in Hugging Face's folders: `config.json` and safetensors under the names of `transformers`.
//!
//! Their configurations become ours and their weights our parameters, which carry the same names wherever the reference
//! keeps a parameter by itself; [`names`] lists where it does not.

mod decoder;
mod fields;
mod hub;
mod names;
mod towers;
mod vlm;

pub(crate) use fields::Fields;
pub use hub::resolve;

use crate::config::DualKind;
use crate::error::Result;
use crate::weights::{Checkpoint, Source};
use crate::{Decoder, DualEncoder, QFormer, Vit, Vlm};
use engine::{DType, Device, GroupSpec, ParamBuilder, Params};
use std::path::Path;

/// A model of one of the families that are read.
#[derive(Debug, Clone)]
pub enum Model {
    /// Llama, Mistral, Qwen2: text only.
    Decoder(Decoder),
    /// CLIP, SigLIP.
    Dual(DualEncoder),
    /// LLaVA, BLIP-2 with its language model.
    Vlm(Vlm),
    /// BLIP-2's first stage, which compares and matches: image encoder and Q-Former.
    Retrieval(Vit, QFormer),
}

/// Reads the model in `folder` onto a device, in a floating-point type whatever the files' is. `frozen`: without room for
/// training, so that weights are kept once and in `dtype`.
///
/// # Errors
/// When a file is missing or malformed, the architecture or a field of the configuration is not supported, or the weights
/// do not fit: each names the file and the field or tensor.
pub fn load(folder: &Path, device: &Device, dtype: DType, frozen: bool) -> Result<(Model, Params)> {
    let checkpoint = Checkpoint::open(folder)?;
    let fields = Fields::open(&folder.join("config.json"))?;
    let mut builder = ParamBuilder::new();
    let (model, source) = build(&mut builder, fields, &checkpoint)?;
    let group = GroupSpec {
        frozen,
        ..GroupSpec::default()
    };
    let mut params = builder.build_around(device, dtype, 0, group, |name| source(name) != Source::Initial)?;
    checkpoint.load(&mut params, source)?;
    Ok((model, params))
}

/// The model that a configuration describes, and where its parameters lie.
fn build(builder: &mut ParamBuilder, fields: Fields, checkpoint: &Checkpoint) -> Result<(Model, fn(&str) -> Source)> {
    let kind: String = fields.need("model_type")?;
    Ok(match kind.as_str() {
        text if decoder::TYPES.contains(&text) => {
            let (config, vocab_size) = decoder::read(fields, text)?;
            config.validate()?;
            let model = Decoder::new(builder, &config, vocab_size, None)?;
            (Model::Decoder(model), names::same)
        }
        "clip" | "siglip" => {
            let family = if kind == "clip" {
                DualKind::Clip
            } else {
                DualKind::Siglip
            };
            let config = towers::dual(fields, family)?;
            config.validate()?;
            (Model::Dual(DualEncoder::new(builder, &config)?), names::dual)
        }
        "llava" => {
            let config = vlm::llava(fields)?;
            (Model::Vlm(Vlm::new(builder, &config)?), names::llava)
        }
        "blip-2" if checkpoint.contains("itm_head.weight") => {
            let (vision, qformer, vocab_size) = vlm::blip2_retrieval(fields)?;
            vision.validate()?;
            qformer.validate(vision.hidden_size)?;
            let vit = Vit::new(builder, &vision, None)?;
            let qformer = QFormer::new(builder, &qformer, &vision, vocab_size, None)?;
            (Model::Retrieval(vit, qformer), names::blip2)
        }
        "blip-2" => {
            let config = vlm::blip2(fields)?;
            (Model::Vlm(Vlm::new(builder, &config)?), names::blip2)
        }
        other => {
            let known = "llama, mistral, qwen2, clip, siglip, llava and blip-2 are";
            return fields.bad("model_type", format!("`{other}` is not supported; {known}"));
        }
    })
}
