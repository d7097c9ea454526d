//! Multiplication by a constant.

use crate::Tensor;
use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use kernels::elementwise;

/// `factor · x`.
pub fn scale(x: &Var, factor: f64) -> Result<Var> {
    let out = scaled(x.tensor(), factor)?;
    Ok(record(&[x], out, || Scale { factor }))
}

struct Scale {
    factor: f64,
}

impl Op for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(scaled(&dy, self.factor)?)])
    }
}

fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    let mut out = x.like()?;
    elementwise::scale(x.view(), &mut out.view_mut()?, factor)?;
    Ok(out)
}
