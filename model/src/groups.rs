//! Which parameters train, and how: patterns over names.

use crate::error::{Result, input};
use engine::{GroupSpec, Params, Shape, Update};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How parameters whose name fits a pattern are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupRule {
    /// A name in which `*` stands for anything: `vision_model.*`.
    #[serde(rename = "match")]
    pub pattern: String,
    /// Factor on the learning rate.
    #[serde(default = "one")]
    pub lr_scale: f64,
    /// Not trained.
    #[serde(default)]
    pub freeze: bool,
    /// Weight decay, where decay applies; the run's own when none.
    #[serde(default)]
    pub weight_decay: Option<f64>,
    /// Factor on the learning rate from each block to the one below it (Clark et al. 2020): what comes behind the last block
    /// learns at the full rate, that block at this factor of it, embeddings slowest.
    #[serde(default = "one")]
    pub layer_decay: f64,
}

impl GroupRule {
    /// Whether a parameter's name fits the pattern.
    pub fn fits(&self, name: &str) -> bool {
        fits(&self.pattern, name)
    }
}

fn one() -> f64 {
    1.0
}

/// Everything, trained as it is.
impl Default for GroupRule {
    fn default() -> GroupRule {
        GroupRule {
            pattern: "*".into(),
            lr_scale: 1.0,
            freeze: false,
            weight_decay: None,
            layer_decay: 1.0,
        }
    }
}

/// Groups the parameters by the first rule that fits each; those that fit none train as they are. Norms, biases,
/// embeddings, positions, queries and the temperature never decay. With `muon`, matrices inside blocks are stepped by
/// Muon, at that factor on the learning rate. Optimiser state made before is void.
///
/// ```
/// # use engine::{DType, Device};
/// # use model::{GroupRule, Vlm, VlmConfig, set_groups};
/// # let config = VlmConfig { vocab_size: 20, ..VlmConfig::default() };
/// # let (_, mut params) = Vlm::build(&config, &Device::cpu(), DType::F32, 0)?;
/// let freeze = GroupRule { pattern: "vision_model.*".into(), freeze: true, ..GroupRule::default() };
/// set_groups(&mut params, &[freeze], 0.05, None)?;
/// let id = params.find("vision_model.post_layernorm.weight").unwrap();
/// assert!(params.is_frozen(id));
/// # Ok::<(), model::Error>(())
/// ```
///
/// # Errors
/// When a rule fits no parameter at all.
pub fn set_groups(params: &mut Params, rules: &[GroupRule], weight_decay: f64, muon: Option<f64>) -> Result<()> {
    let entries: Vec<(String, Shape)> = params
        .ids()
        .map(|id| (params.name(id).to_string(), params.shape(id)))
        .collect();
    let (groups, place) = groups(&entries, rules, weight_decay, muon)?;
    Ok(params.regroup(groups, place)?)
}

/// The groups of parameters with these names and shapes, as [`set_groups`] makes them, and which of them is whose.
///
/// # Errors
/// When a rule fits no parameter at all.
pub(crate) fn groups(
    entries: &[(String, Shape)],
    rules: &[GroupRule],
    weight_decay: f64,
    muon: Option<f64>,
) -> Result<(Vec<GroupSpec>, impl Fn(&str, Shape) -> usize + use<>)> {
    let unused = |rule: &&GroupRule| !entries.iter().any(|(name, _)| fits(&rule.pattern, name));
    if let Some(rule) = rules.iter().find(unused) {
        return input("rule", format!("`{}` fits no parameter", rule.pattern));
    }
    let stacks = Stacks::of(entries.iter().map(|(name, _)| name.as_str()));
    let mut groups: Vec<GroupSpec> = Vec::new();
    for (name, shape) in entries {
        let group = group_of(name, *shape, (rules, &stacks), weight_decay, muon);
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let (known, rules) = (groups.clone(), rules.to_vec());
    let place = move |name: &str, shape: Shape| {
        let group = group_of(name, shape, (&rules, &stacks), weight_decay, muon);
        known.iter().position(|g| *g == group).unwrap_or(0)
    };
    Ok((groups, place))
}

fn group_of(
    name: &str,
    shape: Shape,
    (rules, stacks): (&[GroupRule], &Stacks),
    weight_decay: f64,
    muon: Option<f64>,
) -> GroupSpec {
    let rule = rules.iter().find(|rule| fits(&rule.pattern, name));
    let decay = rule.and_then(|rule| rule.weight_decay).unwrap_or(weight_decay);
    let by_muon = muon.is_some() && shape.len() == 2 && in_block(name);
    match rule {
        Some(rule) if rule.freeze => GroupSpec {
            frozen: true,
            ..GroupSpec::default()
        },
        _ => GroupSpec {
            update: if by_muon { Update::Muon } else { Update::AdamW },
            lr_scale: rule.map_or(1.0, |rule| rule.lr_scale * rule.layer_decay.powi(stacks.above(name)))
                * if by_muon { muon.unwrap_or(1.0) } else { 1.0 },
            weight_decay: if decays(name, shape) { decay } else { 0.0 },
            frozen: false,
        },
    }
}

/// How many blocks each stack of blocks has, by what stands in front of their numbers.
struct Stacks(BTreeMap<String, i32>);

impl Stacks {
    fn of<'n>(names: impl Iterator<Item = &'n str>) -> Stacks {
        let mut stacks = BTreeMap::new();
        for (stack, number) in names.filter_map(numbered) {
            let blocks = stacks.entry(stack.to_string()).or_insert(0);
            *blocks = number.saturating_add(1).max(*blocks);
        }
        Stacks(stacks)
    }

    /// Layers between a parameter and the end of its part of the model, its own among them if it is in a block.
    fn above(&self, name: &str) -> i32 {
        if let Some((stack, number)) = numbered(name) {
            return self.0[stack] - number;
        }
        let enters = ["embed", "pre_layrnorm", "query_tokens"]
            .iter()
            .any(|part| name.contains(part));
        let module = name.split('.').next().unwrap_or(name);
        let inside = self
            .0
            .iter()
            .filter(|(stack, _)| stack.split('.').next() == Some(module));
        match enters {
            true => inside.map(|(_, blocks)| blocks + 1).max().unwrap_or(0),
            false => 0,
        }
    }
}

/// What stands in front of the first number in a name, and that number.
fn numbered(name: &str) -> Option<(&str, i32)> {
    let mut start = 0;
    for part in name.split('.') {
        if let Ok(number) = part.parse() {
            return Some((&name[..start], number));
        }
        start += part.len() + 1;
    }
    None
}

/// Whether a parameter belongs to one of a stack of blocks: its name has a number in it.
fn in_block(name: &str) -> bool {
    name.split('.').any(|part| part.parse::<usize>().is_ok())
}

/// Only matrices of products decay: a table's rows are seen too rarely, everything else is a scale or a shift.
fn decays(name: &str, shape: Shape) -> bool {
    let table = ["embed_tokens", "word_embeddings", "position_embedding", "query_tokens"];
    shape.len() > 1 && !table.iter().any(|part| name.contains(part))
}

/// Whether `name` fits `pattern`, in which `*` stands for any characters or none.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(name) = name.strip_prefix(head) else {
        return false;
    };
    let ends = name.char_indices().map(|(i, _)| i).chain([name.len()]);
    ends.into_iter().any(|i| fits(rest, &name[i..]))
}

#[cfg(test)]
mod tests {
    use super::{GroupRule, fits, groups};
    use engine::Shape;

    #[test]
    fn layers_learn_the_slower_the_further_down_they_are() {
        let names = [
            ("vision_model.embeddings.patch_embedding.weight", 4),
            ("vision_model.encoder.layers.0.mlp.fc1.weight", 3),
            ("vision_model.encoder.layers.2.mlp.fc1.weight", 1),
            ("vision_model.post_layernorm.weight", 0),
            ("language_model.model.layers.0.mlp.up_proj.weight", 0),
        ];
        let entries: Vec<_> = names.map(|(name, _)| (name.to_string(), Shape::new(&[2, 2]))).into();
        let rule = GroupRule {
            pattern: "vision_model.*".into(),
            lr_scale: 2.0,
            layer_decay: 0.5,
            ..GroupRule::default()
        };
        let (groups, place) = groups(&entries, &[rule], 0.0, None).unwrap();
        for (name, above) in names {
            let expected = if name.starts_with("vision") {
                2.0 * 0.5f64.powi(above)
            } else {
                1.0
            };
            assert_eq!(groups[place(name, Shape::new(&[2, 2]))].lr_scale, expected, "{name}");
        }
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(fits("vision_model.*", "vision_model.post_layernorm.weight"));
        assert!(fits("*lora_*", "a.b.lora_A.weight"));
        assert!(fits("*", ""));
        assert!(fits("a*b*c", "a1b2b3c"));
        assert!(!fits("a*b*c", "a1c2b"));
        assert!(!fits("vision_model", "vision_model.x"));
        assert!(!fits("vision_model.*", "xvision_model.y"));
    }
}
