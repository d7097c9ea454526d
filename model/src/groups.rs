//! Which parameters train, and how: patterns over names.

use crate::error::{Result, config};
use engine::{GroupSpec, ParamSpec, Params, Role, Update};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// How parameters whose name fits a pattern are trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// Whether the first rule that fits a parameter's name freezes it.
pub fn freezes(rules: &[GroupRule], name: &str) -> bool {
    rules.iter().find(|rule| rule.fits(name)).is_some_and(|rule| rule.freeze)
}

fn one() -> f64 {
    1.0
}

/// Everything, trained as it is.
impl Default for GroupRule {
    fn default() -> GroupRule {
        GroupRule { pattern: "*".into(), lr_scale: 1.0, freeze: false, weight_decay: None, layer_decay: 1.0 }
    }
}

/// Groups the parameters by the first rule that fits each; those that fit none train as they are. Only the matrices of
/// products decay ([`ParamSpec::is_matrix`]). With `muon`, those inside blocks are stepped by Muon, at that factor on the
/// learning rate. Optimiser state made before is void.
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
pub fn set_groups(params: &mut Params, rules: &[GroupRule], weight_decay: f64, muon: Option<f64>) -> Result<()> {
    let specs: Vec<ParamSpec> = params.specs().cloned().collect();
    check_groups(&specs, rules, muon.is_some())?;
    let (groups, place) = groups(&specs, rules, weight_decay, muon);
    Ok(params.regroup(groups, place)?)
}

/// Fails where a setting of the groups changes nothing, or leaves nothing to train.
///
/// # Errors
/// [`crate::Error::Config`] with the field: `rules.N.match` and so on, or `muon_lr`.
pub fn check_groups(specs: &[ParamSpec], rules: &[GroupRule], muon: bool) -> Result<()> {
    let depths = depths(specs);
    for (number, rule) in rules.iter().enumerate() {
        let pattern = &rule.pattern;
        let bad =
            |key: &str, message: String| config(&format!("rules.{number}.{key}"), format!("`{pattern}` {message}"));
        let fitting = || specs.iter().filter(|spec| rule.fits(&spec.name));
        let first = |spec: &ParamSpec| rules.iter().position(|rule| rule.fits(&spec.name));
        let Some(one) = fitting().next() else {
            return bad("match", format!("fits no parameter; there are {}", modules(specs)));
        };
        let mut own = fitting().filter(|spec| first(spec) == Some(number)).peekable();
        if own.peek().is_none() {
            let before = first(one).unwrap_or_default();
            let message = format!("fits only what earlier rules take, such as rules.{before}: put it in front of them");
            return bad("match", message);
        }
        if rule.weight_decay.is_some_and(|decay| decay > 0.0) && !own.any(ParamSpec::is_matrix) {
            return bad("weight_decay", "fits no matrix of a product, and nothing else decays".into());
        }
        let mut deep = specs.iter().zip(&depths).filter(|(_, depth)| **depth > 0);
        if rule.layer_decay != 1.0 && !deep.any(|(spec, _)| first(spec) == Some(number)) {
            return bad("layer_decay", "fits nothing inside blocks or below them".into());
        }
    }
    let rule_of = |spec: &&ParamSpec| rules.iter().find(|rule| rule.fits(&spec.name));
    let mut trained = specs.iter().filter(|spec| !rule_of(spec).is_some_and(|rule| rule.freeze));
    match (trained.clone().next(), muon) {
        (None, _) => config("rules", "freeze every parameter: nothing is left to train"),
        (_, true) if !trained.any(by_muon) => {
            config("muon_lr", "steps the matrices inside blocks, but none of them is trained")
        }
        _ => Ok(()),
    }
}

/// The first parts of the parameters' names.
fn modules(specs: &[ParamSpec]) -> String {
    let mut modules: Vec<&str> = specs.iter().map(|spec| module(&spec.name)).collect();
    modules.dedup();
    modules.join(", ")
}

/// The groups of parameters, as [`set_groups`] makes them, and which of them is whose.
pub(crate) fn groups(
    specs: &[ParamSpec],
    rules: &[GroupRule],
    weight_decay: f64,
    muon: Option<f64>,
) -> (Vec<GroupSpec>, impl Fn(&ParamSpec) -> usize + use<>) {
    let mut groups: Vec<GroupSpec> = Vec::new();
    let mut places = HashMap::new();
    for (spec, depth) in specs.iter().zip(depths(specs)) {
        let group = group_of(spec, depth, rules, weight_decay, muon);
        let place = groups.iter().position(|known| *known == group).unwrap_or(groups.len());
        if place == groups.len() {
            groups.push(group);
        }
        places.insert(spec.name.clone(), place);
    }
    (groups, move |spec| places[&spec.name])
}

fn group_of(spec: &ParamSpec, depth: i32, rules: &[GroupRule], weight_decay: f64, muon: Option<f64>) -> GroupSpec {
    let rule = rules.iter().find(|rule| rule.fits(&spec.name));
    let decay = rule.and_then(|rule| rule.weight_decay).unwrap_or(weight_decay);
    let muon = muon.filter(|_| by_muon(spec));
    match rule {
        Some(rule) if rule.freeze => GroupSpec { frozen: true, ..GroupSpec::default() },
        _ => GroupSpec {
            update: if muon.is_some() { Update::Muon } else { Update::AdamW },
            lr_scale: rule.map_or(1.0, |rule| rule.lr_scale * rule.layer_decay.powi(depth)) * muon.unwrap_or(1.0),
            weight_decay: if spec.is_matrix() { decay } else { 0.0 },
            frozen: false,
        },
    }
}

/// Whether Muon may step a parameter: it is a matrix inside a block.
fn by_muon(spec: &ParamSpec) -> bool {
    spec.is_matrix() && spec.shape.len() == 2 && numbered(&spec.name).is_some()
}

/// Of each parameter, the layers between it and the end of its stack of blocks, its own among them: 0 behind the last block
/// and outside of stacks. What is made before a stack lies in front of it: embeddings, and what bears the stack's name.
fn depths(specs: &[ParamSpec]) -> Vec<i32> {
    let mut blocks = BTreeMap::new();
    for (stack, number) in specs.iter().filter_map(|spec| numbered(&spec.name)) {
        let count = blocks.entry(stack).or_insert(0);
        *count = number.saturating_add(1).max(*count);
    }
    let mut next: Option<&str> = None;
    let mut depths = Vec::with_capacity(specs.len());
    for spec in specs.iter().rev() {
        depths.push(match (numbered(&spec.name), next) {
            (Some((stack, number)), _) => {
                next = Some(stack);
                blocks[stack] - number
            }
            (None, Some(stack)) if spec.role == Role::Embedding || module(stack) == module(&spec.name) => {
                blocks[stack] + 1
            }
            _ => 0,
        });
    }
    depths.reverse();
    depths
}

/// The first part of a name.
fn module(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
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

/// Whether `name` fits `pattern`, in which `*` stands for any characters or none: what stands between two of them is taken where
/// it comes first, which leaves the most for what follows.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut name) = name.strip_prefix(head).and_then(|name| name.strip_suffix(tail)) else {
        return false;
    };
    middle.split('*').all(|part| match name.split_once(part) {
        Some((_, behind)) => {
            name = behind;
            true
        }
        None => false,
    })
}

#[cfg(test)]
mod tests {
    use super::{GroupRule, check_groups, fits, groups};
    use crate::config::{DualConfig, DualKind, QFormerConfig, VisionConfig, VlmConfig};
    use crate::{DualEncoder, Vlm};
    use engine::{ParamBuilder, ParamSpec, Update};

    /// Every kind of layer that has parameters.
    fn families() -> Vec<(&'static str, Vec<ParamSpec>)> {
        let learned = VisionConfig {
            class_token: true,
            pre_layernorm: true,
            positions: crate::PositionKind::Learned,
            ..VisionConfig::default()
        };
        let mut vlm = VlmConfig {
            vision: learned.clone(),
            qformer: Some(QFormerConfig::default()),
            vocab_size: 20,
            ..VlmConfig::default()
        };
        vlm.adapter.kind = crate::AdapterKind::Both;
        vlm.adapter.positions = false;
        vlm.decoder.tie_word_embeddings = false;
        vlm.decoder.qkv_bias = true;
        vlm.lora.decoder = Some(Default::default());
        let dual = |kind, vision| {
            let mut config = DualConfig { kind, vision, ..DualConfig::default() };
            config.text.vocab_size = 20;
            let mut builder = ParamBuilder::new();
            DualEncoder::new(&mut builder, &config).unwrap();
            builder.specs().to_vec()
        };
        let mut builder = ParamBuilder::new();
        Vlm::new(&mut builder, &vlm).unwrap();
        vec![
            ("vlm", builder.specs().to_vec()),
            ("clip", dual(DualKind::Clip, learned)),
            ("siglip", dual(DualKind::Siglip, VisionConfig::default())),
        ]
    }

    #[test]
    fn only_matrices_of_products_decay_and_only_those_in_blocks_take_muon() {
        // What never decays, by the words of the names; a layer's own `weight` in two dimensions or more does.
        let never = [
            "embed_tokens",
            "token_embedding",
            "word_embeddings",
            "position_embedding",
            "class_embedding",
            "query_tokens",
            "probe",
            "logit_",
            "norm",
            "bias",
            "layrnorm",
        ];
        for (family, specs) in families() {
            let (groups, place) = groups(&specs, &[], 0.5, Some(2.0));
            assert!(specs.iter().any(|spec| spec.name.contains("embedding")), "{family}");
            for spec in &specs {
                let (name, group) = (&spec.name, &groups[place(spec)]);
                let never = never.iter().any(|part| name.to_lowercase().contains(part));
                assert_eq!(group.weight_decay, if never { 0.0 } else { 0.5 }, "{family}: {name}");
                let muon = !never && (name.contains(".layers.") || name.contains(".layer."));
                assert_eq!(group.update == Update::Muon, muon, "{family}: {name}");
            }
        }
    }

    #[test]
    fn layers_learn_the_slower_the_further_down_they_are() {
        let (_, specs) = families().swap_remove(0);
        let rule = GroupRule { lr_scale: 2.0, layer_decay: 0.5, ..GroupRule::default() };
        let (groups, place) = groups(&specs, &[rule], 0.0, None);
        for (name, above) in [
            ("vision_model.embeddings.patch_embedding.weight", 4),
            ("vision_model.embeddings.class_embedding", 4),
            ("vision_model.pre_layrnorm.bias", 4),
            ("vision_model.encoder.layers.0.mlp.fc1.weight", 3),
            ("vision_model.encoder.layers.2.mlp.fc1.weight", 1),
            ("vision_model.post_layernorm.weight", 0),
            ("query_tokens", 5),
            ("embeddings.word_embeddings.weight", 5),
            ("itm_head.weight", 0),
            ("qformer.encoder.layer.3.output_query.dense.weight", 1),
            ("language_projection.linear_1.weight", 0),
            ("language_model.model.embed_tokens.weight", 4),
            ("language_model.model.norm.weight", 0),
            ("language_model.lm_head.weight", 0),
        ] {
            let spec = specs.iter().find(|spec| spec.name == name).expect(name);
            assert_eq!(groups[place(spec)].lr_scale, 2.0 * 0.5f64.powi(above), "{name}");
        }
    }

    #[test]
    fn settings_that_change_nothing_are_named() {
        let (_, specs) = families().swap_remove(0);
        let rule = |pattern: &str| GroupRule { pattern: pattern.into(), ..GroupRule::default() };
        let frozen = |pattern: &str| GroupRule { freeze: true, ..rule(pattern) };
        let decay = GroupRule { weight_decay: Some(0.1), ..rule("*norm*") };
        let layers = GroupRule { layer_decay: 0.9, ..rule("*projector*") };
        let matrices = [frozen("*.layers.*"), frozen("*.layer.*")];
        for (rules, muon, expected) in [
            (
                &[rule("vision.*")][..],
                false,
                "rules.0.match`: `vision.*` fits no parameter; there are vision_model, query_tokens",
            ),
            (
                &[frozen("vision_model.*"), rule("vision_model.encoder.*")],
                false,
                "rules.1.match`: `vision_model.encoder.*` fits only",
            ),
            (&[rule("*"), frozen("vision_model.*")], false, "rules.1.match"),
            (&[rule("*norm*"), rule("*norm*")], false, "rules.1.match"),
            (&[frozen("*")], false, "rules`: freeze every parameter"),
            (&[decay], false, "rules.0.weight_decay`: `*norm*` fits no matrix"),
            (&[layers], false, "rules.0.layer_decay"),
            (&matrices, true, "muon_lr`: "),
        ] {
            let error = check_groups(&specs, rules, muon).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}; expected {expected}");
        }
        check_groups(&specs, &[rule("*lora_*"), frozen("*")], false).unwrap();
        check_groups(&specs, &matrices, false).unwrap();
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(fits("vision_model.*", "vision_model.post_layernorm.weight"));
        assert!(fits("*lora_*", "a.b.lora_A.weight"));
        assert!(fits("*", ""));
        assert!(fits("a**b", "axb") && !fits("ab*b", "ab"));
        assert!(!fits(&format!("{}Q", "*".repeat(5000)), &"x".repeat(5000)));
        assert!(!fits(&"*x".repeat(5000), &"x".repeat(4999)));
        assert!(fits("a*b*c", "a1b2b3c"));
        assert!(!fits("a*b*c", "a1c2b"));
        assert!(!fits("vision_model", "vision_model.x"));
        assert!(!fits("vision_model.*", "xvision_model.y"));
    }
}
