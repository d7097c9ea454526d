//! Which keys a recipe says itself, as against those that have their defaults.

use super::Invalid;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use toml::{Table, Value};

/// The dotted keys of the values that a recipe says. Two recipes that do the same are equal, whatever they leave out.
#[derive(Debug, Clone, Default)]
pub(crate) struct Given(BTreeSet<String>);

impl PartialEq for Given {
    fn eq(&self, _: &Given) -> bool {
        true
    }
}

impl Given {
    pub(super) fn of(table: &Table) -> Given {
        Given(values(table).into_keys().collect())
    }

    /// Whether the recipe says this key, or one within it.
    pub(crate) fn has(&self, key: &str) -> bool {
        let within =
            |given: &String| given.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        self.0.iter().any(within)
    }

    /// Fails where the recipe says in `table` what is not so of the part in `folder`: names the keys, with both values.
    /// Those in `free` are the recipe's to choose.
    pub(crate) fn agree<T: Serialize>(
        &self,
        table: &str,
        (said, found): (&T, &T),
        folder: &Path,
        free: &[&str],
    ) -> Result<(), Invalid> {
        let [said, found] =
            [said, found].map(|config| Table::try_from(config).map(|table| values(&table)).unwrap_or_default());
        let differing = self.0.iter().filter_map(|key| {
            let field = key.strip_prefix(table)?.strip_prefix('.')?;
            let is_free = free.iter().any(|free| field == *free || field.starts_with(&format!("{free}.")));
            let shown = |value: Option<&Value>| value.map_or("none".to_string(), Value::to_string);
            let both = [said.get(field), found.get(field)];
            (!is_free && both[0] != both[1]).then(|| (key, both.map(shown)))
        });
        let differing: Vec<_> = differing.collect();
        let Some((first, _)) = differing.first() else {
            return Ok(());
        };
        let lines = differing.iter().map(|(key, [said, found])| match key == first {
            true => format!("{said} here, {found} in {}", folder.display()),
            false => format!("{key}: {said} here, {found} there"),
        });
        let lines: Vec<String> = lines.collect();
        Err(Invalid::new(*first, format!("{}; leave out what the pretrained part says", lines.join("; "))))
    }
}

/// The values of a table by their dotted keys; those of a list of tables by its entries' numbers, `phase2.rules.0.match`.
pub(crate) fn values(table: &Table) -> BTreeMap<String, Value> {
    let mut values = BTreeMap::new();
    for (key, value) in table {
        flatten(key.clone(), value, &mut values);
    }
    values
}

fn flatten(key: String, value: &Value, values: &mut BTreeMap<String, Value>) {
    match value {
        Value::Table(table) => table.iter().for_each(|(name, value)| flatten(format!("{key}.{name}"), value, values)),
        Value::Array(list) if list.iter().any(Value::is_table) => {
            let numbered = list.iter().enumerate();
            numbered.for_each(|(i, value)| flatten(format!("{key}.{i}"), value, values));
        }
        value => drop(values.insert(key, value.clone())),
    }
}
