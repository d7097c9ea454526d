//! Models in Hugging Face's folders: `config.json` and safetensors under the names of `transformers`.
//!
//! Their configurations become ours and their weights our parameters, which carry the same names wherever the reference
//! keeps a parameter by itself; [`names`] lists where it does not.

mod adapter;
mod decoder;
mod fields;
mod hub;
mod names;
mod own;
mod parts;
mod peft;
mod save;
mod towers;
mod trace;
mod vlm;

pub use adapter::{Base, check_adapter, save_adapter};
pub(crate) use fields::Fields;
pub use hub::resolve;
pub use parts::{Part, assemble, decoder_config, qformer_config, vision_config, vlm_config};
pub(crate) use peft::file;
pub use peft::is_adapter;
pub use save::{Format, SavePlan, format, save, writes_dual};
pub use trace::{Inputs, Trace};

use crate::config::{DualKind, VlmConfig};
use crate::error::Result;
use crate::weights::{Checkpoint, Source};
use crate::{Decoder, DualEncoder, QFormer, Vit, Vlm};
use engine::{DType, Device, GroupSpec, ParamBuilder, Params};
use names::Layout;
use std::path::Path;

/// A model of one of the families that are read.
#[derive(Debug, Clone)]
pub enum Model {
    /// Llama, Mistral, Qwen2: text only.
    Decoder(Box<Decoder>),
    /// CLIP, SigLIP.
    Dual(Box<DualEncoder>),
    /// LLaVA, BLIP-2 with its language model.
    Vlm(Box<Vlm>),
    /// BLIP-2's first stage, which compares and matches: image encoder and Q-Former.
    Retrieval(Box<Vit>, Box<QFormer>),
}

/// Reads the model in `folder` onto a device, in a floating-point type whatever the files' is. `frozen`: without room for
/// training, so that weights are kept once and in `dtype`.
///
/// # Errors
/// When a file is missing or malformed, the architecture or a field of the configuration is not supported, or the weights
/// do not fit: each names the file and the field or tensor.
pub fn load(folder: &Path, device: &Device, dtype: DType, frozen: bool) -> Result<(Model, Params)> {
    let checkpoint = peft::checkpoint(folder)?;
    let fields = Fields::open(&file(folder, "config.json")?)?;
    let mut builder = ParamBuilder::new();
    let (model, layout) = build(&mut builder, fields, &checkpoint)?;
    let source = |name: &str| layout.source(name);
    let group = GroupSpec { frozen, ..GroupSpec::default() };
    let plan = checkpoint.plan(builder.specs(), source, |_| true)?;
    let comes = |name: &str| source(name) != Source::Initial;
    let mut params = builder.build_with_weights(device, dtype, 0, (vec![group], |_| 0), comes)?;
    plan.load(&mut params)?;
    Ok((model, params))
}

/// The model that a configuration describes, and how its folder names tensors.
fn build(builder: &mut ParamBuilder, fields: Fields, checkpoint: &Checkpoint) -> Result<(Model, Layout)> {
    let kind: String = fields.need("model_type")?;
    Ok(match kind.as_str() {
        text if decoder::TYPES.contains(&text) => {
            let (config, vocab_size) = decoder::read(fields, text)?;
            config.validate()?;
            let model = Decoder::new(builder, &config, vocab_size, None)?;
            (Model::Decoder(Box::new(model)), Layout::Same)
        }
        "clip" | "siglip" => {
            let family = if kind == "clip" { DualKind::Clip } else { DualKind::Siglip };
            let config = towers::dual(fields, family)?;
            config.validate()?;
            (Model::Dual(Box::new(DualEncoder::new(builder, &config)?)), Layout::Dual)
        }
        "llava" => (whole(builder, &vlm::llava(fields)?)?, Layout::Llava),
        own::TYPE => (whole(builder, &own::read(fields)?)?, Layout::Same),
        "blip-2" if checkpoint.contains("itm_head.weight") => {
            let (vision, qformer, vocab_size) = vlm::blip2_retrieval(fields)?;
            vision.validate()?;
            qformer.validate(vision.hidden_size)?;
            let vit = Vit::new(builder, &vision, None)?;
            let qformer = QFormer::new(builder, &qformer, &vision, vocab_size, None)?;
            (Model::Retrieval(Box::new(vit), Box::new(qformer)), Layout::Blip2)
        }
        "blip-2" => (whole(builder, &vlm::blip2(fields)?)?, Layout::Blip2),
        other @ ("clip_vision_model" | "siglip_vision_model") => fields.bad(
            "model_type",
            format!("`{other}` is an image encoder alone, which a recipe reads as `pretrained.vision`"),
        )?,
        other => {
            let known = "llama, mistral, qwen2, clip, siglip, llava, blip-2 and lenslet are";
            return fields.bad("model_type", format!("`{other}` is not supported; {known}"));
        }
    })
}

fn whole(builder: &mut ParamBuilder, config: &VlmConfig) -> Result<Model> {
    Ok(Model::Vlm(Box::new(Vlm::new(builder, config)?)))
}
