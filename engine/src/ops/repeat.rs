//! One tensor, repeated for every entry of a batch: learned queries, for example.

use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};
use kernels::reduce;

/// `batch` copies of `x`: (…) → (batch, …).
pub fn repeat(x: &Var, batch: usize) -> Result<Var> {
    let shape = Shape::new(&[&[batch], &x.shape()[..]].concat());
    let mut out = Tensor::empty(x.tensor().device(), x.dtype(), shape)?;
    reduce::broadcast_axis(x.tensor().view(), &mut out.view_mut()?, 1, batch, x.shape().elements(), 1.0)?;
    let shape = x.shape();
    Ok(record(&[x], out, || Repeat { shape, batch }))
}

struct Repeat {
    shape: Shape,
    batch: usize,
}

impl Op for Repeat {
    fn name(&self) -> &'static str {
        "repeat"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut dx = Tensor::empty(dy.device(), dy.dtype().accumulator(), self.shape)?;
        reduce::sum_axis(dy.view(), &mut dx.view_mut()?, 1, self.batch, self.shape.elements(), 1.0)?;
        Ok(vec![Some(dx)])
    }
}
