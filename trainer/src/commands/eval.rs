//! `lenslet eval`: measure a trained model again, perhaps on other scenes or more of them.

use crate::cli::EvalArgs;
use crate::eval::table;
use crate::pipeline::evaluate;
use crate::recipe::Recipe;
use crate::session::Session;
use anyhow::{Context, Result};
use engine::Device;
use model::Pretrained;

pub(super) fn run(args: EvalArgs) -> Result<()> {
    let device = Device::cpu();
    let mut recipe = Recipe::load(&args.model.join("recipe.resolved.toml"), &[])?;
    if let Some(seed) = args.seed {
        recipe.run.seed = seed;
    }
    if let Some(limit) = args.limit {
        recipe.eval.limit = limit;
    }
    let dtype = crate::session::dtype(recipe.run.dtype);
    let trained = Pretrained::load(&args.model, &device, dtype)
        .with_context(|| format!("{}: not the folder of a trained model", args.model.display()))?;
    let session = Session::of_trained(recipe, trained)?;
    let figures = evaluate(&session, &session.vlm, &session.params)?;
    println!("{}", table::table(&figures));
    Ok(())
}
