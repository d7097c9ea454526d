//! Configuration of low-rank adapters.

use super::{above_zero, config, positive, probability};
use crate::error::Result;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Low-rank adapters (Hu et al. 2022) on some linear layers; field names as in PEFT's `adapter_config.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfig {
    /// The rank.
    pub r: usize,
    /// The numerator of the scale.
    pub lora_alpha: f64,
    /// Dropout on the adapters' input.
    pub lora_dropout: f64,
    /// Layers that get one: those whose name is one of these or ends in `.` and one of these.
    pub target_modules: Vec<String>,
    /// Divides by `√r` instead of `r` (Kalajdzievski 2023).
    pub rslora: bool,
}

impl Default for LoraConfig {
    fn default() -> LoraConfig {
        LoraConfig {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.0,
            target_modules: vec!["q_proj".into(), "v_proj".into()],
            rslora: false,
        }
    }
}

impl LoraConfig {
    /// The factor on `B·A`: `alpha / r`, or `alpha / √r`.
    pub fn scale(&self) -> f64 {
        let r = self.r as f64;
        self.lora_alpha / if self.rslora { r.sqrt() } else { r }
    }

    /// Whether the layer called `name` gets an adapter.
    pub fn targets(&self, name: &str) -> bool {
        let matches = |target: &String| {
            name.strip_suffix(target.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        self.target_modules.iter().any(matches)
    }

    fn validate(&self, part: &str) -> Result<()> {
        positive(&format!("lora.{part}.r"), self.r)?;
        above_zero(&format!("lora.{part}.lora_alpha"), self.lora_alpha)?;
        probability(&format!("lora.{part}.lora_dropout"), self.lora_dropout)?;
        if self.target_modules.is_empty() {
            return config(&format!("lora.{part}.target_modules"), "names no layer");
        }
        Ok(())
    }
}

/// Low-rank adapters of a model's parts.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LoraConfigs {
    /// In the image encoder.
    pub vision: Option<LoraConfig>,
    /// In the Q-Former and the projectors.
    pub adapter: Option<LoraConfig>,
    /// In the language model.
    pub decoder: Option<LoraConfig>,
}

impl LoraConfigs {
    /// The parts, by their fields.
    pub const PARTS: [&str; 3] = ["vision", "adapter", "decoder"];

    /// The adapters of a part.
    pub fn part(&self, part: &str) -> Option<&LoraConfig> {
        match part {
            "vision" => self.vision.as_ref(),
            "adapter" => self.adapter.as_ref(),
            _ => self.decoder.as_ref(),
        }
    }

    /// Adapters of one part alone.
    pub(crate) fn of_part(part: &str, lora: LoraConfig) -> LoraConfigs {
        let mut parts = LoraConfigs::default();
        match part {
            "vision" => parts.vision = Some(lora),
            "adapter" => parts.adapter = Some(lora),
            _ => parts.decoder = Some(lora),
        }
        parts
    }

    pub(super) fn validate(&self) -> Result<()> {
        let parts = LoraConfigs::PARTS.into_iter();
        parts.filter_map(|part| Some((part, self.part(part)?))).try_for_each(|(part, lora)| lora.validate(part))
    }
}
