//! Folding low-rank adapters into the weights they adapt, and back.

use crate::config::{LoraConfig, VlmConfig};
use crate::error::Result;
use engine::{ParamId, Params, Tensor, Var, ops};

/// What [`merge`] changed, to the bit.
#[derive(Debug)]
pub struct Merged {
    originals: Vec<(ParamId, Tensor)>,
}

/// Folds every adapter into its weight, `w + scale · B·A`, and sets its `B` to zero: the model computes the same,
/// and the weights stand on their own. [`unmerge`] puts everything back.
pub fn merge(config: &VlmConfig, params: &mut Params) -> Result<Merged> {
    let mut originals = Vec::new();
    for a in params.ids() {
        let Some(layer) = params.name(a).strip_suffix(".lora_A.weight").map(str::to_string) else {
            continue;
        };
        let found = |part: &str| params.find(&format!("{layer}.{part}"));
        let (Some(lora), Some(b), Some(w)) = (adapter(config, &layer), found("lora_B.weight"), found("weight")) else {
            continue;
        };
        let merged = folded(params, [a, b, w], lora.scale())?;
        for id in [b, w] {
            originals.push((id, params.master(id).copy()?));
        }
        let zeros = Tensor::zeros(params.device(), merged.dtype(), params.shape(b))?;
        params.set(b, &zeros)?;
        params.set(w, &merged)?;
    }
    Ok(Merged { originals })
}

/// Restores what [`merge`] changed, bit for bit.
pub fn unmerge(merged: Merged, params: &mut Params) -> Result<()> {
    for (id, value) in merged.originals {
        params.set(id, &value)?;
    }
    Ok(())
}

/// The adapters' settings in the part of the model that holds `layer`.
fn adapter<'c>(config: &'c VlmConfig, layer: &str) -> Option<&'c LoraConfig> {
    let lora = &config.lora;
    if layer.starts_with("vision_model.") {
        lora.vision.as_ref()
    } else if layer.starts_with("language_model.") {
        lora.decoder.as_ref()
    } else {
        lora.adapter.as_ref()
    }
}

/// `w + scale · B·A` in the accumulator's type.
fn folded(params: &Params, ids: [ParamId; 3], scale: f64) -> Result<Tensor> {
    let wide = |id| Ok::<_, engine::Error>(Var::constant(params.master(id).cast(params.dtype().accumulator())?));
    let [a, b, w] = ids;
    let product = ops::scale(&ops::matmul(&wide(b)?, &wide(a)?, false)?, scale)?;
    Ok(ops::add(&wide(w)?, &product)?.tensor().clone())
}
