//! Folders of PEFT that hold an adapter alone: `adapter_config.json` and `adapter_model.safetensors`, to be read on top of the
//! model that they name.

use super::fields::Fields;
use super::hub;
use crate::error::Result;
use crate::weights::{Checkpoint, Module, Overlay};
use fancy_regex::Regex;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// What an adapter is for, and its settings.
const CONFIG: &str = "adapter_config.json";
/// Its tensors.
const TENSORS: &str = "adapter_model.safetensors";
/// Settings that do not change what an adapter computes: how it was made, and what is only for training.
const WITHOUT_EFFECT: [&str; 15] = [
    "arrow_config",
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "loftq_config",
    "lora_dropout",
    "megatron_core",
    "modules_to_save",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "revision",
    "runtime_config",
    "task_type",
    "bias",
];
/// Settings that are supported only while they are false.
const OFF: [&str; 6] = ["ensure_weight_tying", "fan_in_fan_out", "lora_bias", "use_bdlora", "use_dora", "use_qalora"];
/// Ways to start an adapter that change the base's weights, which then are not those of the base.
const CHANGES_BASE: [&str; 4] = ["corda", "loftq", "olora", "pissa"];

/// The base of a folder that holds an adapter alone; None for other folders.
///
/// # Errors
/// When the base is not on this machine, or is such a folder itself.
fn base(folder: &Path) -> Result<Option<PathBuf>> {
    if !is_adapter(folder) {
        return Ok(None);
    }
    const FIELD: &str = "base_model_name_or_path";
    let fields = Fields::open(&folder.join(CONFIG))?;
    let name: String = fields.need(FIELD)?;
    let revision = fields.optional::<String>("revision")?.map_or(String::new(), |revision| format!("@{revision}"));
    let beside = Some(folder.join(&name)).filter(|beside| !Path::new(&name).is_dir() && beside.is_dir());
    let hub_name = if Path::new(&name).is_dir() { name.clone() } else { name.clone() + &revision };
    let found = match beside {
        Some(beside) => Ok(beside),
        None => hub::resolve(&hub_name),
    };
    match found {
        Ok(base) if is_adapter(&base) => fields.bad(
            FIELD,
            format!("`{name}` is an adapter itself; merge it into its own base first"),
        ),
        Ok(base) => Ok(Some(base)),
        Err(_) if name.ends_with("-4bit") => fields.bad(
            FIELD,
            format!("`{name}` holds quantised weights, which are not read; put the name or folder of the base without them there"),
        ),
        Err(error) => fields.bad(
            FIELD,
            format!("{error}\nor put the path of the base model's folder there"),
        ),
    }
}

/// Whether a folder holds an adapter alone, which is read on top of its base.
pub fn is_adapter(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).is_file();
    has(CONFIG) && !has("model.safetensors") && !has("model.safetensors.index.json")
}

/// A file of a model's folder; what an adapter's folder does not have is its base's.
///
/// # Errors
/// When the base is not to be found.
pub(crate) fn file(folder: &Path, name: &str) -> Result<PathBuf> {
    let own = folder.join(name);
    if own.is_file() {
        return Ok(own);
    }
    Ok(base(folder)?.map_or(own, |base| base.join(name)))
}

/// The weights in a folder, an adapter's on top of its base's.
///
/// # Errors
/// Those of [`Checkpoint::open`]; when a setting of the adapter is not supported, or its tensors do not fit the settings.
pub(super) fn checkpoint(folder: &Path) -> Result<Checkpoint> {
    let Some(base) = base(folder)? else {
        return Checkpoint::open(folder);
    };
    let settings = Fields::open(&folder.join(CONFIG))?;
    let saved: Vec<String> = settings.or("modules_to_save", Vec::new())?;
    let path = settings.path().to_path_buf();
    let overlay = Overlay::open(&folder.join(TENSORS), modules(settings)?)?;
    let is_there = |module: &String| {
        overlay
            .whole_names()
            .any(|name| name.split('.').any(|part| part == module) || name.starts_with(module.as_str()))
    };
    if let Some(missing) = saved.iter().find(|module| !is_there(module)) {
        return Fields::open(&path)?.bad("modules_to_save", format!("`{missing}` has no tensor in {TENSORS}"));
    }
    let base = Checkpoint::open(&base)?;
    let saves = |module: &str| saved.iter().any(|name| name == module);
    let tied = !base.names().any(|name| name.ends_with("lm_head.weight"));
    if tied && saves("embed_tokens") != saves("lm_head") {
        return Fields::open(&path)?.bad(
            "modules_to_save",
            "names one of `embed_tokens` and `lm_head`, which are one tensor in the base: PEFT trains a copy beside it, which no \
             file of the base's kind holds",
        );
    }
    Ok(base.with_overlay(overlay))
}

/// Which layers a setting names.
enum Modules {
    /// Layers whose name is one of these or ends in `.` and one of these.
    List(Vec<String>),
    /// Layers whose whole name fits.
    Pattern(Regex),
    /// All linear layers but the output layer.
    AllLinear,
}

impl Modules {
    fn read(fields: &Fields, field: &str) -> Result<Option<Modules>> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected a list of layers, a regular expression or \"all-linear\"")]
        enum Said {
            List(Vec<String>),
            Text(String),
        }
        Ok(match fields.optional(field)? {
            None => None,
            Some(Said::List(list)) => Some(Modules::List(list)),
            Some(Said::Text(all)) if all == "all-linear" => Some(Modules::AllLinear),
            Some(Said::Text(pattern)) => Some(Modules::Pattern(regex(fields, field, &format!("^(?:{pattern})$"))?)),
        })
    }

    fn name(&self, layer: &str) -> bool {
        match self {
            Modules::List(list) => list.iter().any(|name| {
                layer.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }),
            Modules::Pattern(regex) => regex.is_match(layer).unwrap_or(false),
            Modules::AllLinear => layer != "lm_head",
        }
    }
}

fn regex(fields: &Fields, field: &str, pattern: &str) -> Result<Regex> {
    match Regex::new(pattern) {
        Ok(regex) => Ok(regex),
        Err(error) => fields.bad(field, format!("`{pattern}` is not a regular expression that is supported: {error}")),
    }
}

/// Ranks or numerators of the scale by patterns of layers' names.
fn patterns<T: serde::de::DeserializeOwned>(fields: &Fields, field: &str) -> Result<Vec<(Regex, T)>> {
    let said = fields.table(field)?;
    said.names().map(|name| Ok((regex(fields, field, &format!("^(?:.*\\.)?(?:{name})$"))?, said.need(name)?))).collect()
}

/// What an adapter's settings say of a layer.
fn modules(fields: Fields) -> Result<Module> {
    check(&fields)?;
    let Some(target) = Modules::read(&fields, "target_modules")? else {
        return fields.bad("target_modules", "is missing");
    };
    let exclude = Modules::read(&fields, "exclude_modules")?;
    let (r, alpha) = (fields.or::<usize>("r", 8)?, fields.or::<f64>("lora_alpha", 8.0)?);
    let rslora: bool = fields.or("use_rslora", false)?;
    let ranks = patterns::<usize>(&fields, "rank_pattern")?;
    let alphas = patterns::<f64>(&fields, "alpha_pattern")?;
    let transformed = transformed(&fields)?;
    fields.finish()?;
    Ok(Box::new(move |layer| {
        let named =
            target.name(layer) && transformed(layer) && !exclude.as_ref().is_some_and(|exclude| exclude.name(layer));
        let rank = pattern_of(&ranks, layer).unwrap_or(r);
        let root = if rslora { (rank as f64).sqrt() } else { rank as f64 };
        Ok(named.then(|| (rank, pattern_of(&alphas, layer).unwrap_or(alpha) / root)))
    }))
}

fn pattern_of<T: Copy>(patterns: &[(Regex, T)], layer: &str) -> Option<T> {
    let fits = |(regex, _): &&(Regex, T)| regex.is_match(layer).unwrap_or(false);
    patterns.iter().find(fits).map(|(_, value)| *value)
}

/// Fails at the first setting that is not supported.
fn check(fields: &Fields) -> Result<()> {
    fields.only("peft_type", "LORA".to_string())?;
    for name in OFF {
        fields.only(name, false)?;
    }
    match fields.or("bias", "none".to_string())?.as_str() {
        "none" | "all" | "lora_only" => {}
        other => return fields.bad("bias", format!("`{other}`, expected none, all or lora_only")),
    }
    const START: &str = "init_lora_weights";
    if let Some(Value::String(start)) = fields.optional(START)?
        && CHANGES_BASE.iter().any(|changes| start.starts_with(changes))
    {
        return fields.bad(
            START,
            format!(
                "`{start}` changes the base's weights, too; save the adapter converted to one of the unchanged base"
            ),
        );
    }
    if fields.or("loftq_config", Map::new())?.is_empty() {
        fields.ignore(&WITHOUT_EFFECT);
        return Ok(());
    }
    fields.bad("loftq_config", "is not supported: the base's weights are changed by it")
}

/// Says of a layer by its name whether it is one of some.
type Selects = Box<dyn Fn(&str) -> bool + Send + Sync>;

/// Which blocks have adapters: all, or those that `layers_to_transform` names.
fn transformed(fields: &Fields) -> Result<Selects> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected one or a list")]
    enum OneOrMany<T> {
        One(T),
        Many(Vec<T>),
    }
    fn many<T: serde::de::DeserializeOwned>(fields: &Fields, field: &str) -> Result<Vec<T>> {
        Ok(match fields.optional(field)? {
            None => Vec::new(),
            Some(OneOrMany::One(one)) => vec![one],
            Some(OneOrMany::Many(many)) => many,
        })
    }
    let blocks: Vec<usize> = many(fields, "layers_to_transform")?;
    let lists: Vec<String> = many(fields, "layers_pattern")?;
    Ok(Box::new(move |layer| {
        let parts: Vec<&str> = layer.split('.').collect();
        let number = parts.windows(2).find_map(|pair| {
            let known = lists.is_empty() || lists.iter().any(|list| list == pair[0]);
            pair[1].parse::<usize>().ok().filter(|_| known)
        });
        blocks.is_empty() || number.is_some_and(|number| blocks.contains(&number))
    }))
}
