//! Weights in safetensors files.

mod read;
mod write;

pub use read::TensorFile;
pub use write::write_tensors;

use crate::error::{Error, Result};
use engine::{ParamId, Params};
use std::path::Path;

/// Writes all parameters to `path`: trained ones at full precision, frozen ones as they are kept. The file appears
/// whole or not at all.
pub fn save(params: &Params, path: &Path) -> Result<()> {
    save_where(params, path, |_| true)
}

/// As [`save`], for the parameters whose name `keep` accepts.
pub fn save_where(params: &Params, path: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let kept = params.ids().filter(|&id| keep(params.name(id)));
    let tensors: Vec<_> = kept
        .map(|id| (params.name(id).to_string(), params.master(id)))
        .collect();
    write_tensors(path, &tensors, &[("format", "pt")])
}

/// Reads every parameter whose name starts with `prefix` from `path`, where names lack the prefix: `""` for a whole
/// model, `"language_model."` for a decoder's file.
///
/// # Errors
/// When the file is malformed, lacks a parameter, holds one the model has not, or one of another shape; nothing is
/// changed then.
pub fn load(path: &Path, params: &mut Params, prefix: &str) -> Result<()> {
    let mut file = TensorFile::open(path)?;
    let wanted: Vec<(ParamId, String)> = params
        .ids()
        .filter_map(|id| Some((id, params.name(id).strip_prefix(prefix)?.to_string())))
        .collect();
    let bad = |tensor: &str, message: String| {
        Err(Error::Tensor {
            path: path.to_path_buf(),
            tensor: tensor.to_string(),
            message,
        })
    };
    for (id, name) in &wanted {
        let expected = params.shape(*id);
        match file.shape(name) {
            None => return bad(name, format!("is missing; the model needs one of shape {expected}")),
            Some(found) if found[..] != expected[..] => {
                return bad(name, format!("has shape {found:?}, the model needs {expected}"));
            }
            Some(_) => {}
        }
    }
    let known: std::collections::HashSet<&str> = wanted.iter().map(|(_, name)| name.as_str()).collect();
    if let Some(extra) = file
        .names()
        .find(|name| !known.contains(name) && !follows_from_config(name))
    {
        return bad(extra, "is not a parameter of this model".into());
    }
    for (id, name) in &wanted {
        let tensor = file.tensor(name, params.device())?;
        params.set(*id, &tensor)?;
    }
    Ok(())
}

/// What other tools store although the configuration says it all.
fn follows_from_config(name: &str) -> bool {
    name == "lm_head.weight" || name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".position_ids")
}
