//! `silu(gate) ⊙ up`: the gate of SwiGLU (Shazeer 2020).

use crate::Tensor;
use crate::error::{Result, expect_shape};
use crate::tape::{Context, Op, Var, record};
use kernels::activation;

/// `gate · sigmoid(gate) · up`, element by element; both of one shape.
pub fn silu_mul(gate: &Var, up: &Var) -> Result<Var> {
    expect_shape("silu_mul", "up", up.shape(), gate.shape())?;
    let mut y = gate.tensor().like()?;
    activation::silu_mul(gate.tensor().view(), up.tensor().view(), &mut y.view_mut()?)?;
    let (gate_value, up_value) = (gate.tensor().clone(), up.tensor().clone());
    Ok(record(&[gate, up], y, || SiluMul { gate: gate_value, up: up_value }))
}

struct SiluMul {
    gate: Tensor,
    up: Tensor,
}

impl Op for SiluMul {
    fn name(&self) -> &'static str {
        "silu_mul"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let (mut dgate, mut dup) = (dy.like()?, dy.like()?);
        let (gate, up) = (self.gate.view(), self.up.view());
        activation::silu_mul_backward(gate, up, dy.view(), &mut dgate.view_mut()?, &mut dup.view_mut()?)?;
        Ok(vec![context.needs[0].then_some(dgate), context.needs[1].then_some(dup)])
    }
}
