//! `lenslet train`: a recipe of one's own.

use crate::cli::TrainArgs;
use crate::recipe::Recipe;
use crate::{compute, pipeline};
use anyhow::Result;
use std::path::Path;

pub(super) fn run(args: TrainArgs) -> Result<()> {
    let mut recipe = Recipe::load(&args.recipe, &args.set)?;
    if let Some(device) = args.device {
        recipe.run.device = device;
    }
    let device = compute::open_for_training(&recipe.run.device, !args.no_graph)?;
    compute::with_threads(recipe.run.threads, || {
        if args.dry_run {
            return pipeline::dry_run(recipe, &device);
        }
        let out = args.out.unwrap_or_else(|| Path::new("runs").join(&recipe.run.name));
        pipeline::run(recipe, &device, &out)
    })
}
