//! `lenslet demo`: the whole road on built-in scenes, in about three minutes.

use crate::cli::DemoArgs;
use crate::compute;
use crate::pipeline::{self, RunOptions};
use crate::recipe::Recipe;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The recipe the demo runs, the same file that `lenslet train --recipe recipes/demo.toml` reads.
const RECIPE: &str = include_str!("../../../recipes/demo.toml");

pub(super) fn run(args: DemoArgs) -> Result<()> {
    let device = compute::open_for_training(&args.compute.device, !args.no_graph)?;
    let mut recipe = Recipe::parse(RECIPE, Path::new("recipes/demo.toml"), &[])?;
    recipe.run.seed = args.seed;
    recipe.run.device = args.compute.device;
    if let Some(most) = args.max_steps {
        recipe.limit_steps(most);
    }
    let out = args.out.unwrap_or_else(|| PathBuf::from("runs/demo"));
    compute::with_threads(args.compute.threads, || pipeline::run(recipe, &device, &out, RunOptions::default()))
}
