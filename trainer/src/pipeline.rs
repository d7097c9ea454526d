//! A whole run: from a recipe to a trained, measured and illustrated model in its folder.

use crate::checkpoint::{Checkpoint, Checkpoints, Place, Seal};
use crate::compute;
use crate::course::{Course, Trained};
use crate::data::Conversation;
use crate::data::corpus::Corpus;
use crate::data::screen::ONE_SAMPLE;
use crate::dual::DualSession;
use crate::estimate::{self, fit_batches};
use crate::eval::contrastive::comparer;
use crate::eval::training_questions::TrainingQuestions;
use crate::eval::{Figures, corpus, scenes::SceneEval, table};
use crate::interrupt;
use crate::memory;
use crate::next;
use crate::peak::peak;
use crate::phases::Phase;
use crate::preflight;
use crate::pretrained_parts::PretrainedParts;
use crate::progress::duration;
use crate::recipe::{Phase2, Recipe};
use crate::report::losses::losses;
use crate::report::summary::Summary;
use crate::report::{card, html};
use crate::run_folder::{RECIPE, RunFolder};
use crate::sample_predictions::SamplePredictions;
use crate::session::{Dataset, Session};
use crate::shell::Command;
use crate::similarity;
use crate::step_logger::StepLogger;
use crate::step_time;
use anyhow::{Context, Result, anyhow, ensure};
use engine::{Device, Kind, Params};
use model::{Vlm, hf};
use std::path::Path;
use std::time::{Duration, Instant};

/// Where a run begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Begin {
    /// At the start, in a new folder.
    #[default]
    New,
    /// At the newest whole checkpoint in its folder; at the start where there is none.
    Latest,
    /// At the checkpoint of this number.
    At(usize),
}

/// How a recipe is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunOptions {
    /// Goes on though the data is not what it was.
    pub accept_changed_data: bool,
    /// Where it begins.
    pub begin: Begin,
    /// In batches as large as fit into memory.
    pub fit_memory: bool,
    /// Writes down where the time of some steps of each phase goes; on the CPU.
    pub profile: bool,
}

/// Trains as `recipe` says on `device` and leaves everything in the folder `out`.
///
/// # Errors
/// Whatever goes wrong; a new folder in which nothing is complete is removed. [`crate::interrupt::Stopped`] when a signal
/// asked to stop.
pub fn run(recipe: Recipe, device: &Device, out: &Path, options: RunOptions) -> Result<()> {
    let on_cpu = device.kind() == Kind::Cpu;
    ensure!(
        on_cpu || !options.profile,
        "--profile times the CPU's kernels; this device has its maker's tools for that"
    );
    let started = Instant::now();
    let recipe = recipe.anchored();
    interrupt::listen()?;
    let mut folder = match options.begin {
        Begin::New => RunFolder::create(out)?,
        Begin::Latest | Begin::At(_) => RunFolder::reopen(out)?,
    };
    let from = checkpoint(&folder, &recipe, options.begin)?;
    let made = from.as_ref().map(|(found, _)| found.path.as_path());
    let (mut summary, next) = match recipe.dual {
        Some(_) => {
            let mut session = DualSession::begin(recipe, device, made)?;
            if options.fit_memory {
                let mut recipe = session.recipe.clone();
                fit_batches(&mut recipe, device, |recipe, trace| session.rehearse(recipe, trace))?;
                session.recipe = recipe;
            }
            run_dual(session, device, &mut folder, (options, from))?
        }
        None => {
            let mut session = Session::begin(recipe, device, made)?;
            if options.fit_memory {
                let mut recipe = session.recipe.clone();
                fit_batches(&mut recipe, device, |recipe, trace| rehearse(&session, recipe, trace, |_, _| ()))?;
                session.recipe = recipe;
            }
            run_vlm(session, device, &mut folder, (options, from))?
        }
    };
    summary.seconds = Some(started.elapsed().as_secs_f64());
    summary.peak_memory_bytes = memory::resident().map(|memory| memory.peak);
    summary.losses = losses(&crate::metrics::read(&folder.file("metrics.jsonl"))?);
    summary.write(&folder)?;
    html::write(folder.path())?;
    print_summary(&folder, &summary, &next);
    Ok(())
}

/// Where a run was.
type From = Option<(Checkpoint, Place)>;

/// The checkpoint to go on from, if it is to.
fn checkpoint(folder: &RunFolder, recipe: &Recipe, begin: Begin) -> Result<From> {
    let number = match begin {
        Begin::New => return Ok(None),
        Begin::Latest => None,
        Begin::At(number) => Some(number),
    };
    let found = Checkpoints::of(folder.path(), recipe.checkpoints.keep).find(number)?;
    let place = found.as_ref().map(|found| Place::read(&found.path)).transpose()?;
    Ok(found.zip(place))
}

/// Leaves in the folder what a run is made of, once it is known that it may go on as it was begun and can be written at its end;
/// what it reads from outside comes back.
fn settle(
    model: &impl Trained,
    data: &Dataset,
    start: &PretrainedParts,
    folder: &RunFolder,
    (options, from): (RunOptions, &From),
) -> Result<Seal> {
    let recipe = model.recipe();
    let seal = Seal::of(recipe, data, start)?;
    if let Some((found, _)) = from {
        seal.check(&found.path, options.accept_changed_data)?;
    }
    settle_recipe(folder, recipe, from)?;
    TrainingQuestions::new(recipe, data).write(folder)?;
    preflight::end(model, folder.path())?;
    Ok(seal)
}

fn run_vlm(
    mut session: Session,
    device: &Device,
    folder: &mut RunFolder,
    (options, from): (RunOptions, From),
) -> Result<(Summary, Vec<Command>)> {
    let seal = settle(&session, &session.data, &session.start, folder, (options, &from))?;
    let estimate = print_plan(&session, device)?;
    let peak = peak(device, session.recipe.run.dtype)?;
    let mut summary = Summary::of(&session.params, device, estimate, peak);
    summary.write(folder)?;
    let mut predictions = SamplePredictions::new(&session, folder)?;
    let vlm = session.vlm.clone();
    let mut course = Course::start(folder, session.recipe.checkpoints.keep, peak, seal)?;
    course.begin(&options, from)?;
    summary.goes_on = course.goes_on();
    if !summary.goes_on {
        predictions.ask(&vlm, &session.params, "before training")?;
    }
    for phase in Phase::of(&session.recipe) {
        course.phase(&mut session, phase, &mut |params| match phase {
            Phase::Instruct => predictions.ask(&vlm, params, "halfway"),
            _ => Ok(()),
        })?;
    }
    let logger = course.end();
    finish(&session, folder, &mut predictions, logger)?;
    let example = predictions.example(folder);
    Ok((summary, next::of_vlm(&session, folder.path(), example)))
}

fn run_dual(
    mut session: DualSession,
    device: &Device,
    folder: &mut RunFolder,
    (options, from): (RunOptions, From),
) -> Result<(Summary, Vec<Command>)> {
    let seal = settle(&session, &session.data, &PretrainedParts::default(), folder, (options, &from))?;
    let estimate = describe(&session, &session.data, device, |trace| session.rehearse(&session.recipe, trace))?;
    let mut summary = Summary::of(&session.params, device, estimate, None);
    summary.write(folder)?;
    let mut course = Course::start(folder, session.recipe.checkpoints.keep, None, seal)?;
    course.begin(&options, from)?;
    summary.goes_on = course.goes_on();
    for phase in Phase::of(&session.recipe) {
        course.phase(&mut session, phase, &mut |_| Ok(()))?;
    }
    let mut logger = course.end();
    let figures = session.evaluate().map_err(|error| unevaluated(error, folder))?;
    logger.evaluated(&figures)?;
    outln!("\n{}", table::text(&figures));
    write_figures(&figures, folder)?;
    similarity::write(&session.comparer(), &session.data, folder)?;
    folder.write("README.md", card::of_dual(&session, &figures).as_bytes())?;
    session.folder_plan()?.write(folder.path(), &session.params)?;
    folder.keep();
    Ok((summary, next::of_dual(&session, folder.path())))
}

fn write_figures(figures: &Figures, folder: &RunFolder) -> Result<()> {
    let json = serde_json::to_string_pretty(figures).context("eval.json")?;
    folder.write("eval.json", json.as_bytes())
}

/// Writes the recipe into the folder; where a run goes on, it may differ from the one there in what is free to change.
fn settle_recipe(folder: &RunFolder, recipe: &Recipe, from: &From) -> Result<()> {
    let path = folder.file(RECIPE);
    if path.exists() {
        let place = from.as_ref().map(|(_, place)| place);
        let stored = Recipe::load(&path, &[])?;
        let checked = stored.goes_on_as(recipe, place);
        checked.map_err(|message| anyhow!("{}: {message}", path.display()))?;
    }
    folder.write(RECIPE, recipe.to_toml().as_bytes())
}

/// Evaluates the trained model and leaves figures, pictures and the model itself in the folder.
fn finish(
    session: &Session,
    folder: &mut RunFolder,
    predictions: &mut SamplePredictions,
    mut logger: StepLogger,
) -> Result<()> {
    let figures = evaluate(session, &session.vlm, &session.params).map_err(|error| unevaluated(error, folder))?;
    logger.evaluated(&figures)?;
    predictions.conclude(session, folder)?;
    outln!("\n{}", table::text(&figures));
    write_figures(&figures, folder)?;
    let compares = comparer(&session.vlm, &session.params, &session.prepare);
    if let (Some(comparer), Some(_)) = (compares, &session.recipe.phase1) {
        similarity::write(&comparer, &session.data, folder)?;
    }
    folder.write("README.md", card::card(session, &figures).as_bytes())?;
    session.folder_plan()?.write(folder.path(), &session.params)?;
    save_adapter(session, folder)?;
    folder.keep();
    Ok(())
}

/// Says what a signal in the middle of the evaluation leaves.
fn unevaluated(error: anyhow::Error, folder: &RunFolder) -> anyhow::Error {
    if !error.is::<interrupt::Stopped>() {
        return error;
    }
    let evaluate = Command::new("train --resume latest").flag("--out", folder.path());
    let message = format!(
        "stopped as asked in the middle of the evaluation, of which nothing is written; the training is over, to evaluate \
         it:\n  {evaluate}"
    );
    interrupt::Stopped(message).into()
}

/// Writes low-rank adapters by themselves, where there is something that they are for.
fn save_adapter(session: &Session, folder: &RunFolder) -> Result<()> {
    let Some(base) = preflight::adapter_base(&session.recipe, &session.vlm.config) else {
        return Ok(());
    };
    let path = folder.file("adapter");
    hf::save_adapter(&path, &session.vlm, &session.params, base).context("the adapter cannot be saved")
}

/// What a dry run shows: everything but the training.
pub fn dry_run(recipe: Recipe, device: &Device, out: &Path) -> Result<()> {
    if recipe.dual.is_some() {
        let mut session = DualSession::new(recipe, &Device::trace())?;
        preflight::end(&session, out)?;
        let needed = describe(&session, &session.data, device, |trace| session.rehearse(&session.recipe, trace))?;
        plan(&session.recipe, &session.data);
        let caption = session.data.source().pair(0)?.caption;
        let ids = session.tokenizer.tokenize(&caption, true)?;
        outln!("one caption:\n  {}", session.tokenizer.decode_with_specials(&ids)?);
        outln!("time        {}", time(&mut session, needed, device)?);
        return Ok(());
    }
    let mut session = Session::new(recipe, &Device::trace())?;
    preflight::end(&session, out)?;
    let needed = describe(&session, &session.data, device, |trace| {
        outln!("parts       {}", modules(&session.params));
        rehearse(&session, &session.recipe, trace, |phase, parts| {
            let parts: Vec<String> =
                parts.iter().map(|(name, bytes)| format!("{name} {}", memory::size(*bytes))).collect();
            outln!("{:<12}{}, and activations", phase.name(), parts.join(", "));
        })
    })?;
    plan(&session.recipe, &session.data);
    let conversation = session.data.source().conversation(0, 0.0)?;
    let layout = session.recipe.phase2.as_ref().map(Phase2::layout).unwrap_or_default();
    let Conversation { system, turns, images, .. } = conversation;
    let lines = session.prepare.shown(system.as_deref(), &turns, images.len(), layout)?;
    outln!("{ONE_SAMPLE}\n  {}", lines.join("\n  "));
    if let Some(phase) = session.recipe.phase2.as_mut().filter(|phase| phase.cache_features) {
        // To keep features is the run's own business; a few steps do without.
        phase.cache_features = false;
        outln!("time        without features that are kept: with them steps are faster after the first pass");
    }
    outln!("time        {}", time(&mut session, needed, device)?);
    Ok(())
}

/// How long training will take, where the memory it needs is free: only then the model is made.
fn time(model: &mut impl Trained, needed: u64, device: &Device) -> Result<String> {
    let free = match device.free_memory()? {
        Some(free) => free as u64,
        None => memory::available().unwrap_or(u64::MAX),
    };
    match needed > free {
        true => Ok(format!("not told: {} is free, too little for the steps that tell it", memory::size(free))),
        false => {
            model.remake_on(device)?;
            step_time::estimate(model)
        }
    }
}

/// How questions behind the first are learned, where there are any.
fn turns(recipe: &Recipe, corpus: &Corpus) -> Option<String> {
    recipe.phase2.as_ref()?;
    let more = corpus.samples.iter().filter(|sample| sample.turns.len() > 1).count();
    let how = match recipe.independent_turns() {
        true => "each question is learned alone with its image; phase2.independent_turns = false shows it those before",
        false => {
            "questions behind the first are learned with those before in sight, and are harder when asked alone; \
             phase2.independent_turns = true learns each alone"
        }
    };
    (more > 0).then(|| format!("{more} conversations have several: {how}"))
}

/// Prints the steps of each phase, and how often they go through the data.
fn plan(recipe: &Recipe, data: &Dataset) {
    let every = recipe.phase2.as_ref().map_or(0, |phase| phase.align_every);
    for phase in Phase::of(recipe) {
        if let Some(training) = phase.training(recipe) {
            let images = training.batch_size * training.accumulate;
            let others = if phase == Phase::Instruct { training.steps.checked_div(every) } else { None };
            let own = training.steps - others.unwrap_or(0);
            let passes = match data {
                Dataset::Scenes(_) => "each drawn anew".into(),
                Dataset::Corpus { train, .. } => {
                    let samples = train.corpus.samples.len();
                    format!("{:.1} passes over {samples} records", (own * images) as f64 / samples as f64)
                }
            };
            outln!("{:<12}{} steps of {images} images, {passes}", phase.name(), training.steps);
        }
    }
    if every > 1 {
        outln!("{:<12}one step in {every} is taken on phase 1's losses and batch", "");
    }
}

/// What a model can do of what the recipe's phases teach, measured on what they did not show.
pub fn evaluate(session: &Session, vlm: &Vlm, params: &Params) -> Result<Figures> {
    let mut figures = Figures::new();
    for phase in Phase::of(&session.recipe) {
        figures.extend(evaluate_phase(phase, session, vlm, params)?);
    }
    Ok(figures)
}

fn evaluate_phase(phase: Phase, session: &Session, vlm: &Vlm, params: &Params) -> Result<Figures> {
    let (prepare, count) = (&session.prepare, session.recipe.eval.limit);
    match &session.data {
        Dataset::Scenes(source) => {
            let eval = SceneEval { vlm, params, prepare, scenes: source.scenes, count };
            match phase {
                Phase::Align => eval.alignment(),
                Phase::Instruct => eval.instruction(),
                Phase::Contrast => Ok(Figures::new()),
            }
        }
        Dataset::Corpus { heldout: Some(heldout), .. } => match phase {
            Phase::Align => corpus::alignment(vlm, params, prepare, heldout, count),
            Phase::Instruct => {
                let independent = session.recipe.independent_turns();
                corpus::instruction(vlm, params, prepare, heldout, count, independent)
            }
            Phase::Contrast => Ok(Figures::new()),
        },
        Dataset::Corpus { heldout: None, .. } => Ok(Figures::new()),
    }
}

/// Prints what will be done and returns the memory it should take in all, in bytes.
fn print_plan(session: &Session, device: &Device) -> Result<u64> {
    describe(session, &session.data, device, |trace| rehearse(session, &session.recipe, trace, |_, _| ()))
}

/// A few steps of every phase and the evaluation, on a device that only counts memory; `seen` is told what each phase takes
/// for weights, gradients and optimiser.
fn rehearse(
    session: &Session,
    recipe: &Recipe,
    trace: &Device,
    mut seen: impl FnMut(Phase, Vec<(&'static str, u64)>),
) -> Result<()> {
    let (vlm, mut params) = session.model_on(trace)?;
    for phase in Phase::of(recipe) {
        if let Some(training) = phase.training(recipe) {
            let few = estimate::few(training.clone());
            session.train_model(&vlm, &mut params, recipe, phase, &few)?;
            seen(phase, estimate::parts(&params, &training));
        }
    }
    evaluate(session, &vlm, &params).map(|_| ())
}

/// Parameters by the first part of their names, and how many of them are trained in the first phase.
fn modules(params: &Params) -> String {
    let mut parts: Vec<(&str, usize, usize)> = Vec::new();
    for id in params.ids() {
        let (module, size) = (params.name(id).split('.').next().unwrap_or_default(), params.shape(id).elements());
        let trained = if params.is_frozen(id) { 0 } else { size };
        match parts.iter_mut().find(|(name, ..)| *name == module) {
            Some((_, all, moving)) => (*all, *moving) = (*all + size, *moving + trained),
            None => parts.push((module, size, trained)),
        }
    }
    let shown = parts.iter().map(|(name, all, moving)| match moving {
        0 => format!("{name} {all} (frozen)"),
        moving if moving == all => format!("{name} {all}"),
        _ => format!("{name} {all} ({moving} trained)"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

/// Prints device, parameters, data and memory; see [`estimate::peak`].
fn describe(
    model: &impl Trained,
    data: &Dataset,
    device: &Device,
    rehearse: impl FnOnce(&Device) -> Result<()>,
) -> Result<u64> {
    let (all, trainable) = model.params().count();
    let dtype = model.params().dtype();
    outln!("device      {}, {} threads", compute::name(device), rayon::current_num_threads());
    outln!("parameters  {all} ({trainable} trainable), {dtype}");
    if let Dataset::Corpus { train, heldout } = data {
        outln!("data        {}", train.corpus.summary());
        if let Some(heldout) = heldout {
            outln!("held out    {}", heldout.summary());
        }
        if let Some(line) = turns(model.recipe(), &train.corpus) {
            outln!("turns       {line}");
        }
    }
    let estimate = estimate::peak(device, rehearse)?;
    outln!("memory      about {} at the most", memory::size(estimate));
    Ok(estimate)
}

fn print_summary(folder: &RunFolder, summary: &Summary, next: &[Command]) {
    let path = folder.path().display();
    if let Some(peak) = summary.peak_memory_bytes {
        let off = 100.0 * (peak as f64 / summary.estimate_bytes as f64 - 1.0);
        outln!("peak memory {} ({off:+.0} % against the estimate)", memory::size(peak));
    }
    let seconds = Duration::from_secs_f64(summary.seconds.unwrap_or(0.0));
    outln!("took        {}", duration(seconds));
    outln!("in {path}: report.html to look at, eval.json, metrics.jsonl, tensorboard/ and the model");
    outln!("next:");
    next.iter().for_each(|command| outln!("  {command}"));
}
