//! Ranges: values that have the right type and make no sense.

use super::effect;
use super::error::Invalid;
use super::{Data, Phase1, Phase2, Recipe, Source, Tokenizer, TokenizerKind, Training};
use crate::data::formats::Format;
use crate::phases::Phase;
use model::{AdapterKind, Fit};

/// Checks every value of a recipe.
pub(super) fn recipe(recipe: &Recipe) -> Result<(), Invalid> {
    let run = &recipe.run;
    name("run.name", &run.name)?;
    range("run.seed", run.seed, 0, i64::MAX as u64)?;
    if let Some(threads) = run.threads {
        range("run.threads", threads, 1, 1024)?;
    }
    data(&recipe.data)?;
    pretrained(recipe)?;
    if recipe.pretrained.text().is_none() {
        tokenizer(&recipe.tokenizer, recipe.data.source)?;
    }
    model(recipe)?;
    match &recipe.dual {
        Some(dual) => self::dual(dual, recipe)?,
        None if recipe.contrast.is_some() => {
            return Err(Invalid::new("dual", "table [dual] is missing; [contrast] trains a dual encoder"));
        }
        None if recipe.phase1.is_none() && recipe.phase2.is_none() => {
            return Err(Invalid::new("", "there is neither [phase1] nor [phase2], nor [contrast]: nothing to train"));
        }
        None => {}
    }
    if let Some(phase) = &recipe.phase1 {
        phase1(phase, recipe)?;
    }
    if let Some(phase) = &recipe.phase2 {
        phase2(phase, recipe)?;
    }
    held_out(recipe)?;
    effect::check(recipe)?;
    range("checkpoints.every", recipe.checkpoints.every, 0, usize::MAX)?;
    range("checkpoints.keep", recipe.checkpoints.keep, 1, 10_000)?;
    range("eval.samples", recipe.eval.samples, 0, 10_000)?;
    range("eval.attention", recipe.eval.attention, 0, recipe.eval.samples)?;
    range("eval.limit", recipe.eval.limit, 1, 10_000_000)?;
    range("eval.batch_size", recipe.eval.batch_size, 1, 65_536)?;
    range("eval.max_tokens", recipe.eval.max_tokens, 1, 65_536)
}

/// Measuring on held-out data needs some.
fn held_out(recipe: &Recipe) -> Result<(), Invalid> {
    let data = &recipe.data;
    let named = [data.heldout_path.is_some(), data.heldout_split.is_some(), data.heldout_share.is_some()];
    let some = data.source == Source::Scenes || named.contains(&true);
    let measured = Phase::of(recipe).find(|phase| phase.training(recipe).is_some_and(|t| t.eval_every > 0));
    match measured {
        Some(phase) if !some => {
            let message =
                "there is nothing to measure on: set data.heldout_path, data.heldout_split or data.heldout_share";
            Err(Invalid::new(format!("{}.eval_every", phase.name()), message))
        }
        _ => Ok(()),
    }
}

/// A name that makes one folder.
fn name(key: &str, name: &str) -> Result<(), Invalid> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 100 || name.starts_with('.') || !name.chars().all(plain) {
        let expected = "expected 1 to 100 letters, digits, `-`, `_` or `.`, not starting with `.`";
        return Err(Invalid::new(key, format!("{expected}, found `{name}`")));
    }
    Ok(())
}

fn data(data: &Data) -> Result<(), Invalid> {
    range("data.max_tokens", data.max_tokens.unwrap_or(1), 1, 1 << 24)?;
    match data.source.format() {
        None => scenes(data),
        Some(format) => on_disk(data, format),
    }
}

fn invalid(key: &str, message: impl Into<String>) -> Result<(), Invalid> {
    Err(Invalid::new(format!("data.{key}"), message))
}

fn scenes(data: &Data) -> Result<(), Invalid> {
    let meaningless = [
        ("path", data.path.is_some()),
        ("images", data.images.is_some()),
        ("heldout_path", data.heldout_path.is_some()),
        ("heldout_images", data.heldout_images.is_some()),
        ("split_field", data.split_field.is_some()),
        ("train_split", data.train_split.is_some()),
        ("heldout_split", data.heldout_split.is_some()),
        ("heldout_share", data.heldout_share.is_some()),
        ("max_samples", data.max_samples.is_some()),
        ("max_bad", data.max_bad.is_some()),
        ("question", data.question.is_some()),
        ("templates", data.templates.is_some()),
        ("keep", data.keep.is_some()),
        ("group_by_length", data.group_by_length),
    ];
    match meaningless.iter().find(|(_, set)| *set) {
        Some((key, _)) => {
            let message = "belongs to data on disk, such as `source = \"llava\"`; built-in scenes are drawn, not read";
            invalid(key, message)
        }
        None => range("data.image_size", data.image_size.unwrap_or(48), 16, 1024),
    }
}

fn on_disk(data: &Data, format: Format) -> Result<(), Invalid> {
    let source = format!("`source = \"{}\"`", format.name());
    let needed = [("path", data.path.is_some()), ("images", data.images.is_some())];
    for (key, set) in &needed[..1 + usize::from(format.has_images())] {
        if !set {
            return invalid(key, format!("key `{key}` is missing; {source} needs it"));
        }
    }
    let (images, splits) = (format.has_images(), format.has_splits());
    let inside = format!("means nothing with {source}: `path` holds the images, too");
    let folders = format!("means nothing with {source}; give the folders of a split as `path` and `heldout_path`");
    let drawn = "belongs to `source = \"scenes\"`".to_string();
    let resized = format!("{drawn}; images are resized to model.vision.image_size");
    let asked = data.question.as_ref().is_none_or(|question| !question.trim().is_empty());
    let table = [
        ("images", data.images.is_some() && !images, &inside),
        ("heldout_images", data.heldout_images.is_some() && !images, &inside),
        ("split_field", data.split_field.is_some() && !splits, &folders),
        ("train_split", data.train_split.is_some() && !splits, &folders),
        ("heldout_split", data.heldout_split.is_some() && !splits, &folders),
        ("world", data.world.is_some(), &drawn),
        ("image_size", data.image_size.is_some(), &resized),
        (
            "heldout_images",
            data.heldout_images.is_some() && data.heldout_path.is_none(),
            &"means nothing without `heldout_path`".to_string(),
        ),
        (
            "heldout_share",
            data.heldout_share.is_some() && (data.heldout_path.is_some() || data.heldout_split.is_some()),
            &"held out is either a share of the records, or what `heldout_split` or `heldout_path` names".to_string(),
        ),
        ("question", !asked, &"asks nothing".to_string()),
    ];
    if let Some((key, _, message)) = table.into_iter().find(|(_, wrong, _)| *wrong) {
        return invalid(key, message.as_str());
    }
    templates(data, format)?;
    if let Some(share) = data.heldout_share.filter(|share| !(*share > 0.0 && *share < 1.0)) {
        return invalid("heldout_share", format!("expected a number above 0 and below 1, found {share}"));
    }
    range("data.max_samples", data.max_samples.unwrap_or(1), 1, usize::MAX)?;
    range("data.max_bad", data.max_bad.unwrap_or(0.0), 0.0, 1.0)
}

fn templates(data: &Data, format: Format) -> Result<(), Invalid> {
    let Some(templates) = &data.templates else {
        return Ok(());
    };
    if format != Format::Folder {
        let message = "belongs to `source = \"folder\"`, whose images come with classes";
        return Err(Invalid::new("data.templates", message));
    }
    if templates.is_empty() {
        return Err(Invalid::new("data.templates", "expected at least one, found an empty list"));
    }
    match templates.iter().position(|template| !template.contains("{}")) {
        Some(i) => {
            let message = format!("`{}` has no place `{{}}` for the class", templates[i]);
            Err(Invalid::new(format!("data.templates.{i}"), message))
        }
        None => Ok(()),
    }
}

fn pretrained(recipe: &Recipe) -> Result<(), Invalid> {
    let parts = &recipe.pretrained;
    let single = [&parts.vision, &parts.qformer, &parts.decoder];
    if parts.model.is_some() && single.iter().any(|part| part.is_some()) {
        let message = "has all parts already: leave out `vision`, `qformer` and `decoder`, or `model`";
        return Err(Invalid::new("pretrained.model", message));
    }
    let own = recipe.tokenizer.kind == TokenizerKind::Pretrained;
    if !own && parts.text().is_some() && recipe.given.has("tokenizer") {
        let message = "the pretrained language model has a tokenizer: leave out [tokenizer]";
        return Err(Invalid::new("tokenizer", message));
    }
    if own && parts.text().is_none() {
        let message = "there is no pretrained language model to have one: see pretrained.decoder";
        return Err(Invalid::new("tokenizer.kind", message));
    }
    if parts.qformer.is_some() && recipe.model.adapter.kind == AdapterKind::Mlp && recipe.phase1.is_none() {
        let message = "would not be used: set model.adapter.kind to `qformer` or `both`";
        return Err(Invalid::new("pretrained.qformer", message));
    }
    if parts.images().is_some() && recipe.data.fit != Fit::default() {
        let message =
            "means nothing here: the pretrained encoder's preprocessor_config.json says how images are brought to size";
        return Err(Invalid::new("data.fit", message));
    }
    if parts.image_token.is_some() && parts.decoder.is_none() {
        let message = "means nothing without `decoder`";
        return Err(Invalid::new("pretrained.image_token", message));
    }
    Ok(())
}

fn tokenizer(tokenizer: &Tokenizer, source: Source) -> Result<(), Invalid> {
    match (tokenizer.kind, &tokenizer.path) {
        (TokenizerKind::Bpe, None) if source == Source::Scenes => {
            let message = "scenes have a vocabulary of their own: leave [tokenizer] out, or set kind to `words`";
            return Err(Invalid::new("tokenizer.kind", message));
        }
        (TokenizerKind::File, None) => {
            return Err(Invalid::new(
                "tokenizer.path",
                "key `path` is missing; `kind = \"file\"` needs the tokenizer.json to read",
            ));
        }
        (TokenizerKind::Words | TokenizerKind::Bpe | TokenizerKind::Pretrained, Some(_)) => {
            return Err(Invalid::new("tokenizer.path", "belongs to `kind = \"file\"`"));
        }
        _ => {}
    }
    // Every byte has an id, and so have special tokens.
    match tokenizer.kind {
        TokenizerKind::Pretrained => Ok(()),
        TokenizerKind::Bpe => range("tokenizer.size", tokenizer.size, 264, 1_000_000),
        TokenizerKind::Words | TokenizerKind::File => range("tokenizer.size", tokenizer.size, 16, 1_000_000),
    }
}

/// The model's own checks, under the recipe's key. The vocabulary is not known yet, so any will do; a model of pretrained parts
/// is checked when those are known.
fn model(recipe: &Recipe) -> Result<(), Invalid> {
    if !recipe.pretrained.is_empty() {
        return Ok(());
    }
    let mut config = recipe.model.clone();
    config.vocab_size = config.vocab_size.max(1);
    config.validate().map_err(|error| Invalid::of_model("model", error))
}

/// A dual encoder and what trains it.
fn dual(config: &model::DualConfig, recipe: &Recipe) -> Result<(), Invalid> {
    let Some(phase) = &recipe.contrast else {
        return Err(Invalid::new("contrast", "table [contrast] is missing; it trains [dual]"));
    };
    if recipe.phase1.is_some() || recipe.phase2.is_some() {
        let message = "trains a dual encoder alone: leave out [phase1] and [phase2], or [dual] and [contrast]";
        return Err(Invalid::new("dual", message));
    }
    if recipe.model != Default::default() || recipe.pretrained != Default::default() {
        return Err(Invalid::new("dual", "is the model: leave out [model] and [pretrained]"));
    }
    let mut config = config.clone();
    config.text.vocab_size = config.text.vocab_size.max(1);
    let written = config.validate().and_then(|()| model::hf::writes_dual(&config));
    written.map_err(|error| Invalid::of_model("dual", error))?;
    training("contrast", &phase.training())
}

fn phase1(phase: &Phase1, recipe: &Recipe) -> Result<(), Invalid> {
    training("phase1", &phase.training())?;
    for (key, weight) in [("itc", phase.itc), ("itm", phase.itm), ("itg", phase.itg)] {
        range(format!("phase1.{key}"), weight, 0.0, 1e6)?;
    }
    if phase.itc + phase.itm + phase.itg == 0.0 {
        return Err(Invalid::new("phase1.itc", "all three loss weights are 0: nothing to learn"));
    }
    match &recipe.model.qformer {
        None if recipe.pretrained.qformer.is_some() => {}
        None => {
            let message = "key `qformer` is missing; [phase1] trains a Q-Former";
            return Err(Invalid::new("model.qformer", message));
        }
        Some(qformer) if !qformer.text => {
            let message = "must be true; [phase1] compares images with texts";
            return Err(Invalid::new("model.qformer.text", message));
        }
        Some(_) => {}
    }
    compares(phase, phase.shards)?;
    range("phase1.itm_hardness", phase.itm_hardness, 0.0, 1e6)
}

/// Fails where a shard of phase 1's batch leaves nothing to compare an image with.
fn compares(phase: &Phase1, shards: usize) -> Result<(), Invalid> {
    if phase.itc + phase.itm > 0.0 && phase.batch_size / shards < 2 {
        let message = format!(
            "expected at least {}, found {}: contrast and matching compare the images of a batch, or of each shard",
            2 * shards,
            phase.batch_size
        );
        return Err(Invalid::new("phase1.batch_size", message));
    }
    Ok(())
}

/// Fails unless `batch_size` can be cut into `shards` equal parts.
fn divides(key: impl Into<String>, shards: usize, batch_size: usize) -> Result<(), Invalid> {
    if shards > 0 && batch_size.is_multiple_of(shards) {
        return Ok(());
    }
    let message = format!("expected a divisor of the batch size {batch_size}, found {shards}");
    Err(Invalid::new(key, message))
}

fn phase2(phase: &Phase2, recipe: &Recipe) -> Result<(), Invalid> {
    training("phase2", &phase.training())?;
    if phase.align_every == 1 {
        let message = "expected 0 or at least 2, found 1: no step would be left for instructions";
        return Err(Invalid::new("phase2.align_every", message));
    }
    if phase.align_every > 0 && recipe.phase1.is_none() {
        let message = "goes on with the losses of [phase1], which is missing";
        return Err(Invalid::new("phase2.align_every", message));
    }
    if let (1.., Some(align)) = (phase.align_every, &recipe.phase1) {
        divides("phase2.shards", phase.shards, align.batch_size)?;
        compares(align, phase.shards)?;
    }
    if phase.cache_features && recipe.data.source == Source::Scenes {
        let message = "needs data on disk, such as `source = \"llava\"`; scenes are drawn anew each time";
        return Err(Invalid::new("phase2.cache_features", message));
    }
    range("phase2.turns", phase.turns, 1, 64)?;
    for (key, weights) in [("questions_start", &phase.questions_start), ("questions_end", &phase.questions_end)] {
        let checked = weights.check();
        checked.map_err(|error| Invalid::new(format!("phase2.{key}"), error.to_string()))?;
    }
    range("phase2.questions_until", phase.questions_until, 0.0, 1.0)
}

fn training(table: &str, training: &Training) -> Result<(), Invalid> {
    let key = |name: &str| format!("{table}.{name}");
    range(key("steps"), training.steps, 1, 1_000_000_000)?;
    range(key("batch_size"), training.batch_size, 1, 1_000_000)?;
    range(key("accumulate"), training.accumulate, 1, 1_000_000)?;
    divides(key("shards"), training.shards, training.batch_size)?;
    for (name, lr) in [("lr", Some(training.lr)), ("muon_lr", training.muon_lr)] {
        if let Some(lr) = lr.filter(|lr| !(*lr > 0.0 && *lr <= 1e3)) {
            let message = format!("expected a number above 0 and at most 1000, found {lr}");
            return Err(Invalid::new(key(name), message));
        }
    }
    range(key("floor"), training.floor, 0.0, training.lr)?;
    if training.warmup > training.steps {
        let message = format!("expected at most the phase's {} steps, found {}", training.steps, training.warmup);
        return Err(Invalid::new(key("warmup"), message));
    }
    range(key("weight_decay"), training.weight_decay, 0.0, 1e3)?;
    below_one(key("beta1"), training.beta1)?;
    below_one(key("beta2"), training.beta2)?;
    range(key("eps"), training.eps, 1e-20, 1.0)?;
    range(key("clip"), training.clip, 0.0, 1e6)?;
    below_one(key("ema"), training.ema)?;
    range(key("eval_every"), training.eval_every, 0, usize::MAX)?;
    range(key("patience"), training.patience, 0, 1_000_000)?;
    if training.patience > 0 && training.eval_every == 0 {
        return Err(Invalid::new(key("patience"), "counts measurements: set `eval_every`, too"));
    }
    for (index, rule) in training.rules.iter().enumerate() {
        let key = |name: &str| format!("{table}.rules.{index}.{name}");
        if rule.pattern.is_empty() {
            return Err(Invalid::new(key("match"), "expected a parameter name or pattern, found nothing"));
        }
        range(key("lr_scale"), rule.lr_scale, 0.0, 1e6)?;
        range(key("layer_decay"), rule.layer_decay, 0.0, 1.0)?;
        range(key("weight_decay"), rule.weight_decay.unwrap_or(0.0), 0.0, 1e3)?;
    }
    Ok(())
}

/// Fails unless `low ≤ value ≤ high`; NaN never passes.
fn range<T: PartialOrd + std::fmt::Display>(key: impl Into<String>, value: T, low: T, high: T) -> Result<(), Invalid> {
    if value >= low && value <= high {
        return Ok(());
    }
    Err(Invalid::new(key, format!("expected {low} to {high}, found {value}")))
}

/// Fails unless `0 ≤ value < 1`.
fn below_one(key: impl Into<String>, value: f64) -> Result<(), Invalid> {
    if (0.0..1.0).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(key, format!("expected at least 0 and less than 1, found {value}")))
}
