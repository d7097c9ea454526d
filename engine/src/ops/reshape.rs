//! The same elements under another shape.

use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};

/// `x` with another shape of as many elements; shares memory.
pub fn reshape(x: &Var, shape: impl Into<Shape>) -> Result<Var> {
    let out = x.tensor().reshape(shape)?;
    let from = x.shape();
    Ok(record(&[x], out, || Reshape { from }))
}

struct Reshape {
    from: Shape,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy.reshape(self.from)?)])
    }
}
