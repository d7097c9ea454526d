//! Low-rank adapters (Hu et al. 2021) folded into the weights they adapt.

use crate::config::{LoraConfig, LoraConfigs, VlmConfig};
use crate::error::Result;
use crate::vlm::Vlm;
use engine::{ParamBuilder, ParamId, Params, Tensor, Var, ops};

/// A parameter with the adapter of its layer, if there is one, folded into it; in the type it is kept in at full precision.
pub fn merged(lora: &LoraConfigs, params: &Params, id: ParamId) -> Result<Tensor> {
    let layer = params.name(id).strip_suffix(".weight");
    let Some((layer, config)) = layer.and_then(|layer| Some((layer, adapter(lora, layer)?))) else {
        return Ok(params.master(id));
    };
    let found = |part: &str| params.find(&format!("{layer}.{part}"));
    match (found("lora_A.weight"), found("lora_B.weight")) {
        (Some(a), Some(b)) => folded(params, id, [params.master(a), params.master(b)], config.scale()),
        _ => Ok(params.master(id)),
    }
}

/// Whether the layer of a parameter has an adapter.
pub fn adapts(lora: &LoraConfigs, name: &str) -> bool {
    let layer = name.strip_suffix(".weight");
    layer.is_some_and(|layer| adapter(lora, layer).is_some_and(|config| config.targets(layer)))
}

/// Fails where a target module of a part is the name of none of its layers.
///
/// # Errors
/// [`crate::Error::Config`] with the field, the targets and the names there are; a configuration that makes no model.
pub fn check_targets(config: &VlmConfig) -> Result<()> {
    let names = |config: &VlmConfig| {
        let mut builder = ParamBuilder::new();
        Vlm::new(&mut builder, config)?;
        let names = builder.specs().iter().map(|spec| spec.name.clone());
        Ok::<_, crate::Error>(names.collect::<Vec<String>>())
    };
    for part in LoraConfigs::PARTS {
        let Some(lora) = config.lora.part(part) else { continue };
        let of = |target: &str| {
            let alone = LoraConfig { target_modules: vec![target.to_string()], ..lora.clone() };
            let mut config = config.clone();
            config.lora = LoraConfigs::of_part(part, alone);
            names(&config).map(|names| names.iter().any(|name| name.ends_with(".lora_A.weight")))
        };
        let mut missing = Vec::new();
        for target in &lora.target_modules {
            if !of(target)? {
                missing.push(format!("`{target}`"));
            }
        }
        if missing.is_empty() {
            continue;
        }
        let mut there = Vec::new();
        for name in names(config)?.iter().filter_map(|name| name.strip_suffix(".weight")) {
            let layer = name.rsplit('.').next().unwrap_or(name).to_string();
            if !there.contains(&layer) && of(&layer)? {
                there.push(layer);
            }
        }
        let (missing, there) = (missing.join(", "), there.join(", "));
        let message = format!("no layer of this part is called {missing}; there are {there}");
        return crate::error::config(&format!("lora.{part}.target_modules"), message);
    }
    Ok(())
}

/// The adapters' settings in the part of the model that holds `layer`.
fn adapter<'c>(lora: &'c LoraConfigs, layer: &str) -> Option<&'c LoraConfig> {
    lora.part(part_of(layer))
}

/// The part of [`LoraConfigs`] that a layer or parameter is in.
pub fn part_of(name: &str) -> &'static str {
    if name.starts_with("vision_model.") {
        "vision"
    } else if name.starts_with("language_model.") {
        "decoder"
    } else {
        "adapter"
    }
}

/// `w + scale · B·A` in the accumulator's type, for the parameter `w`.
pub(crate) fn folded(params: &Params, w: ParamId, [a, b]: [Tensor; 2], scale: f64) -> Result<Tensor> {
    let wide = |x: &Tensor| Ok::<_, engine::Error>(Var::constant(x.cast(params.dtype().accumulator())?));
    let product = ops::scale(&ops::matmul(&wide(&b)?, &wide(&a)?, false)?, scale)?;
    Ok(ops::add(&wide(&params.master(w))?, &product)?.tensor().clone())
}
