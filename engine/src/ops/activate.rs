//! Pointwise activations.

use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use crate::{Activation, Tensor};
use kernels::activation;

/// GELU (erf or tanh), quick-GELU or SiLU of every element.
pub fn activate(x: &Var, activation: Activation) -> Result<Var> {
    let mut y = x.tensor().like()?;
    activation::activate(x.tensor().view(), &mut y.view_mut()?, activation)?;
    let saved = x.tensor().clone();
    Ok(record(&[x], y, || Activate { x: saved, activation }))
}

struct Activate {
    x: Tensor,
    activation: Activation,
}

impl Op for Activate {
    fn name(&self) -> &'static str {
        "activate"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut dx = dy.like()?;
        activation::activate_backward(self.x.view(), dy.view(), &mut dx.view_mut()?, self.activation)?;
        Ok(vec![Some(dx)])
    }
}
