//! The projector between two widths: linear, GELU, linear (Liu et al. 2024, "LLaVA-1.5").

use crate::config::LoraConfig;
use crate::linear::{Linear, LinearSpec};
use engine::{Activation, Graph, ParamBuilder, Result, Var};

/// `linear_2(gelu(linear_1(x)))`.
#[derive(Debug, Clone)]
pub struct Projector {
    linear_1: Linear,
    linear_2: Linear,
}

impl Projector {
    /// Adds the projector's parameters under `name`: widths `input` → `hidden` → `output`.
    pub fn new(
        builder: &mut ParamBuilder,
        name: &str,
        [input, hidden, output]: [usize; 3],
        lora: Option<&LoraConfig>,
    ) -> Result<Projector> {
        builder.scope(name, |b| {
            Ok(Projector {
                linear_1: Linear::new(b, "linear_1", LinearSpec::new(input, hidden, lora))?,
                linear_2: Linear::new(b, "linear_2", LinearSpec::new(hidden, output, lora))?,
            })
        })
    }

    /// (batch, tokens, input) → (batch, tokens, output).
    pub fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        self.linear_2
            .forward(g, &self.linear_1.forward_act(g, x, Activation::Gelu)?)
    }
}
