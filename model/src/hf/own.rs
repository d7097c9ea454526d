//! Lenslet's own vision-language models, those that no architecture of the reference computes: their configuration is ours,
//! under a model type of its own, so that no other tool takes them for something else.

use super::fields::{Fields, table};
use crate::config::VlmConfig;
use crate::error::Result;
use serde_json::{Map, Value, json};

/// The model type.
pub(super) const TYPE: &str = "lenslet";

pub(super) fn read(fields: Fields) -> Result<VlmConfig> {
    let config: VlmConfig = fields.whole()?;
    config.validate()?;
    Ok(config)
}

pub(super) fn write(config: &VlmConfig) -> Map<String, Value> {
    let mut map = table(json!({ "model_type": TYPE }));
    map.extend(table(json!(config)));
    map
}
