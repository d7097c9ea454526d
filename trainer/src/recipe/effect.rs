//! Settings that would change nothing, with what else the recipe says.

use super::error::Invalid;
use super::{Curve, Phase1, Phase2, Precision, Recipe, Source, TokenizerKind};
use crate::data::formats::Format;
use crate::data::scenes::QuestionWeights;
use crate::phases::Phase;
use model::{AdapterKind, DualConfig, Fit, VlmConfig};

/// A key, whether it is set and changes nothing, and why.
type Row = (&'static str, bool, &'static str);

/// Fails at the first key whose value changes nothing.
pub(super) fn check(recipe: &Recipe) -> Result<(), Invalid> {
    let mut rows = data(recipe);
    rows.extend(model(recipe));
    rows.extend(recipe.phase1.iter().flat_map(phase1));
    rows.extend(recipe.phase2.iter().flat_map(|phase| phase2(phase, recipe)));
    rows.extend(recipe.dual.iter().flat_map(dual));
    if let Some((key, _, why)) = rows.into_iter().find(|(_, idle, _)| *idle) {
        return Err(Invalid::new(key, format!("would change nothing: {why}")));
    }
    Phase::of(recipe).try_for_each(|phase| training(phase, recipe))
}

fn data(recipe: &Recipe) -> Vec<Row> {
    let (data, tokenizer) = (&recipe.data, &recipe.tokenizer);
    let scenes = data.source == Source::Scenes;
    let no_split = data.train_split.is_none() && data.heldout_split.is_none();
    let talks = matches!(data.source.format(), Some(Format::Llava | Format::Messages | Format::Completion));
    let conversations = "it is for the conversations of [phase2], which is missing";
    vec![
        ("data.group_by_length", data.group_by_length && recipe.phase2.is_none(), conversations),
        ("data.max_tokens", data.max_tokens.is_some() && recipe.phase2.is_none(), conversations),
        (
            "data.split_field",
            data.split_field.is_some() && no_split,
            "neither `train_split` nor `heldout_split` is set",
        ),
        ("data.fit", scenes && data.fit != Fit::default(), "scenes are drawn square"),
        ("data.question", talks && data.question.is_some(), "the records of this source have their own questions"),
        (
            "tokenizer.size",
            tokenizer.kind == TokenizerKind::File && tokenizer.size != super::default_vocabulary(),
            "a tokenizer.json has its own size",
        ),
    ]
}

/// What [model] says where none of it comes from a pretrained part.
fn model(recipe: &Recipe) -> Vec<Row> {
    let VlmConfig { vision, adapter, decoder, qformer, .. } = &recipe.model;
    let parts = &recipe.pretrained;
    let (own, own_vision) = (parts.model.is_none(), parts.images().is_none());
    let no_patches = own && adapter.kind == AdapterKind::Qformer;
    let unused = own && qformer.is_some() && adapter.kind == AdapterKind::Mlp && recipe.phase1.is_none();
    vec![
        ("model.qformer", unused, "set model.adapter.kind to `qformer` or `both`, or add [phase1]"),
        (
            "model.adapter.class_token",
            no_patches && adapter.class_token,
            "kind = \"qformer\" shows the decoder no patches",
        ),
        (
            "model.adapter.class_token",
            own_vision && adapter.class_token && !vision.class_token,
            "model.vision.class_token is false",
        ),
        ("model.adapter.hidden_size", own && adapter.linear && adapter.hidden_size.is_some(), "`linear` has one layer"),
        (
            "model.decoder.full_attention_layers",
            parts.text().is_none() && decoder.full_attention_layers > 0 && decoder.sliding_window.is_none(),
            "`sliding_window` is not set",
        ),
    ]
}

fn phase1(phase: &Phase1) -> Vec<Row> {
    let drawn = phase.itm == 0.0 && phase.itm_hardness != 1.0;
    vec![("phase1.itm_hardness", drawn, "wrong pairs are drawn for `itm`, whose weight is 0")]
}

fn phase2(phase: &Phase2, recipe: &Recipe) -> Vec<Row> {
    let own = recipe.data.source != Source::Scenes;
    let even = QuestionWeights::EVEN;
    let why = "it is about scenes; data on disk has its own questions";
    vec![
        ("phase2.turns", own && phase.turns != 4, why),
        ("phase2.questions_start", own && phase.questions_start != even, why),
        ("phase2.questions_end", own && phase.questions_end != even, why),
        ("phase2.questions_until", own && phase.questions_until != 1.0, why),
    ]
}

fn dual(dual: &DualConfig) -> Vec<Row> {
    let layer = dual.vision.feature_layer.is_some();
    vec![("dual.vision.feature_layer", layer, "a dual encoder pools what its last block gives")]
}

fn training(phase: Phase, recipe: &Recipe) -> Result<(), Invalid> {
    let Some(training) = phase.training(recipe) else {
        return Ok(());
    };
    let idle = |key: String, why: &str| {
        Err(Invalid::new(format!("{}.{key}", phase.name()), format!("would change nothing: {why}")))
    };
    if training.curve == Curve::Constant && training.floor > 0.0 {
        return idle("floor".into(), "curve = \"constant\" stays at `lr`");
    }
    if training.stochastic_rounding && recipe.run.dtype != Precision::Bf16 {
        return idle("stochastic_rounding".into(), "weights are rounded where run.dtype is bf16");
    }
    for (number, rule) in training.rules.iter().enumerate().filter(|(_, rule)| rule.freeze) {
        let set = [
            ("lr_scale", rule.lr_scale != 1.0),
            ("layer_decay", rule.layer_decay != 1.0),
            ("weight_decay", rule.weight_decay.is_some()),
        ];
        if let Some((key, _)) = set.into_iter().find(|(_, set)| *set) {
            return idle(format!("rules.{number}.{key}"), "the rule freezes what it fits");
        }
    }
    Ok(())
}
