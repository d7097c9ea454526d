//! The projector between two widths: linear, activation, linear (Liu et al. 2024, "LLaVA-1.5"), or a single linear layer
//! (Li et al. 2023, "BLIP-2").

use crate::config::{AdapterConfig, LoraConfig};
use crate::linear::{Linear, LinearSpec};
use engine::{Activation, Graph, ParamBuilder, Result, Var};

/// `linear_2(act(linear_1(x)))`, or one linear layer.
#[derive(Debug, Clone)]
pub struct Projector {
    first: Linear,
    second: Option<(Activation, Linear)>,
}

impl Projector {
    /// Adds the projector's parameters under `name`, as `config` says, from width `input` to `output`.
    pub fn new(
        builder: &mut ParamBuilder,
        name: &str,
        config: &AdapterConfig,
        [input, output]: [usize; 2],
        lora: Option<&LoraConfig>,
    ) -> Result<Projector> {
        let hidden = config.hidden_size.unwrap_or(output);
        let spec = |input, output| LinearSpec { bias: config.bias, ..LinearSpec::new(input, output, lora) };
        if config.linear {
            let first = Linear::new(builder, name, spec(input, output))?;
            return Ok(Projector { first, second: None });
        }
        builder.scope(name, |b| {
            let first = Linear::new(b, "linear_1", spec(input, hidden))?;
            let second = Linear::new(b, "linear_2", spec(hidden, output))?;
            Ok(Projector { first, second: Some((config.hidden_act.into(), second)) })
        })
    }

    /// (batch, tokens, input) → (batch, tokens, output).
    pub fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        match &self.second {
            None => self.first.forward(g, x),
            Some((act, second)) => second.forward(g, &self.first.forward_act(g, x, *act)?),
        }
    }
}
