//! Low-rank adapters as PEFT's folders.

use crate::config::{LoraConfig, LoraConfigs};
use crate::error::{Result, at, config};
use crate::pretrained::write_json;
use crate::vlm::Vlm;
use crate::weights::{Entry, PYTORCH, write_tensors};
use engine::Params;
use serde_json::json;
use std::path::Path;

/// What adapters are put on, by the name or folder that PEFT finds it under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base<'n> {
    /// A language model alone.
    Decoder(&'n str),
    /// The whole vision-language model.
    Whole(&'n str),
}

impl Base<'_> {
    /// The path of the module that we call `layer` within the reference's model.
    fn module(self, layer: &str) -> Option<String> {
        match (self, layer.strip_prefix("language_model.model."), layer.strip_prefix("vision_model.")) {
            (Base::Decoder(_), Some(rest), _) => Some(format!("model.{rest}")),
            (Base::Decoder(_), ..) => None,
            (Base::Whole(_), Some(rest), _) => Some(format!("model.language_model.{rest}")),
            (Base::Whole(_), _, Some(rest)) => Some(format!("model.vision_tower.vision_model.{rest}")),
            (Base::Whole(_), ..) => Some(format!("model.{layer}")),
        }
    }
}

/// Writes the adapters of a model to `folder` as `adapter_config.json` and `adapter_model.safetensors`: those of the language
/// model, or of the whole of a LLaVA.
///
/// # Errors
/// When there are none, or the parts' adapters differ in more than the layers they are on, as one folder cannot say.
pub fn save_adapter(folder: &Path, vlm: &Vlm, params: &Params, base: Base<'_>) -> Result<()> {
    let lora = check_adapter(&vlm.config.lora, base)?;
    let mut modules = Vec::new();
    let mut entries = Vec::new();
    for id in params.ids() {
        let Some((layer, matrix)) = params.name(id).split_once(".lora_") else {
            continue;
        };
        let Some(module) = base.module(layer) else { continue };
        entries.push(Entry::new(format!("base_model.model.{module}.lora_{matrix}"), params.master(id)));
        if matrix.starts_with('A') {
            modules.push(module);
        }
    }
    let (Base::Decoder(name) | Base::Whole(name)) = base;
    let settings = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": name,
        "r": lora.r,
        "lora_alpha": lora.lora_alpha,
        "lora_dropout": lora.lora_dropout,
        "use_rslora": lora.rslora,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        // Whole paths: a last part such as q_proj may be a layer of the image encoder, too.
        "target_modules": modules,
    });
    std::fs::create_dir_all(folder).map_err(at(folder))?;
    write_json(&folder.join("adapter_config.json"), &settings)?;
    write_tensors(&folder.join("adapter_model.safetensors"), &entries, PYTORCH)
}

/// The settings that all parts with adapters share, as one folder of PEFT has them.
pub fn check_adapter<'c>(lora: &'c LoraConfigs, base: Base<'_>) -> Result<&'c LoraConfig> {
    let parts = match base {
        Base::Decoder(_) => [None, None, lora.decoder.as_ref()],
        Base::Whole(_) => [lora.vision.as_ref(), lora.adapter.as_ref(), lora.decoder.as_ref()],
    };
    let mut parts = parts.into_iter().flatten();
    let Some(first) = parts.next() else {
        return config("lora", "has no adapters for such a folder");
    };
    let alike = |other: &LoraConfig| LoraConfig { target_modules: first.target_modules.clone(), ..other.clone() };
    match parts.all(|other| alike(other) == *first) {
        true => Ok(first),
        false => config(
            "lora",
            "the parts' adapters differ in more than target_modules; a PEFT folder has one setting for all",
        ),
    }
}
