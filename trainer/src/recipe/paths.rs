//! Paths of a recipe: environment variables in them, and what they mean in another folder.

use super::error::Invalid;
use super::{Data, Pretrained, Recipe, Source};
use std::convert::Infallible;
use std::path::{Path, PathBuf, absolute};

/// Replaces `${NAME}` and `${NAME:-default}` in every path of the recipe.
pub(super) fn expand(recipe: &mut Recipe) -> Result<(), Invalid> {
    each(recipe, |key, text, _| {
        variables(text, |name| std::env::var(name).ok()).map_err(|message| Invalid::new(key, message))
    })
}

/// Makes every path lead to the same place from any folder. Names of the hub stay as they are.
pub(super) fn anchor(recipe: &mut Recipe) {
    let in_shards = recipe.data.source == Source::Webdataset;
    let one = |path: &str| {
        let absolute = absolute(path).ok().and_then(|path| path.into_os_string().into_string().ok());
        absolute.unwrap_or_else(|| path.into())
    };
    let Ok(()) = each(recipe, |_, text, kind| {
        Ok::<_, Infallible>(match kind {
            // Several shards are named side by side: `a.tar::b.tar`.
            Kind::Data if in_shards => text.split("::").map(one).collect::<Vec<_>>().join("::"),
            Kind::Part if !Path::new(text).exists() => text.into(),
            Kind::Data | Kind::Part => one(text),
        })
    });
}

/// Writes every path such that [`expand`] gives it back.
pub(super) fn write(recipe: &mut Recipe) {
    let Ok(()) = each(recipe, |_, text, _| Ok::<_, Infallible>(as_written(text)));
}

/// What a path leads to.
#[derive(Clone, Copy)]
enum Kind {
    /// Files and folders.
    Data,
    /// A folder, or a name of the hub.
    Part,
}

/// Replaces every path of the recipe, given with its key.
fn each<E>(recipe: &mut Recipe, change: impl Fn(&str, &str, Kind) -> Result<String, E>) -> Result<(), E> {
    let Data { path, images, heldout_path, heldout_images, .. } = &mut recipe.data;
    let paths = [
        ("data.path", path),
        ("data.images", images),
        ("data.heldout_path", heldout_path),
        ("data.heldout_images", heldout_images),
        ("tokenizer.path", &mut recipe.tokenizer.path),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            *path = PathBuf::from(change(key, &path.to_string_lossy(), Kind::Data)?);
        }
    }
    let Pretrained { model, vision, qformer, decoder, .. } = &mut recipe.pretrained;
    let names = [
        ("pretrained.model", model),
        ("pretrained.vision", vision),
        ("pretrained.qformer", qformer),
        ("pretrained.decoder", decoder),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            *name = change(key, name, Kind::Part)?;
        }
    }
    Ok(())
}

/// A path as a recipe writes it: `${` stands for itself where another `$` is in front of it.
pub fn as_written(path: &str) -> String {
    path.replace("${", "$${")
}

/// `text` with its variables replaced by what `lookup` says.
pub(super) fn variables(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(before) = before.strip_suffix('$') {
            result += before;
            result += "${";
            rest = after;
            continue;
        }
        let (inside, after) = after.split_once('}').ok_or_else(|| format!("`{text}` has `${{` without `}}`"))?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_string())),
            None => (inside, None),
        };
        let value = lookup(name).filter(|value| !value.is_empty()).or(default).ok_or_else(|| {
            format!("the environment variable {name} is not set; set it, or write `${{{name}:-DEFAULT}}`")
        })?;
        result += before;
        result += &value;
        rest = after;
    }
    Ok(result + rest)
}
