//! `lenslet train`: a recipe of one's own, from the start or from where it stopped.

use crate::cli::TrainArgs;
use crate::compute;
use crate::pipeline::{self, Begin, RunOptions};
use crate::recipe::Recipe;
use crate::run_folder::RECIPE;
use anyhow::{Context, Result};
use std::path::Path;

pub(super) fn run(args: TrainArgs) -> Result<()> {
    let file = match (&args.recipe, &args.out) {
        (Some(file), _) => file.clone(),
        (None, Some(out)) => out.join(RECIPE),
        (None, None) => {
            anyhow::bail!("which run? --resume needs its folder, --out DIR, or the recipe it was begun with")
        }
    };
    let mut recipe = Recipe::load(&file, &args.set)?;
    if let Some(device) = args.device {
        recipe.run.device = device;
    }
    let begin = match args.resume.as_deref() {
        None => Begin::New,
        Some("latest") => Begin::Latest,
        Some(number) => Begin::At(
            number.parse().with_context(|| format!("--resume {number}: expected `latest` or a checkpoint's number"))?,
        ),
    };
    let device = compute::open_for_training(&recipe.run.device, !args.no_graph)?;
    let trained = compute::with_threads(recipe.run.threads, || {
        let out = args.out.unwrap_or_else(|| Path::new("runs").join(&recipe.run.name));
        if args.dry_run {
            return pipeline::dry_run(recipe, &device, &out);
        }
        let options = RunOptions {
            begin,
            accept_changed_data: args.accept_changed_data,
            fit_memory: args.auto_batch,
            profile: args.profile,
        };
        pipeline::run(recipe, &device, &out, options)
    });
    trained.map_err(|error| Recipe::locate(error, &file, &args.set))
}
