//! Every key that a recipe may have, with type, default and meaning: names, types and meanings from the JSON schema of the structs
//! that recipes are parsed into, which takes their doc comments over, defaults from recipes that say no more than they must.

use super::Recipe;
use super::parse::choices;
use anyhow::{Result, bail};
use schemars::schema_for;
use serde_json::Value;
use std::path::Path;
use toml::Table;

/// The default of keys whose meaning says what it depends on.
const DEPENDS: &str = "depends";

/// Two recipes that have every table between them, and of the other keys only those that are needed.
pub(super) const SMALLEST: [&str; 2] = [
    "[run]\nname = \"x\"\n[data]\nsource = \"scenes\"\n[model.qformer]\n[model.lora.vision]\n[model.lora.adapter]\n\
     [model.lora.decoder]\n[phase1]\nsteps = 1\nbatch_size = 2\nlr = 1e-3\nrules = [{ match = \"*\" }]\n\
     [phase2]\nsteps = 1\nbatch_size = 2\nlr = 1e-3\nrules = [{ match = \"*\" }]\n",
    "[run]\nname = \"x\"\n[data]\nsource = \"scenes\"\n[dual]\n\
     [contrast]\nsteps = 1\nbatch_size = 2\nlr = 1e-3\nrules = [{ match = \"*\" }]\n",
];

/// A table of the recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// Its place, as in `model.vision`; `phase1.rules` is a list of such tables.
    pub path: String,
    pub about: String,
    /// Its keys that are no tables themselves.
    pub keys: Vec<Key>,
    /// Those that are.
    pub tables: Vec<String>,
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub name: String,
    /// What may stand there.
    pub kind: String,
    /// What holds where it is left out, `none` if nothing does; `needed` where it may not be, `depends` where `about` has more to
    /// say.
    pub default: String,
    /// What it sets.
    pub about: String,
}

/// All sections, in the order of the recipe.
pub fn sections() -> Vec<Section> {
    let schema = schema_for!(Recipe).to_value();
    let recipes =
        SMALLEST.map(|text| Recipe::parse(text, Path::new("recipe"), &[]).expect("the smallest recipe is one"));
    let walk = Walk {
        root: &schema,
        defaults: recipes.each_ref().map(|recipe| Table::try_from(recipe).expect("a recipe is a table")),
    };
    let mut found = Vec::new();
    walk.table("", &schema, String::new(), &mut found);
    // A schema's names are sorted, a recipe's tables are in order.
    let written = recipes.map(|recipe| recipe.to_toml()).concat();
    found.sort_by_key(|section| {
        let first = section.path.split('.').next().unwrap_or_default();
        written.find(&format!("[{first}")).unwrap_or(usize::MAX)
    });
    found
}

/// The section of this place and those within it; where the place is a key's, that key alone.
///
/// # Errors
/// When there is neither, with what there is.
pub fn sections_at(place: &str) -> Result<Vec<Section>> {
    let place = place.trim_matches(['[', ']']);
    let all = sections();
    let within = |section: &&Section| {
        let rest = section.path.strip_prefix(place);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let found: Vec<Section> = all.iter().filter(within).cloned().collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let key = place.rsplit_once('.').and_then(|(table, name)| {
        let mut section = all.iter().find(|section| section.path == table)?.clone();
        section.keys.retain(|key| key.name == name);
        section.tables.clear();
        (!section.keys.is_empty()).then_some(section)
    });
    let names: Vec<&str> = all.iter().map(|section| section.path.as_str()).collect();
    match key {
        Some(section) => Ok(vec![section]),
        None => bail!("`{place}` is no section or key of a recipe{}", choices(place, &names)),
    }
}

/// Sections as plain text.
pub fn text(sections: &[Section]) -> String {
    let mut text = String::new();
    for section in sections {
        text += &format!("[{}]\n{}\n", section.path, section.about);
        for Key { name, kind, default, about } in &section.keys {
            text += &format!("\n  {name} = {kind}; {}\n", said(default));
            text += &format!("      {about}\n");
        }
        for table in &section.tables {
            text += &format!("\n  [{}.{table}]\n", section.path);
        }
        text += "\n";
    }
    text
}

fn said(default: &str) -> String {
    match default {
        "needed" => default.into(),
        DEPENDS => "the default depends".into(),
        other => format!("default {other}"),
    }
}

/// The page of all sections: `docs/recipe.md`.
pub fn markdown() -> String {
    let mut page = String::from(
        "# The keys of a recipe\n\nMade by `lenslet recipe keys --markdown` from the doc comments; `lenslet recipe keys SECTION` \
         prints a part of it. A recipe is one TOML file; `--set SECTION.KEY=VALUE` changes a value for one run. Every other key \
         is an error.\n",
    );
    for section in sections() {
        page += &format!("\n## `[{}]`\n\n{}\n", section.path, section.about);
        if !section.keys.is_empty() {
            page += "\n| key | type | default | meaning |\n|---|---|---|---|\n";
        }
        for Key { name, kind, default, about } in &section.keys {
            let default = match default.as_str() {
                "none" | "needed" | DEPENDS => default.clone(),
                value => format!("`{value}`"),
            };
            page += &format!("| `{name}` | {kind} | {default} | {} |\n", about.replace('|', "\\|"));
        }
    }
    page
}

/// A walk through the schema of recipes.
struct Walk<'s> {
    root: &'s Value,
    defaults: [Table; 2],
}

impl<'s> Walk<'s> {
    /// Adds the section of a table's schema and those of the tables in it.
    fn table(&self, path: &str, schema: &'s Value, about: String, found: &mut Vec<Section>) {
        let mut section = Section { path: path.into(), about, keys: Vec::new(), tables: Vec::new() };
        let mut below = Vec::new();
        for (name, field, needed) in fields(schema) {
            let (place, about) = (join(path, name), paragraph(field));
            let (value, listed) = self.value(field);
            if !fields(value).is_empty() {
                section.tables.push(name.into());
                below.push((place, value, about));
                continue;
            }
            let mut default = default(&self.defaults, &place.replace("dual.vision.", "model.vision."), needed);
            let about = match default.as_str() {
                _ if value.get("const").is_some() => "Which kind.",
                "none" => &about,
                _ => without_default(&about),
            };
            if is_told_otherwise(&default, about) {
                default = DEPENDS.into();
            }
            section.keys.push(Key {
                kind: match value.get("const") {
                    Some(_) => choices_of(schema, |kind| &kind["properties"][name]),
                    None => words(value, listed),
                },
                about: about.into(),
                name: name.into(),
                default,
            });
        }
        section.keys.sort_by_key(|key| key.default != "needed");
        if !path.is_empty() {
            found.push(section);
        }
        for (place, table, about) in below {
            // The field often begins as its struct does.
            let own = paragraph(table);
            let same = |long: &str, short: &str| long.starts_with(short.trim_end_matches('.'));
            let about = match own {
                own if same(&own, &about) => own,
                own if same(&about, &own) => about,
                own => format!("{about} {own}"),
            };
            self.table(&place, table, about, found);
        }
    }

    /// What a key's value is like, or each of them where it is a list.
    fn value(&self, schema: &'s Value) -> (&'s Value, bool) {
        if let Some(name) = schema["$ref"].as_str().and_then(|at| at.rsplit('/').next()) {
            return self.value(&self.root["$defs"][name]);
        }
        match (&schema["anyOf"][0], &schema["items"]) {
            // Of a type and `null` the type.
            (some @ Value::Object(_), _) => self.value(some),
            (_, item @ Value::Object(_)) => (self.value(item).0, true),
            _ => (schema, false),
        }
    }
}

/// The keys of a table's schema, and whether each is needed; none of another value's. Those of a table of several kinds are
/// the keys of all.
fn fields(schema: &Value) -> Vec<(&str, &Value, bool)> {
    let kinds = schema["oneOf"].as_array().map_or(std::slice::from_ref(schema), Vec::as_slice);
    let mut all: Vec<(&str, &Value, bool)> = Vec::new();
    for kind in kinds {
        for (name, field) in kind["properties"].as_object().into_iter().flatten() {
            let needed = kind["required"].as_array().is_some_and(|needed| needed.iter().any(|key| key == name));
            if all.iter().all(|(known, ..)| known != name) {
                all.push((name, field, needed));
            }
        }
    }
    all
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.into(),
        path => format!("{path}.{name}"),
    }
}

/// What holds at a place of the smallest recipes. Of a list of tables the first tells it.
fn default(recipes: &[Table], place: &str, needed: bool) -> String {
    if needed {
        return "needed".into();
    }
    let at = |recipe: &Table| {
        let mut parts = place.split('.');
        let first = recipe.get(parts.next()?)?.clone();
        parts.try_fold(first, |value, part| match value {
            toml::Value::Table(table) => table.get(part).cloned(),
            toml::Value::Array(list) => list.first()?.get(part).cloned(),
            _ => None,
        })
    };
    recipes.iter().find_map(at).map_or("none".into(), |value| value.to_string())
}

/// A type in a reader's words.
fn words(schema: &Value, listed: bool) -> String {
    let kind = &schema["type"];
    let plain = match kind[0].as_str().or(kind.as_str()) {
        _ if schema.get("oneOf").is_some() => return choices_of(schema, |name| name),
        Some("integer") => "whole number",
        Some("number") => "number",
        Some("boolean") => "true or false",
        _ => "text",
    };
    match listed {
        true => format!("list of {plain}s"),
        false => plain.into(),
    }
}

/// The names that a schema chooses from.
fn choices_of(schema: &Value, name: impl Fn(&Value) -> &Value) -> String {
    let all = schema["oneOf"].as_array().into_iter().flatten();
    let names: Vec<String> = all.map(|one| name(one)["const"].to_string()).collect();
    names.join(", ")
}

/// The first paragraph of a doc comment.
fn paragraph(schema: &Value) -> String {
    let about = schema["description"].as_str().unwrap_or_default();
    about.split("\n\n").next().unwrap_or_default().replace('\n', " ").replace("None: ", "without it: ")
}

/// Without a default at the end, which stands by itself.
fn without_default(about: &str) -> &str {
    match about.rsplit_once(" Default ") {
        Some((before, value)) if !value.contains(' ') => before,
        _ => about,
    }
}

/// Whether a meaning tells another default than holds in the smallest recipes, which are about scenes.
fn is_told_otherwise(default: &str, about: &str) -> bool {
    let told = about.split_once(" Default ").and_then(|(_, rest)| rest.split_whitespace().next());
    let plain = |word: &str| word.trim_matches(|c: char| !c.is_alphanumeric() && c != '-').to_string();
    default != "none" && told.is_some_and(|told| plain(told) != plain(default))
}
