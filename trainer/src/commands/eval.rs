//! `lenslet eval`: measure a model, on what its recipe held out or on benchmarks.

use crate::cli::EvalArgs;
use crate::compute;
use crate::dual::DualSession;
use crate::eval::runner::{self, Settings, Wanted};
use crate::eval::subject::Subject;
use crate::eval::tasks::{Name, Source};
use crate::eval::{report, table};
use crate::pipeline::evaluate;
use crate::recipe::Recipe;
use crate::session::Session;
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use engine::{DType, Device};
use model::{Pretrained, hf};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn run(args: &EvalArgs) -> Result<()> {
    let device = compute::open(&args.compute.device)?;
    compute::with_threads(args.compute.threads, || match args.tasks.is_empty() {
        true => held_out(args, &device),
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
    let dtype = args.dtype.map_or(crate::session::dtype(recipe.run.dtype), DType::from);
    if recipe.dual.is_some() {
        let figures = DualSession::of_trained(recipe, &folder, device, dtype)?.evaluate()?;
        say!("{}", table::table(&figures));
        return Ok(());
    }
    let trained = Pretrained::load(&folder, device, dtype)
        .with_context(|| format!("{}: not the folder of a trained model", folder.display()))?;
    let session = Session::of_trained(recipe, trained)?;
    let figures = evaluate(&session, &session.vlm, &session.params)?;
    say!("{}", table::table(&figures));
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
    let mut outcomes = Vec::with_capacity(ready.len());
    for task in &ready {
        let outcome = runner::run(&subject, task, &settings)?;
        say!("{}", report::table(&outcome));
        outcomes.push(outcome);
    }
    match &args.output {
        Some(output) => report::write(output, config(args, &wanted), &outcomes, args.log_samples),
        None => Ok(()),
    }
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
    let one = |&name: &Name| {
        let own = of(&images, name);
        let common = images.get(&None).cloned().unwrap_or_default();
        let images = if own.is_empty() { common } else { own };
        if images.len() > 1 {
            bail!("{}: --images is given twice", name.text());
        }
        Ok(Wanted {
            name,
            source: Source {
                data: of(&data, name).into_iter().map(Into::into).collect(),
                prompts: of(&prompts, name),
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
        let named = text
            .split_once('=')
            .and_then(|(task, value)| Some((Name::from_str(task, true).ok()?, value)));
        let (task, value) = match named {
            Some((task, value)) => (Some(task), value),
            None if common => (None, text.as_str()),
            None => bail!("{flag} {text}: expected TASK=VALUE, with a task of --tasks"),
        };
        found.entry(task).or_default().push(value.to_string());
    }
    Ok(found)
}

/// What was asked for, for the record.
fn config(args: &EvalArgs, wanted: &[Wanted]) -> serde_json::Value {
    let shown = |path: &Path| path.display().to_string();
    let task = |wanted: &Wanted| {
        let about = json!({
            "data": wanted.source.data.iter().map(|path| shown(path)).collect::<Vec<_>>(),
            "images": wanted.images.as_deref().map(shown),
            "prompt": wanted.source.prompts,
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
        "tasks": wanted.iter().map(task).collect::<serde_json::Map<_, _>>(),
    })
}
