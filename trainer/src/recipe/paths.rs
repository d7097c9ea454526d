//! Environment variables in paths.

use super::error::Invalid;
use super::{Data, Pretrained, Recipe};
use std::path::PathBuf;

/// Replaces `${NAME}` and `${NAME:-default}` in every path of the recipe.
pub(super) fn expand(recipe: &mut Recipe) -> Result<(), Invalid> {
    let Data {
        path,
        images,
        heldout_path,
        heldout_images,
        ..
    } = &mut recipe.data;
    let paths = [
        ("data.path", path),
        ("data.images", images),
        ("data.heldout_path", heldout_path),
        ("data.heldout_images", heldout_images),
        ("tokenizer.path", &mut recipe.tokenizer.path),
    ];
    for (key, path) in paths {
        if let Some(path) = path {
            let text = path.to_string_lossy();
            let expanded = variables(&text, |name| std::env::var(name).ok()).map_err(|m| Invalid::new(key, m))?;
            *path = PathBuf::from(expanded);
        }
    }
    let Pretrained {
        model,
        vision,
        qformer,
        decoder,
        ..
    } = &mut recipe.pretrained;
    let names = [
        ("pretrained.model", model),
        ("pretrained.vision", vision),
        ("pretrained.qformer", qformer),
        ("pretrained.decoder", decoder),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            *name = variables(name, |name| std::env::var(name).ok()).map_err(|m| Invalid::new(key, m))?;
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
        let (inside, after) = after
            .split_once('}')
            .ok_or_else(|| format!("`{text}` has `${{` without `}}`"))?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default.to_string())),
            None => (inside, None),
        };
        let value = lookup(name)
            .filter(|value| !value.is_empty())
            .or(default)
            .ok_or_else(|| {
                format!("the environment variable {name} is not set; set it, or write `${{{name}:-DEFAULT}}`")
            })?;
        result += before;
        result += &value;
        rest = after;
    }
    Ok(result + rest)
}
