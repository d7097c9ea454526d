//! Parquet: see [`Tables`].

use super::fault::{Fault, fault};
use super::json::{self, MAX_RECORD};
use super::{Ask, add, fields};
use crate::data::parquet::{Tables, Texts};
use crate::data::record::{Content, Found, Select};
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// The rows of all files, in order.
pub(super) fn records(path: &Path, select: &Select, ask: &Ask) -> Result<(Found, Tables)> {
    let (mut found, mut splits) = (Found::default(), BTreeMap::new());
    let tables = Tables::open(path, &mut found.passed_over)?;
    tables.rows(|texts| {
        let name = texts.name.clone();
        let content = content(texts, select, ask, &mut splits);
        add(&mut found, path, name, content);
        !select.is_full(&found)
    })?;
    json::check_any(&found, path, select, &splits)?;
    Ok((found, tables))
}

/// What a row says; none where it is of another split.
fn content(
    texts: Texts,
    select: &Select,
    ask: &Ask,
    splits: &mut BTreeMap<String, usize>,
) -> Result<Option<Content>, Fault> {
    let length = serde_json::to_vec(&texts.record).map_or(0, |bytes| bytes.len());
    if length > MAX_RECORD {
        return fault("", format!("{length} bytes long, longer than {MAX_RECORD}"));
    }
    if !json::is_wanted(&texts.record, select, splits)? {
        return Ok(None);
    }
    fields::content(texts.record, texts.images, ask).map(Some)
}
