//! From text to a checked recipe, and from what serde says to what a reader needs: line, key, expectation, suggestion.

use super::error::{Invalid, RecipeError};
use super::{Given, Recipe, Source, TokenizerKind, check, paths};
use std::ops::Range;
use std::path::Path;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

pub(super) fn recipe(text: &str, file: &Path, overrides: &[String]) -> Result<Recipe, RecipeError> {
    let mut table: Table = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| line_of(text, span.start));
        RecipeError::in_file(file, line, format!("not TOML: {}", error.message()))
    })?;
    let written = table.clone();
    for argument in overrides {
        let set = set(&mut table, argument).and_then(|()| adds_no_section(&written, argument));
        set.map_err(|message| RecipeError {
            set: Some(argument.clone()),
            ..RecipeError::in_file(file, None, message)
        })?;
    }
    typed(&table)
        .and_then(|mut recipe| {
            recipe.given = Given::of(&table);
            defaults(&mut recipe);
            paths::expand(&mut recipe)?;
            check::recipe(&recipe)?;
            Ok(recipe)
        })
        .map_err(|invalid| located(invalid, text, file, overrides))
}

/// What is wrong with a key, with its line or the override that set it.
pub(super) fn located(Invalid { key, message }: Invalid, text: &str, file: &Path, overrides: &[String]) -> RecipeError {
    RecipeError {
        line: line_of_key(text, &key),
        set: overrides.iter().rev().find(|set| sets(set, &key)).cloned(),
        key,
        ..RecipeError::in_file(file, None, message)
    }
}

/// Applies one `a.b=value`: the value is TOML, or a bare word taken as a string.
fn set(table: &mut Table, argument: &str) -> Result<(), String> {
    let (path, value) = argument.split_once('=').ok_or("expected KEY=VALUE, as in phase1.lr=1e-3")?;
    let value = parse_value(value.trim());
    let keys: Vec<&str> = path.trim().split('.').map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(format!("`{path}` is not a key; expected TABLE.KEY, as in phase1.lr"));
    }
    let (last, tables) = keys.split_last().expect("split gives at least one part");
    let mut place = &mut *table;
    for (depth, key) in tables.iter().enumerate() {
        let inner = place.entry(*key).or_insert_with(|| Value::Table(Table::new()));
        let index = keys.get(depth + 1).and_then(|next| next.parse::<usize>().ok());
        place = match (inner, index) {
            (Value::Table(inner), _) => inner,
            (Value::Array(items), Some(index)) => return set_in_array(items, index, &keys[depth + 2..], value),
            _ => return Err(format!("`{key}` is a value, not a table")),
        };
    }
    place.insert(last.to_string(), value);
    Ok(())
}

/// Fails where a key within a table would add that table, and with it a part of the run that the recipe has not: an empty one
/// means something else than none.
fn adds_no_section(written: &Table, argument: &str) -> Result<(), String> {
    let path = argument.split('=').next().unwrap_or_default();
    let Some((section, _)) = path.rsplit_once('.') else {
        return Ok(());
    };
    let section = section.split('.').map(str::trim).collect::<Vec<_>>().join(".");
    let mut table = written;
    for key in section.split('.') {
        match table.get(key) {
            Some(Value::Table(inner)) => table = inner,
            // A list's entry, or what `set` refuses.
            Some(_) => return Ok(()),
            None => {
                let mut with = written.clone();
                set(&mut with, &format!("{section}={{}}"))?;
                return match (typed(written), typed(&with)) {
                    (Err(_), _) => Ok(()),
                    (Ok(plain), Ok(with)) if with == plain => Ok(()),
                    _ => Err(format!(
                        "the recipe has no [{section}], which this would add; write the section, or set all of it: \
                         {section}={{…}}"
                    )),
                };
            }
        }
    }
    Ok(())
}

/// Sets `key` of the table at `index`: `rules.0.lr_scale=0.1`.
fn set_in_array(items: &mut [Value], index: usize, rest: &[&str], value: Value) -> Result<(), String> {
    let count = items.len();
    match (items.get_mut(index), rest) {
        (None, _) => Err(format!("there is no entry {index}; the list has {count}, counted from 0")),
        (Some(Value::Table(table)), [key]) => {
            table.insert(key.to_string(), value);
            Ok(())
        }
        (Some(item), []) => {
            *item = value;
            Ok(())
        }
        _ => Err("expected LIST.INDEX.KEY=VALUE".into()),
    }
}

fn parse_value(text: &str) -> Value {
    toml::from_str::<Table>(&format!("value = {text}"))
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.into()))
}

/// Whether the override `argument` gave `key`, a part of it, or the table it is in.
fn sets(argument: &str, key: &str) -> bool {
    let path = argument.split('=').next().unwrap_or_default().trim();
    let within = |outer: &str, inner: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    !key.is_empty() && within(path, key)
}

/// Fills in defaults that depend on the rest of the recipe.
fn defaults(recipe: &mut Recipe) {
    let given = recipe.given.clone();
    let (scenes, pretrained) = (recipe.data.source == Source::Scenes, recipe.pretrained.text().is_some());
    if !given.has("tokenizer") && pretrained {
        recipe.tokenizer.kind = TokenizerKind::Pretrained;
    } else if !given.has("tokenizer.kind") && scenes && !pretrained {
        recipe.tokenizer.kind = TokenizerKind::Words;
    }
    if let (Some(phase), false) = (&mut recipe.phase2, given.has("phase2.independent_turns")) {
        // A scene's dialogue refers back; where an image stands within the text, each turn would repeat it.
        phase.independent_turns = !scenes && !pretrained && recipe.model.image_token.is_none();
    }
    if !given.has("eval.attention") {
        recipe.eval.attention = recipe.eval.attention.min(recipe.eval.samples);
    }
}

/// The table as a recipe; what serde finds wrong is put under its key.
fn typed(table: &Table) -> Result<Recipe, Invalid> {
    let text = toml::to_string(table).map_err(|error| Invalid::new("", error.to_string()))?;
    toml::from_str(&text).map_err(|error| {
        let root = DeTable::parse(&text).ok();
        let key =
            error.span().zip(root.as_ref()).and_then(|(span, root)| key_at(root.get_ref(), &span)).unwrap_or_default();
        reword(key, error.message())
    })
}

/// The dotted key whose name or value lies at `span`.
fn key_at(table: &DeTable<'_>, span: &Range<usize>) -> Option<String> {
    table.iter().find_map(|(key, value)| {
        let inner = match value.get_ref() {
            DeValue::Table(inner) => key_at(inner, span),
            DeValue::Array(items) => items.iter().enumerate().find_map(|(index, item)| match item.get_ref() {
                DeValue::Table(inner) if item.span() != *span => Some(format!("{index}.{}", key_at(inner, span)?)),
                _ => (item.span() == *span).then(|| index.to_string()),
            }),
            _ => None,
        };
        let name = key.get_ref();
        match inner {
            Some(inner) => Some(format!("{name}.{inner}")),
            None => (key.span() == *span || value.span() == *span).then(|| name.to_string()),
        }
    })
}

/// The line on which `key`, or the innermost table of it that is there, stands in the text.
fn line_of_key(text: &str, key: &str) -> Option<usize> {
    let root = DeTable::parse(text).ok()?;
    let mut table = root.get_ref();
    let mut line = None;
    let mut parts = key.split('.');
    while let Some(part) = parts.next() {
        let Some((name, value)) = table.get_key_value(part) else {
            break;
        };
        line = Some(line_of(text, name.span().start));
        let value = match value.get_ref() {
            DeValue::Array(items) => {
                let Some(item) = parts.next().and_then(|index| items.get(index.parse::<usize>().ok()?)) else {
                    break;
                };
                line = Some(line_of(text, item.span().start));
                item
            }
            _ => value,
        };
        let DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    line
}

fn line_of(text: &str, offset: usize) -> usize {
    1 + text.as_bytes().iter().take(offset).filter(|byte| **byte == b'\n').count()
}

/// Puts serde's message in a recipe's words: keys, numbers, and the nearest known name.
fn reword(key: String, message: &str) -> Invalid {
    let message = message.lines().next().unwrap_or_default();
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (kind, name) = (message.split(" `").next().unwrap_or_default(), names.first().copied().unwrap_or_default());
    match kind {
        "missing field" => {
            let key = if key.is_empty() { name.to_string() } else { format!("{key}.{name}") };
            Invalid::new(key, format!("key `{name}` is missing"))
        }
        "unknown field" => Invalid::new(key, format!("unknown key `{name}`{}", choices(name, &names[1..]))),
        "unknown variant" => Invalid::new(key, format!("unknown value `{name}`{}", choices(name, &names[1..]))),
        _ => {
            let plain = message
                .replace("expected usize", "expected a whole number, 0 or more")
                .replace("expected u64", "expected a whole number, 0 or more")
                .replace("expected f64", "expected a number")
                .replace("expected a boolean", "expected true or false")
                .replace("invalid type: ", "found ")
                .replace("invalid value: ", "found ");
            Invalid::new(key, plain.replace("floating point", "number"))
        }
    }
}

/// `; did you mean …? Expected one of …`.
pub(super) fn choices(name: &str, known: &[&str]) -> String {
    let nearest = known.iter().min_by_key(|candidate| distance(name, candidate));
    let guess = nearest.filter(|candidate| distance(name, candidate) <= 1 + candidate.len() / 3);
    let expected = known.join("`, `");
    match guess {
        Some(guess) => format!("; did you mean `{guess}`? Expected one of `{expected}`"),
        None => format!("; expected one of `{expected}`"),
    }
}

/// Insertions, deletions and replacements that turn `a` into `b` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replace.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
