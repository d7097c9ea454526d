//! Products, element by element.

use crate::Tensor;
use crate::error::{Result, expect_shape};
use crate::tape::{Context, Op, Var, record};
use kernels::elementwise;

/// `x ⊙ y`, both of one shape.
pub fn mul(x: &Var, y: &Var) -> Result<Var> {
    expect_shape("mul", "the second operand", y.shape(), x.shape())?;
    let out = product(x.tensor(), y.tensor())?;
    let (x_value, y_value) = (x.tensor().clone(), y.tensor().clone());
    Ok(record(&[x, y], out, || Mul { x: x_value, y: y_value }))
}

struct Mul {
    x: Tensor,
    y: Tensor,
}

impl Op for Mul {
    fn name(&self) -> &'static str {
        "mul"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let dx = context.needs[0].then(|| product(&dy, &self.y)).transpose()?;
        let dy = context.needs[1].then(|| product(&dy, &self.x)).transpose()?;
        Ok(vec![dx, dy])
    }
}

fn product(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let mut out = a.like()?;
    elementwise::mul(a.view(), b.view(), &mut out.view_mut()?)?;
    Ok(out)
}
