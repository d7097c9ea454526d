//! What a run needs on its way and at its end, made ready or refused before its first step.

use crate::course::Trained;
use crate::memory;
use crate::phases::Phase;
use crate::recipe::{Invalid, Recipe};
use anyhow::{Context, Result, ensure};
use engine::{ParamBuilder, ParamSpec, Params};
use model::hf::{self, Base, Format};
use model::{DualEncoder, Vlm, VlmConfig, check_groups, freezes, lora};
use std::path::Path;

/// Fails where a vision-language model, its adapters and the rules of its phases do not fit together.
pub fn vlm(recipe: &Recipe) -> Result<(), Invalid> {
    let mut config = recipe.model.clone();
    // The tokenizer is not made yet, which may add a token for images to a pretrained one.
    let image = config.image_token.map_or(0, |id| id as usize);
    config.vocab_size = config.vocab_size.max(image + 1);
    let invalid = |error| Invalid::of_model("model", error);
    let mut builder = ParamBuilder::new();
    Vlm::new(&mut builder, &config).map_err(invalid)?;
    lora::check_targets(&config).map_err(invalid)?;
    groups(recipe, builder.specs())?;
    adapters(recipe, builder.specs())?;
    cached(recipe, builder.specs())
}

/// As [`vlm`], of a dual encoder.
pub fn dual(recipe: &Recipe) -> Result<(), Invalid> {
    let Some(mut config) = recipe.dual.clone() else {
        return Ok(());
    };
    config.text.vocab_size = config.text.vocab_size.max(1);
    let mut builder = ParamBuilder::new();
    DualEncoder::new(&mut builder, &config).map_err(|error| Invalid::new("dual", error.to_string()))?;
    groups(recipe, builder.specs())
}

fn groups(recipe: &Recipe, specs: &[ParamSpec]) -> Result<(), Invalid> {
    let phases = Phase::of(recipe).filter_map(|phase| Some((phase, phase.training(recipe)?)));
    for (phase, training) in phases {
        let checked = check_groups(specs, &training.rules, training.muon_lr.is_some());
        checked.map_err(|error| Invalid::of_model(phase.name(), error))?;
    }
    Ok(())
}

/// Fails where adapters are frozen in every phase.
fn adapters(recipe: &Recipe, specs: &[ParamSpec]) -> Result<(), Invalid> {
    let trains = |spec: &ParamSpec| {
        let mut rules = Phase::of(recipe).filter_map(|phase| Some(phase.training(recipe)?.rules));
        rules.any(|rules| !freezes(&rules, &spec.name))
    };
    for part in model::LoraConfigs::PARTS.iter().filter(|part| recipe.model.lora.part(part).is_some()) {
        let mut own = specs.iter().filter(|spec| spec.name.contains(".lora_") && lora::part_of(&spec.name) == *part);
        if !own.any(trains) {
            let message =
                "the rules freeze these adapters in every phase: put { match = \"*lora_*\" } in front of the others";
            return Err(Invalid::new(format!("model.lora.{part}"), message));
        }
    }
    Ok(())
}

/// Fails where features are to be kept of an encoder that changes.
fn cached(recipe: &Recipe, specs: &[ParamSpec]) -> Result<(), Invalid> {
    let Some(phase) = recipe.phase2.as_ref().filter(|phase| phase.cache_features) else {
        return Ok(());
    };
    let dropout = recipe.model.vision.dropout;
    if dropout > 0.0 {
        let message = format!("model.vision.dropout is {dropout}, expected 0: features are kept");
        return Err(Invalid::new("phase2.cache_features", message));
    }
    let mut encoder = specs.iter().filter(|spec| spec.name.starts_with("vision_model."));
    match encoder.find(|spec| !freezes(&phase.rules, &spec.name)) {
        Some(spec) => {
            let message = format!(
                "`{}` is trained, so the encoder's features change; freeze it with rules = [{{ match = \"vision_model.*\", \
                 freeze = true }}]",
                spec.name
            );
            Err(Invalid::new("phase2.cache_features", message))
        }
        None => Ok(()),
    }
}

/// What low-rank adapters are written for by themselves, as PEFT keeps them: a pretrained language model, or a whole LLaVA, in a
/// folder of its own. They are merged into the model in any case.
pub fn adapter_base<'r>(recipe: &'r Recipe, config: &VlmConfig) -> Option<Base<'r>> {
    let (named, lora) = (&recipe.pretrained, &config.lora);
    match (&named.model, &named.decoder, hf::format(config)) {
        _ if lora == &Default::default() => None,
        _ if stands_on_adapter(recipe) => None,
        (Some(name), _, Format::Transformers("LlavaForConditionalGeneration")) => Some(Base::Whole(name)),
        (None, Some(name), _) if lora.decoder.is_some() => Some(Base::Decoder(name)),
        _ => None,
    }
}

/// Whether the adapters' base would be an adapter itself: no folder holds what it is on top of its own base.
fn stands_on_adapter(recipe: &Recipe) -> bool {
    let named = recipe.pretrained.model.iter().chain(&recipe.pretrained.decoder);
    named.flat_map(|name| hf::resolve(name)).any(|folder| hf::is_adapter(&folder))
}

/// Tries out all that is written at the end but the weights, in the disk that `out` is on, and whether the rest has room.
pub fn end(model: &impl Trained, out: &Path) -> Result<()> {
    let recipe = model.recipe();
    let plan = model.folder_plan()?;
    if let (Some(config), Some(base)) = (model.vlm(), model.vlm().and_then(|config| adapter_base(recipe, config))) {
        hf::check_adapter(&config.lora, base).map_err(|error| Invalid::of_model("model", error))?;
    }
    let adapted = model.vlm().is_some_and(|config| config.lora != Default::default());
    if adapted && stands_on_adapter(recipe) {
        outln!("adapter     merged into the model and not written by itself: its base is an adapter, too");
    }
    let disk = out.ancestors().find(|folder| folder.is_dir()).unwrap_or(Path::new("."));
    let trial = tempfile::Builder::new().prefix(".preflight").tempdir_in(disk);
    let trial = trial.with_context(|| format!("{}: nothing can be written there", disk.display()))?;
    plan.write_settings(trial.path()).context("the model could not be saved")?;
    let (need, free) = (bytes(recipe, model.params()), memory::free_disk(disk));
    let class = model.vlm().map(|config| match hf::format(config) {
        Format::Transformers(class) => class.to_string(),
        Format::Own(why) => format!("Lenslet's own model, not for transformers ({why})"),
    });
    if let Some(class) = class {
        outln!("written as  {class}");
    }
    let size = memory::size;
    ensure!(
        free.is_none_or(|free| free >= need),
        "{}: {} are free, model and checkpoints take about {}: free some space, choose another disk with --out, or lower \
         checkpoints.keep",
        disk.display(),
        size(free.unwrap_or(0)),
        size(need)
    );
    Ok(())
}

/// About what a run leaves on the disk at the most: its model, and the checkpoints that are kept beside the one that is being
/// written.
fn bytes(recipe: &Recipe, params: &Params) -> u64 {
    let (all, trained) = params.count();
    let (wide, narrow) = (params.dtype().accumulator().size(), params.dtype().size());
    let weights = trained * wide + (all - trained) * narrow;
    let phases: Vec<_> = Phase::of(recipe).filter_map(|phase| phase.training(recipe)).collect();
    let steps: usize = phases.iter().map(|training| training.steps).sum();
    let averaged = phases.iter().any(|training| training.ema > 0.0);
    let made = phases.len() + steps.checked_div(recipe.checkpoints.every).unwrap_or(0);
    let state = (3 + usize::from(averaged)) * trained * wide;
    (weights + made.min(recipe.checkpoints.keep + 1) * (weights + state)) as u64
}
