//! Every key that a recipe may have, with type, default and meaning. Names, types and meanings are read from the structs that
//! recipes are parsed into and their doc comments, defaults from recipes that say no more than they must.

use super::Recipe;
use super::parse::choices;
use anyhow::{Result, bail};
use std::path::Path;
use toml::{Table, Value};

/// The files in which those structs stand.
const SOURCES: [&str; 12] = [
    include_str!("../recipe.rs"),
    include_str!("phase.rs"),
    include_str!("pretrained.rs"),
    include_str!("../data/scenes/dialogue.rs"),
    include_str!("../data/scenes/world.rs"),
    include_str!("../../../model/src/config/mod.rs"),
    include_str!("../../../model/src/config/vision.rs"),
    include_str!("../../../model/src/config/adapter.rs"),
    include_str!("../../../model/src/config/decoder.rs"),
    include_str!("../../../model/src/config/dual.rs"),
    include_str!("../../../model/src/config/lora.rs"),
    include_str!("../../../model/src/groups.rs"),
];
/// And one enum of images.
const FIT: &str = include_str!("../../../model/src/image/fit.rs");
/// The default of keys whose meaning says what it depends on.
const DEPENDS: &str = "depends";
/// The phases' common fields, as the macro that declares them names their struct.
const COMMON: &str = "$name";

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
    /// What it is about.
    pub about: String,
    /// Its keys that are no tables themselves.
    pub keys: Vec<Key>,
    /// Those that are.
    pub tables: Vec<String>,
}

/// A key of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Its name.
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
    let items: Vec<Item> = SOURCES.into_iter().chain([FIT]).flat_map(read).collect();
    let defaults = SMALLEST.map(|text| {
        let recipe = Recipe::parse(text, Path::new("recipe"), &[]).expect("the smallest recipe is one");
        Table::try_from(&recipe).expect("a recipe is a table")
    });
    let mut found = Vec::new();
    let root = item(&items, "Recipe").expect("the recipe's struct");
    walk(&items, &defaults, "", root, String::new(), &mut found);
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
        for Key {
            name,
            kind,
            default,
            about,
        } in &section.keys
        {
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
        for Key {
            name,
            kind,
            default,
            about,
        } in &section.keys
        {
            let default = match default.as_str() {
                "none" | "needed" | DEPENDS => default.clone(),
                value => format!("`{value}`"),
            };
            page += &format!("| `{name}` | {kind} | {default} | {} |\n", about.replace('|', "\\|"));
        }
    }
    page
}

/// Adds the section of a struct and those of the structs in it.
fn walk(items: &[Item], defaults: &[Table], path: &str, from: &Item, about: String, found: &mut Vec<Section>) {
    let mut section = Section {
        path: path.into(),
        about,
        keys: Vec::new(),
        tables: Vec::new(),
    };
    let mut below = Vec::new();
    for field in fields(items, from) {
        let place = join(path, &field.name);
        match item(items, inner(&field.kind)) {
            // The key that tells the kinds of a table apart is no table.
            Some(table) if table.is_table() && table.name != from.name => {
                section.tables.push(field.name.clone());
                below.push((place, table, field.about.clone()));
            }
            found => {
                let mut default = default(defaults, &place, field.has_default);
                let about = match default.as_str() {
                    "none" => &field.about,
                    _ => without_default(&field.about),
                };
                if is_told_otherwise(&default, about) {
                    default = DEPENDS.into();
                }
                section.keys.push(Key {
                    kind: words(&field.kind, found),
                    about: about.to_string(),
                    name: field.name,
                    default,
                });
            }
        }
    }
    if !path.is_empty() {
        found.push(section);
    }
    for (place, table, about) in below {
        // The field often begins as its struct does.
        let same = |long: &str, short: &str| long.starts_with(short.trim_end_matches('.'));
        let about = match &table.about {
            own if same(own, &about) => own.clone(),
            own if same(&about, own) => about,
            own => format!("{about} {own}"),
        };
        walk(items, defaults, &place, table, about, found);
    }
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.into(),
        path => format!("{path}.{name}"),
    }
}

/// What holds at a place of the smallest recipes. Of a list of tables the first tells it.
fn default(recipes: &[Table], place: &str, has_default: bool) -> String {
    if !has_default {
        return "needed".into();
    }
    let at = |recipe: &Table| {
        let mut parts = place.split('.');
        let first = recipe.get(parts.next()?)?.clone();
        parts.try_fold(first, |value, part| match value {
            Value::Table(table) => table.get(part).cloned(),
            Value::Array(list) => list.first()?.get(part).cloned(),
            _ => None,
        })
    };
    recipes
        .iter()
        .find_map(at)
        .map_or("none".into(), |value| value.to_string())
}

/// A type in a reader's words.
fn words(kind: &str, found: Option<&Item>) -> String {
    if let Some(item) = found {
        let names: Vec<String> = item.variants.iter().map(|name| format!("\"{name}\"")).collect();
        return names.join(", ");
    }
    let plain = match inner(kind) {
        "usize" | "u64" | "u32" | "i64" => "whole number",
        "f64" => "number",
        "bool" => "true or false",
        "PathBuf" => "path",
        _ => "text",
    };
    match kind.contains("Vec<") {
        true => format!("list of {plain}s"),
        false => plain.into(),
    }
}

/// The type within `Option` and `Vec`, without its module.
fn inner(kind: &str) -> &str {
    let kind = kind.rsplit('<').next().unwrap_or(kind).trim_end_matches('>');
    kind.rsplit("::").next().unwrap_or(kind)
}

/// A struct or an enum of a source file.
#[derive(Debug, Default)]
struct Item {
    name: String,
    about: String,
    fields: Vec<Field>,
    /// As they are written in a recipe.
    variants: Vec<String>,
    /// Of a phase, which has the common fields, too.
    is_phase: bool,
    /// Every field may be left out.
    has_default: bool,
    is_enum: bool,
}

#[derive(Debug, Clone)]
struct Field {
    name: String,
    kind: String,
    about: String,
    has_default: bool,
}

impl Item {
    fn is_table(&self) -> bool {
        !self.is_enum || !self.fields.is_empty()
    }
}

fn item<'i>(items: &'i [Item], name: &str) -> Option<&'i Item> {
    items.iter().find(|item| item.name == name)
}

/// An item's fields: of a phase its own behind those of all phases, but in front of the rules.
fn fields(items: &[Item], of: &Item) -> Vec<Field> {
    let mut all = of.fields.clone();
    if of.is_phase {
        let common = item(items, COMMON).map_or(Vec::new(), |common| common.fields.clone());
        let (rules, common): (Vec<Field>, Vec<Field>) = common.into_iter().partition(|field| field.name == "rules");
        all = [common, all, rules].concat();
    }
    all
}

/// The items of a source as rustfmt lays it out, one field or variant a line.
fn read(source: &str) -> Vec<Item> {
    let (mut items, mut open) = (Vec::new(), None::<Item>);
    let (mut about, mut attributes) = (Vec::new(), String::new());
    let (mut in_variant, mut in_phase) = (false, false);
    for line in source.lines().map(str::trim) {
        if let Some(doc) = line.strip_prefix("///") {
            about.push(doc.trim());
            continue;
        }
        if line.starts_with("#[") {
            attributes += line;
            continue;
        }
        let declared = ["pub struct ", "pub enum "]
            .iter()
            .find_map(|start| line.strip_prefix(start));
        let phase = line
            .strip_suffix(" {")
            .filter(|name| in_phase && open.is_none() && !name.contains(' '));
        match (&mut open, declared.and_then(|rest| rest.strip_suffix(" {")).or(phase)) {
            (None, Some(name)) => {
                open = Some(Item {
                    name: name.into(),
                    about: sentence(&about),
                    is_phase: phase.is_some(),
                    has_default: attributes.contains("default"),
                    is_enum: line.starts_with("pub enum"),
                    ..Item::default()
                });
                if let Some(tag) = value_of(&attributes, "tag = \"") {
                    let tag = Field {
                        name: tag.into(),
                        kind: name.into(),
                        about: "Which kind.".into(),
                        has_default: false,
                    };
                    open.iter_mut().for_each(|item| item.fields.push(tag.clone()));
                }
            }
            (None, None) => in_phase = in_phase && line != "}" || line == "phase! {",
            (Some(_), _) if line.starts_with('}') && !in_variant => items.extend(open.take()),
            (Some(_), _) if line.starts_with('}') => in_variant = false,
            (Some(item), _) if item.is_enum && !in_variant => {
                let name = line.split([',', ' ', '(']).next().unwrap_or_default();
                if !attributes.contains("skip") && !name.is_empty() {
                    item.variants.push(snake_case(name));
                }
                in_variant = line.ends_with('{');
            }
            (Some(item), _) => item.add(line, sentence(&about), &attributes),
        }
        about.clear();
        attributes.clear();
    }
    items
}

impl Item {
    /// Adds the field that a line declares, if it does.
    fn add(&mut self, line: &str, about: String, attributes: &str) {
        let line = line.trim_start_matches("pub ").trim_end_matches(',');
        let Some((name, kind)) = line.split_once(": ").filter(|(name, _)| !name.contains(['$', ' '])) else {
            return;
        };
        let kind = kind.split(" = ").next().unwrap_or(kind);
        let name = value_of(attributes, "rename = \"").unwrap_or(name.trim_start_matches("r#"));
        if self.fields.iter().any(|field| field.name == name) {
            return;
        }
        self.fields.push(Field {
            name: name.into(),
            about,
            has_default: self.has_default
                || self.is_phase
                || attributes.contains("default")
                || kind.starts_with("Option<"),
            kind: kind.into(),
        });
    }
}

/// What stands between `start` and the next quote.
fn value_of<'a>(attributes: &'a str, start: &str) -> Option<&'a str> {
    attributes.split_once(start)?.1.split('"').next()
}

/// The first paragraph of a doc comment.
fn sentence(lines: &[&str]) -> String {
    let lines: Vec<&str> = lines.iter().copied().take_while(|line| !line.is_empty()).collect();
    lines.join(" ")
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
    let told = about
        .split_once(" Default ")
        .and_then(|(_, rest)| rest.split_whitespace().next());
    let plain = |word: &str| {
        word.trim_matches(|c: char| !c.is_alphanumeric() && c != '-')
            .to_string()
    };
    default != "none" && told.is_some_and(|told| plain(told) != plain(default))
}

fn snake_case(name: &str) -> String {
    let mut text = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}
