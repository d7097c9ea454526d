//! Normalisation layers.

use engine::{Graph, Init, ParamBuilder, ParamId, Result, Var, ops};

/// Layer norm with weight and bias (dim).
#[derive(Debug, Clone)]
pub(crate) struct LayerNorm {
    weight: ParamId,
    bias: ParamId,
    eps: f64,
}

impl LayerNorm {
    pub(crate) fn new(builder: &mut ParamBuilder, name: &str, dim: usize, eps: f64) -> Result<LayerNorm> {
        builder.scope(name, |b| {
            Ok(LayerNorm { weight: b.add("weight", [dim], Init::Ones)?, bias: b.add("bias", [dim], Init::Zeros)?, eps })
        })
    }

    pub(crate) fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        ops::layer_norm(x, &g.param(self.weight), &g.param(self.bias), self.eps)
    }
}

/// Root-mean-square norm with weight (dim).
#[derive(Debug, Clone)]
pub(crate) struct RmsNorm {
    weight: ParamId,
    eps: f64,
}

impl RmsNorm {
    pub(crate) fn new(builder: &mut ParamBuilder, name: &str, dim: usize, eps: f64) -> Result<RmsNorm> {
        builder.scope(name, |b| {
            let weight = b.add("weight", [dim], Init::Ones)?;
            Ok(RmsNorm { weight, eps })
        })
    }

    pub(crate) fn forward(&self, g: &Graph<'_>, x: &Var) -> Result<Var> {
        ops::rms_norm(x, &g.param(self.weight), self.eps)
    }
}
