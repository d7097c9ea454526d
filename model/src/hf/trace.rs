//! Everything a model computes on the way from its input to its output, under the names the reference gives it.

use super::Model;
use crate::error::{Result, input};
use crate::{Decoder, DualEncoder, QFormer, TextBatch, Texts, Turn, Vit, Vlm};
use engine::ops::{self, Attend};
use engine::{Graph, Tensor, Var};

/// What goes into a model.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// Images, (batch, 3, size, size).
    pub pixels: Option<Tensor>,
    /// Texts; for a vision-language model with the slots of its images in them, where it takes images within texts.
    pub texts: Option<Texts>,
}

/// Tensors by name, in the order they were computed.
pub type Trace = Vec<(String, Var)>;

impl Model {
    /// Computes all that `inputs` allow: `hidden_states.0` enters the first block, `hidden_states.N` leaves block N (the last
    /// one after the last norm, in language models), then `logits`, or what else the kind of model ends in. A dual
    /// encoder's and a vision encoder's are below `vision_model_output` and `text_model_output`.
    ///
    /// # Errors
    /// When an input is missing that the model cannot do without, or does not fit it.
    pub fn trace(&self, g: &Graph<'_>, inputs: &Inputs) -> Result<Trace> {
        let mut trace = Trace::new();
        match self {
            Model::Decoder(model) => decoder(g, model, inputs, &mut trace)?,
            Model::Vlm(model) => vlm(g, model, inputs, &mut trace)?,
            Model::Dual(model) => dual(g, model, inputs, &mut trace)?,
            Model::Retrieval(vit, qformer) => retrieval(g, vit, qformer, inputs, &mut trace)?,
        }
        Ok(trace)
    }
}

/// What collects states under `prefix` and their number.
fn states<'t>(trace: &'t mut Trace, prefix: &'t str) -> impl FnMut(&Var) + 't {
    let mut number = 0;
    move |x| {
        trace.push((format!("{prefix}hidden_states.{number}"), x.clone()));
        number += 1;
    }
}

fn need<'i, T>(given: &'i Option<T>, what: &'static str) -> Result<&'i T> {
    match given {
        Some(given) => Ok(given),
        None => input(what, "is missing; the model cannot do without"),
    }
}

fn decoder(g: &Graph<'_>, model: &Decoder, inputs: &Inputs, trace: &mut Trace) -> Result<()> {
    let texts = need(&inputs.texts, "a text")?;
    let device = g.params().device();
    let ids = Tensor::from_slice(device, &texts.ids, [texts.batch, texts.tokens])?;
    let positions: Vec<i32> = (0..texts.batch).flat_map(|_| 0..texts.tokens as i32).collect();
    let positions = Tensor::from_slice(device, &positions, [texts.batch, texts.tokens])?;
    language(g, model, &model.embed(g, &ids)?, &positions, &Attend::causal(), trace)
}

fn language(
    g: &Graph<'_>,
    model: &Decoder,
    x: &Var,
    positions: &Tensor,
    attend: &Attend,
    trace: &mut Trace,
) -> Result<()> {
    let out = model.states(g, x, positions, attend, &mut states(trace, ""))?;
    trace.push(("logits".into(), model.logits(g, &out)?));
    Ok(())
}

fn vlm(g: &Graph<'_>, model: &Vlm, inputs: &Inputs, trace: &mut Trace) -> Result<()> {
    let pixels = g.input(need(&inputs.pixels, "an image")?.clone());
    let config = &model.config.vision;
    let prefix = "vision_model_output.";
    let blocks = config.feature_blocks();
    let mut features = model.vision.states(g, &pixels, blocks, &mut states(trace, prefix))?;
    if config.feature_layer.is_none() {
        features = model.vision.norm(g, &features)?;
        trace.push(("vision_model_output.last_hidden_state".into(), features.clone()));
    }
    if let Some(qformer) = &model.qformer {
        let out = qformer.query_states(g, &features, &mut states(trace, "qformer_outputs."))?;
        trace.push(("qformer_outputs.last_hidden_state".into(), out));
    }
    let visual = model.adapt(g, &features)?;
    trace.push(("image_hidden_states".into(), visual.clone()));
    let Some(texts) = &inputs.texts else { return Ok(()) };
    let rows = texts
        .ids
        .chunks(texts.tokens.max(1))
        .map(|row| vec![Turn { ids: row.iter().map(|&id| id as u32).collect(), loss_mask: vec![false; row.len()] }]);
    let mut batch = TextBatch::pack(&rows.collect::<Vec<_>>(), 0, 1)?;
    batch.images = (0..visual.shape()[0] as i32).collect();
    let joined = model.joined(g, &visual, &batch)?;
    language(g, &model.decoder, &joined.x, &joined.positions, &joined.attend, trace)
}

fn dual(g: &Graph<'_>, model: &DualEncoder, inputs: &Inputs, trace: &mut Trace) -> Result<()> {
    let unit = |x: &Var| ops::l2_normalize(x, 1e-12);
    let (mut image, mut text) = (None, None);
    if let Some(pixels) = &inputs.pixels {
        let pixels = g.input(pixels.clone());
        let features = model.image_features(g, &pixels, &mut states(trace, "vision_model_output."));
        image = Some(unit(&features?)?);
    }
    if let Some(texts) = &inputs.texts {
        let features = model.text_features(g, texts, &mut states(trace, "text_model_output."));
        text = Some(unit(&features?)?);
    }
    for (name, embeds) in [("image_embeds", &image), ("text_embeds", &text)] {
        trace.extend(embeds.iter().map(|embeds| (name.to_string(), embeds.clone())));
    }
    match (image, text) {
        (Some(image), Some(text)) => {
            let scores = model.scores(g, &image, &text)?;
            let shape = [scores.len(), scores.first().map_or(0, Vec::len)];
            let scores = Tensor::from_slice(g.params().device(), &scores.concat(), shape)?;
            trace.push(("logits_per_image".into(), Var::constant(scores)));
        }
        (None, None) => return input("an image or a text", "is missing; the model cannot do without both"),
        _ => {}
    }
    Ok(())
}

fn retrieval(g: &Graph<'_>, vit: &Vit, qformer: &QFormer, inputs: &Inputs, trace: &mut Trace) -> Result<()> {
    let pixels = g.input(need(&inputs.pixels, "an image")?.clone());
    let (prefix, blocks) = ("vision_model_output.", vit.config().num_hidden_layers);
    let image = vit.states(g, &pixels, blocks, &mut states(trace, prefix))?;
    let image = vit.norm(g, &image)?;
    trace.push(("vision_model_output.last_hidden_state".into(), image.clone()));
    let queries = qformer.query_states(g, &image, &mut states(trace, "qformer_outputs."))?;
    trace.push(("image_embeds".into(), qformer.project_queries(g, &queries)?));
    if let Some(texts) = &inputs.texts {
        trace.push(("text_embeds".into(), qformer.text_features(g, texts)?));
        trace.push(("itm_logits".into(), qformer.itm_logits(g, &image, texts)?));
    }
    Ok(())
}
