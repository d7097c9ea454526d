//! Linear layers, with or without a low-rank adapter, and dropout around them.

use crate::config::LoraConfig;
use engine::{Activation, Graph, Init, ParamBuilder, ParamId, Result, Var, ops};

/// `x·wᵀ + b`, weight (out, in) and bias (out), plus `scale · B(A(dropout(x)))` when adapted (Hu et al. 2022).
#[derive(Debug, Clone)]
pub struct Linear {
    weight: ParamId,
    bias: Option<ParamId>,
    lora: Option<Lora>,
}

#[derive(Debug, Clone)]
struct Lora {
    a: ParamId,
    b: ParamId,
    scale: f64,
    dropout: f64,
}

/// How a [`Linear`] is made.
#[derive(Debug, Clone, Copy)]
pub struct LinearSpec<'a> {
    /// Width of the input.
    pub input: usize,
    /// Width of the output.
    pub output: usize,
    /// Whether there is a bias; it starts at 0.
    pub bias: bool,
    /// Weights start normal with standard deviation `gain / √input`.
    pub gain: f64,
    /// Adapters of the part the layer is in.
    pub lora: Option<&'a LoraConfig>,
}

impl<'a> LinearSpec<'a> {
    /// A layer with a bias and gain 1.
    pub fn new(input: usize, output: usize, lora: Option<&'a LoraConfig>) -> LinearSpec<'a> {
        LinearSpec { input, output, bias: true, gain: 1.0, lora }
    }

    /// For a layer whose output is added to the residual stream of a model with `layers` blocks: the variance of
    /// the sum over both sublayers of all blocks stays 1 (Radford et al. 2019).
    pub fn residual(self, layers: usize) -> LinearSpec<'a> {
        let gain = 1.0 / (2.0 * layers as f64).sqrt();
        LinearSpec { gain, ..self }
    }
}

impl Linear {
    /// Adds the layer's parameters under `name`.
    pub fn new(builder: &mut ParamBuilder, name: &str, spec: LinearSpec<'_>) -> Result<Linear> {
        let LinearSpec { input, output, .. } = spec;
        builder.scope(name, |b| {
            let weight = b.add("weight", [output, input], Init::Normal(spec.gain / (input as f64).sqrt()))?;
            let bias = spec.bias.then(|| b.add("bias", [output], Init::Zeros)).transpose()?;
            let adapted = spec.lora.filter(|lora| lora.targets(name));
            let lora = adapted.map(|config| Lora::new(b, config, input, output)).transpose()?;
            Ok(Linear { weight, bias, lora })
        })
    }

    /// `x·wᵀ + b`: x (…, in) → (…, out).
    pub fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        let bias = self.bias.map(|b| g.param(b));
        let y = ops::linear(x, &g.param(self.weight), bias.as_ref())?;
        self.adapt(g, x, y)
    }

    /// `act(x·wᵀ + b)`.
    pub fn forward_act(&self, g: &Graph<'_>, x: &Var, act: Activation) -> Result<Var> {
        if self.lora.is_some() {
            return ops::activate(&self.forward(g, x)?, act);
        }
        let bias = self.bias.map(|b| g.param(b));
        ops::linear_act(x, &g.param(self.weight), bias.as_ref(), act)
    }

    /// `residual + x·wᵀ + b`, in one product.
    pub fn forward_residual(&self, g: &Graph<'_>, x: &Var, residual: &Var) -> Result<Var> {
        let bias = self.bias.map(|b| g.param(b));
        let y = ops::linear_residual(x, &g.param(self.weight), bias.as_ref(), residual)?;
        self.adapt(g, x, y)
    }

    /// `residual + dropout(x·wᵀ + b)`, fused when nothing is dropped.
    pub(crate) fn add_to(&self, g: &Graph<'_>, x: &Var, residual: &Var, p: f64) -> Result<Var> {
        if g.is_training() && p > 0.0 {
            return ops::add(residual, &dropout(g, &self.forward(g, x)?, p)?);
        }
        self.forward_residual(g, x, residual)
    }

    fn adapt(&self, g: &Graph<'_>, x: &Var, y: Var) -> Result<Var> {
        let Some(lora) = &self.lora else { return Ok(y) };
        let x = dropout(g, x, lora.dropout)?;
        let low = ops::scale(&ops::linear(&x, &g.param(lora.a), None)?, lora.scale)?;
        ops::linear_residual(&low, &g.param(lora.b), None, &y)
    }
}

impl Lora {
    /// A uniform as PEFT starts it (Kaiming with a = √5), B zero: the layer starts unchanged.
    fn new(b: &mut ParamBuilder, config: &LoraConfig, input: usize, output: usize) -> Result<Lora> {
        let bound = 1.0 / (input as f64).sqrt();
        Ok(Lora {
            a: b.add("lora_A.weight", [config.r, input], Init::Uniform(bound))?,
            b: b.add("lora_B.weight", [output, config.r], Init::Zeros)?,
            scale: config.scale(),
            dropout: config.lora_dropout,
        })
    }
}

/// Dropout in training, nothing otherwise.
pub(crate) fn dropout(g: &Graph<'_>, x: &Var, p: f64) -> Result<Var> {
    if g.is_training() && p > 0.0 {
        return ops::dropout(x, p, g.dropout_seed());
    }
    Ok(x.clone())
}
