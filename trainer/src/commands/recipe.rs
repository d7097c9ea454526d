//! `lenslet recipe`: what a recipe may say.

use crate::cli::RecipeVerb;
use crate::recipe::keys;
use anyhow::Result;

pub(super) fn run(verb: &RecipeVerb) -> Result<()> {
    let RecipeVerb::Keys { section, markdown } = verb;
    let text = match section {
        _ if *markdown => keys::markdown(),
        Some(section) => keys::text(&keys::sections_at(section)?),
        None => keys::text(&keys::sections()),
    };
    outln!("{}", text.trim_end());
    Ok(())
}
