//! A smaller tensor added to every entry of the outer dimensions: positions, for example.

use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};
use kernels::elementwise;
use kernels::reduce::sum_axis;

/// `x + b`, where `b`'s shape is the tail of `x`'s: x (batch, tokens, dim), b (tokens, dim) or (dim).
pub fn add_broadcast(x: &Var, b: &Var) -> Result<Var> {
    if !x.shape().ends_with(&b.shape()) {
        return mismatch("add_broadcast", format!("{} is not the tail of {}", b.shape(), x.shape()));
    }
    let mut out = x.tensor().like()?;
    elementwise::add_broadcast(x.tensor().view(), b.tensor().view(), &mut out.view_mut()?)?;
    let shape = b.shape();
    Ok(record(&[x, b], out, || AddBroadcast { shape }))
}

struct AddBroadcast {
    shape: Shape,
}

impl Op for AddBroadcast {
    fn name(&self) -> &'static str {
        "add_broadcast"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let inner = self.shape.elements();
        let outer = dy.shape().elements() / inner.max(1);
        let db = context.needs[1]
            .then(|| {
                let mut db = Tensor::empty(dy.device(), dy.dtype().accumulator(), self.shape)?;
                sum_axis(dy.view(), &mut db.view_mut()?, 1, outer, inner, 1.0)?;
                Result::Ok(db)
            })
            .transpose()?;
        Ok(vec![context.needs[0].then_some(dy), db])
    }
}
