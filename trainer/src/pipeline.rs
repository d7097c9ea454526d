//! A whole run: from a recipe to a trained, measured and illustrated model in its folder.

use crate::estimate;
use crate::eval::{Figures, corpus, scenes::SceneEval, table};
use crate::memory;
use crate::metrics::{MetricsLog, StepMetrics, read};
use crate::phases::Phase;
use crate::phases::fit::Step;
use crate::progress::{Progress, duration};
use crate::recipe::Recipe;
use crate::report::{card, loss_svg};
use crate::run_folder::RunFolder;
use crate::session::{Dataset, Session};
use crate::showcase::Showcase;
use anyhow::{Context, Result};
use engine::{Device, Params};
use kernels::cpu::simd::isa;
use model::{Vlm, hf, save_folder};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Trains as `recipe` says on `device` and leaves everything in the new folder `out`.
///
/// # Errors
/// Whatever goes wrong; a folder in which nothing is complete is removed.
pub fn run(recipe: Recipe, device: &Device, out: &Path) -> Result<()> {
    let begin = Instant::now();
    let mut folder = RunFolder::create(out)?;
    let mut session = Session::new(recipe, device)?;
    folder.write("recipe.resolved.toml", session.recipe.to_toml().as_bytes())?;
    let estimate = introduce(&session, device)?;
    let mut showcase = Showcase::new(&session)?;
    showcase.ask(&session.vlm, &session.params, "before training")?;
    for phase in Phase::of(&session.recipe) {
        train(&mut session, phase, &folder, &mut showcase)?;
    }
    let figures = evaluate(&session, &session.vlm, &session.params)?;
    showcase.ask(&session.vlm, &session.params, "after training")?;
    println!("\n{}", table::table(&figures));
    let json = serde_json::to_string_pretty(&figures).context("eval.json")?;
    folder.write("eval.json", json.as_bytes())?;
    let svg = loss_svg::svg(&read(&folder.file("metrics.jsonl"))?, &["itc", "itm", "itg"])?;
    folder.write("loss.svg", svg.as_bytes())?;
    showcase.write(&session, &folder)?;
    let prepare = &session.prepare;
    folder.write("README.md", card::card(&session, &figures).as_bytes())?;
    save_folder(
        folder.path(),
        &session.vlm,
        &session.params,
        (&prepare.tokenizer, &prepare.processor, &prepare.chat),
    )
    .context("the trained model cannot be saved")?;
    save_adapter(&session, &folder)?;
    folder.keep();
    conclude(&folder, estimate, begin, &showcase);
    Ok(())
}

/// Low-rank adapters on a pretrained language model, or on a whole pretrained model, as PEFT keeps them.
fn save_adapter(session: &Session, folder: &RunFolder) -> Result<()> {
    let (named, lora) = (&session.recipe.pretrained, &session.recipe.model.lora);
    let base = match (&named.model, &named.decoder, hf::format(&session.vlm.config)) {
        (Some(name), _, hf::Format::Transformers(_)) => hf::Base::Whole(name),
        (None, Some(name), _) if lora.decoder.is_some() => hf::Base::Decoder(name),
        _ => return Ok(()),
    };
    if lora == &Default::default() {
        return Ok(());
    }
    let path = folder.file("adapter");
    hf::save_adapter(&path, &session.vlm, &session.params, base).context("the adapter cannot be saved")
}

/// What a dry run shows: everything but the training.
///
/// # Errors
/// As [`run`].
pub fn dry_run(recipe: Recipe, device: &Device) -> Result<()> {
    let session = Session::new(recipe, device)?;
    introduce(&session, device)?;
    for phase in Phase::of(&session.recipe) {
        if let Some(training) = phase.training(&session.recipe) {
            let images = training.batch_size * training.accumulate;
            println!("{:<12}{} steps of {images} images", phase.name(), training.steps);
        }
    }
    if let Some(every @ 2..) = session.recipe.phase2.as_ref().map(|phase| phase.align_every) {
        println!("{:<12}one step in {every} is taken on phase 1's losses and batch", "");
    }
    let conversation = session.data.source().conversation(0, 0.0)?;
    println!("one sample, with what is learned in brackets:");
    let separate = session
        .recipe
        .phase2
        .as_ref()
        .is_some_and(|phase| phase.independent_turns);
    let size = if separate { 1 } else { conversation.turns.len().max(1) };
    for turns in conversation.turns.chunks(size) {
        println!("  {}", session.prepare.shown(conversation.system.as_deref(), turns)?);
    }
    Ok(())
}

/// What a model can do of what the recipe's phases teach, measured on what they did not show.
///
/// # Errors
/// Those of the model.
pub fn evaluate(session: &Session, vlm: &Vlm, params: &Params) -> Result<Figures> {
    let mut figures = Figures::new();
    for phase in Phase::of(&session.recipe) {
        figures.extend(taught(phase, session, vlm, params)?);
    }
    Ok(figures)
}

fn taught(phase: Phase, session: &Session, vlm: &Vlm, params: &Params) -> Result<Figures> {
    let (prepare, count) = (&session.prepare, session.recipe.eval.limit);
    match &session.data {
        Dataset::Scenes(source) => {
            let eval = SceneEval {
                vlm,
                params,
                prepare,
                scenes: source.scenes,
                count,
            };
            match phase {
                Phase::Align => eval.alignment(),
                Phase::Instruct => eval.instruction(),
            }
        }
        Dataset::Corpus {
            heldout: Some(heldout), ..
        } => match phase {
            Phase::Align => corpus::alignment(vlm, params, prepare, heldout, count),
            Phase::Instruct => corpus::instruction(vlm, params, prepare, heldout, count),
        },
        Dataset::Corpus { heldout: None, .. } => Ok(Figures::new()),
    }
}

/// Prints what will be done and returns the memory it should take in all, in bytes.
fn introduce(session: &Session, device: &Device) -> Result<u64> {
    let (all, trainable) = session.params.count();
    let dtype = session.params.dtype();
    println!(
        "device      {} ({:?}), {} threads",
        device.kind().name(),
        isa(),
        rayon::current_num_threads()
    );
    println!("parameters  {all} ({trainable} trainable), {dtype}");
    if let Dataset::Corpus { train, heldout } = &session.data {
        println!("data        {}", train.corpus.summary());
        if let Some(heldout) = heldout {
            println!("held out    {}", heldout.summary());
        }
    }
    let estimate = estimate::peak(session, device)?;
    println!("memory      about {} at the most", memory::size(estimate));
    Ok(estimate)
}

fn train(session: &mut Session, phase: Phase, folder: &RunFolder, showcase: &mut Showcase) -> Result<()> {
    let steps_of = |phase: Phase| phase.training(&session.recipe).map_or(0, |t| t.steps);
    let (steps, before) = (steps_of(phase), steps_of(Phase::Align));
    let mut log = MetricsLog::open(&folder.file("metrics.jsonl"))?;
    let mut progress = Progress::new(phase.name(), steps);
    let mut tokens = 0;
    let vlm = session.vlm.clone();
    session.train(phase, |step, params| {
        tokens += step.accuracy.map_or(0, |(_, all)| all as u64);
        let own = step.phase == phase;
        log.append(&metrics(step, if own { 0 } else { before }, tokens))?;
        progress.step(own.then_some(step.loss), step.samples);
        if phase == Phase::Instruct && step.step == steps / 2 {
            showcase.ask(&vlm, params, "halfway")?;
        }
        Ok(())
    })?;
    progress.finish();
    Ok(())
}

/// A step as it is logged, behind `before` steps of its phase.
fn metrics(step: &Step, before: usize, num_tokens: u64) -> StepMetrics {
    let (seconds, waited) = step.seconds;
    let mut parts: BTreeMap<String, f64> = step
        .parts
        .iter()
        .map(|(name, value)| (name.to_string(), *value))
        .collect();
    parts.insert("data_wait_share".into(), waited / seconds.max(1e-9));
    StepMetrics {
        phase: step.phase.name().into(),
        step: before + step.step,
        loss: step.loss,
        lr: step.lr,
        grad_norm: step.grad_norm,
        samples_per_s: step.samples as f64 / seconds.max(1e-9),
        mean_token_accuracy: step.accuracy.map(|(right, all)| right as f64 / all.max(1) as f64),
        num_tokens,
        parts,
    }
}

fn conclude(folder: &RunFolder, estimate: u64, begin: Instant, showcase: &Showcase) {
    let path = folder.path().display();
    if let Some(memory) = memory::resident() {
        let off = 100.0 * (memory.peak as f64 / estimate as f64 - 1.0);
        println!(
            "peak memory {} ({off:+.0} % against the estimate)",
            memory::size(memory.peak)
        );
    }
    println!("took        {}", duration(begin.elapsed()));
    println!("in {path}: loss.svg, samples.md, attention/, eval.json, metrics.jsonl and the model");
    println!("next:");
    // As it was started: after `cargo run` the binary is not on the path.
    let lenslet = std::env::args().next().unwrap_or_else(|| "lenslet".into());
    if let Some((image, question)) = showcase.example(folder) {
        println!(
            "  {lenslet} generate --model {path} --image {} --prompt {question:?}",
            image.display()
        );
    }
    println!("  {lenslet} eval --model {path} --seed 1");
    println!("  {lenslet} train --recipe recipes/scenes-full.toml");
}
