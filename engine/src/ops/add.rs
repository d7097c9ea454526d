//! Sums of two variables.

use crate::Tensor;
use crate::error::{Result, expect_shape};
use crate::tape::{Context, Op, Var, record};
use kernels::elementwise;

/// `x + y`, both of one shape.
pub fn add(x: &Var, y: &Var) -> Result<Var> {
    expect_shape("add", "the second operand", y.shape(), x.shape())?;
    let mut out = x.tensor().like()?;
    elementwise::add(x.tensor().view(), y.tensor().view(), &mut out.view_mut()?)?;
    Ok(record(&[x, y], out, || Add))
}

struct Add;

impl Op for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![context.needs[0].then(|| dy.clone()), context.needs[1].then_some(dy)])
    }
}
