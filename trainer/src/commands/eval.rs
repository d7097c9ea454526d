//! `lenslet eval`: measure a model, on what its recipe held out or on benchmarks.

use crate::cli::EvalArgs;
use crate::compute;
use crate::dual::DualSession;
use crate::eval::runner::{self, Ready, Settings, Wanted};
use crate::eval::subject::{Ability, Subject};
use crate::eval::tasks::{Name, Source};
use crate::eval::training_questions::TrainingQuestions;
use crate::eval::{Figures, report, table};
use crate::interrupt::{self, Stopped};
use crate::pipeline::evaluate;
use crate::recipe::Recipe;
use crate::session::{Dataset, Session};
use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use engine::{DType, Device};
use model::{Pretrained, hf};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    interrupt::listen()?;
    compute::with_threads(args.compute.threads, || match args.tasks.is_empty() {
        true => held_out(args, &device).map_err(|error| match error.is::<Stopped>() {
            true => Stopped("stopped as asked; nothing is written".into()).into(),
            false => error,
        }),
        false => tasks(args, &device),
    })
}

/// The table that a run ends with, again.
fn held_out(args: &EvalArgs, device: &Device) -> Result<()> {
    let folder = hf::resolve(&args.model)?;
    let path = folder.join("recipe.resolved.toml");
    if !path.exists() {
        bail!(
            "{}: no run, for it has no recipe.resolved.toml, so nothing was held out; --tasks says what to measure it on",
            folder.display()
        );
    }
    let mut recipe = Recipe::load(&path, &[])?;
    if let Some(seed) = args.seed {
        recipe.run.seed = seed;
    }
    if let Some(limit) = args.limit {
        recipe.eval.limit = limit;
    }
    // What is bad ends no evaluation: it is named, and counted below the table.
    recipe.data.max_bad = Some(1.0);
    let dtype = args.dtype.map_or(crate::session::dtype(recipe.run.dtype), DType::from);
    if recipe.dual.is_some() {
        let session = DualSession::of_trained(recipe, &folder, device, dtype)?;
        name_bad(&session.data);
        return show(&session.evaluate()?);
    }
    let trained = Pretrained::load(&folder, device, dtype)
        .with_context(|| format!("{}: not the folder of a trained model", folder.display()))?;
    let session = Session::of_trained(recipe, trained)?;
    name_bad(&session.data);
    let figures = evaluate(&session, &session.vlm, &session.params)?;
    show(&figures)
}

/// Names the first of the held-out records that cannot be used.
fn name_bad(data: &Dataset) {
    if let Dataset::Corpus { heldout: Some(heldout), .. } = data
        && heldout.bad.count > 0
    {
        errln!("left out:\n{}", heldout.bad.list());
    }
}

fn show(figures: &Figures) -> Result<()> {
    ensure!(
        !figures.is_empty(),
        "nothing was held out: data.heldout_split or data.heldout_path of a recipe says what is; --tasks measures on other files"
    );
    outln!("{}", table::text(figures));
    Ok(())
}

fn tasks(args: &EvalArgs, device: &Device) -> Result<()> {
    let wanted = wanted(args)?;
    let subject = Subject::open(&args.model, device, args.dtype.map_or(DType::F32, DType::from))?;
    let ready = runner::prepare(&subject, &wanted)?;
    if let Some(output) = &args.output {
        report::make(output)?;
    }
    let settings = Settings {
        batch_size: args.batch_size,
        max_tokens: args.max_tokens,
        seed: args.seed.unwrap_or(0),
        controls: !args.no_controls,
    };
    let config = config(args, &wanted, &ready);
    let mut outcomes = Vec::with_capacity(ready.len());
    let mut failed = None;
    for task in &ready {
        if let Some(asks) = task.asks() {
            outln!("{asks}");
        }
        match runner::run(&subject, task, &settings) {
            Ok(outcome) => {
                outln!("{}", report::text(&outcome));
                outcomes.push(outcome);
            }
            Err(error) if error.is::<Stopped>() => return Err(stopped(args, task.name(), &outcomes)),
            // The others' figures are none the worse for it.
            Err(error) => {
                errln!("error: {error:#}");
                failed.get_or_insert(error);
            }
        }
        if let Some(output) = &args.output {
            report::write(output, &config, &outcomes, args.log_samples)?;
        }
    }
    failed.map_or(Ok(()), Err)
}

/// What a signal in the middle of an evaluation leaves.
fn stopped(args: &EvalArgs, task: Name, done: &[runner::Outcome]) -> anyhow::Error {
    let names: Vec<String> = done.iter().map(|outcome| outcome.name.text()).collect();
    let left = match (&args.output, names.is_empty()) {
        (Some(output), false) => format!("{} has the results of {}", output.display(), names.join(", ")),
        _ => "nothing is written".into(),
    };
    Stopped(format!("stopped as asked in the middle of {}; {left}", task.text())).into()
}

/// The tasks in the order they were named, each with what the command line says of it.
fn wanted(args: &EvalArgs) -> Result<Vec<Wanted>> {
    let twice = |i: &usize| args.tasks[..*i].contains(&args.tasks[*i]);
    if let Some(i) = (0..args.tasks.len()).find(twice) {
        bail!("--tasks: `{}` is named twice", args.tasks[i].text());
    }
    let (data, images, prompts) = (
        by_task("--data", &args.data, false)?,
        by_task("--images", &args.images, true)?,
        by_task("--prompt", &args.prompt, false)?,
    );
    for (flag, given) in [("--data", &data), ("--images", &images), ("--prompt", &prompts)] {
        if let Some(task) = given.keys().flatten().find(|task| !args.tasks.contains(task)) {
            bail!("{flag} {0}=…: `{0}` is not among --tasks", task.text());
        }
    }
    let of = |given: &BTreeMap<Option<Name>, Vec<String>>, task| given.get(&Some(task)).cloned().unwrap_or_default();
    let answers = |name: &Name| name.needs() == Ability::Answer;
    if args.max_tokens.is_some() && !args.tasks.iter().any(answers) {
        bail!("--max-tokens: none of --tasks asks for an answer");
    }
    let trained = TrainingQuestions::of(&hf::resolve(&args.model)?).unwrap_or_default();
    let one = |&name: &Name| {
        let own = of(&images, name);
        if name == Name::Zeroshot && !own.is_empty() {
            bail!("--images zeroshot=…: its images are in the folders of its classes, --data zeroshot=DIR");
        }
        let prompts = of(&prompts, name);
        if matches!(name, Name::Retrieval | Name::Matching) && !prompts.is_empty() {
            bail!("--prompt {0}=…: {0} asks no question, it compares captions as they are", name.text());
        }
        let common = images.get(&None).cloned().unwrap_or_default();
        let images = if own.is_empty() { common } else { own };
        if images.len() > 1 {
            bail!("{}: --images is given twice", name.text());
        }
        Ok(Wanted {
            name,
            source: Source {
                trained: trained.clone(),
                data: of(&data, name).into_iter().map(Into::into).collect(),
                prompts,
                limit: args.limit,
                seed: args.seed.unwrap_or(0),
            },
            images: images.into_iter().next().map(Into::into),
        })
    };
    args.tasks.iter().map(one).collect()
}

/// Values given as `task=value`, by task; those without a task where that may be.
fn by_task(flag: &str, given: &[String], common: bool) -> Result<BTreeMap<Option<Name>, Vec<String>>> {
    let mut found = BTreeMap::<Option<Name>, Vec<String>>::new();
    for text in given {
        let named = text.split_once('=').and_then(|(task, value)| Some((Name::from_str(task, true).ok()?, value)));
        let (task, value) = match named {
            Some((task, value)) => (Some(task), value),
            None if common && (!text.contains('=') || Path::new(text).exists()) => (None, text.as_str()),
            None => bail!("{flag} {text}: expected TASK=VALUE, with a task of --tasks in front of the value"),
        };
        found.entry(task).or_default().push(value.to_string());
    }
    Ok(found)
}

/// What was asked for, for the record.
fn config(args: &EvalArgs, wanted: &[Wanted], ready: &[Ready]) -> serde_json::Value {
    let shown = |path: &Path| path.display().to_string();
    let task = |(wanted, ready): (&Wanted, &Ready)| {
        let about = json!({
            "data": wanted.source.data.iter().map(|path| shown(path)).collect::<Vec<_>>(),
            "images": wanted.images.as_deref().map(shown),
            "prompt": ready.prompts(),
        });
        (wanted.name.text(), about)
    };
    json!({
        "model": args.model,
        "lenslet": env!("CARGO_PKG_VERSION"),
        "device": args.compute.device,
        "dtype": args.dtype.map_or(DType::F32, DType::from).to_string(),
        "limit": args.limit,
        "batch_size": args.batch_size,
        "max_tokens": args.max_tokens,
        "seed": args.seed.unwrap_or(0),
        "tasks": wanted.iter().zip(ready).map(task).collect::<serde_json::Map<_, _>>(),
    })
}
