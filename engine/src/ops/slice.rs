//! A stretch of a token sequence.

use crate::Blocks;
use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};

/// Tokens `start .. start + count`: (batch, tokens, dim) → (batch, count, dim).
pub fn slice(x: &Var, start: usize, count: usize) -> Result<Var> {
    let [batch, tokens, dim] = x.shape()[..] else {
        return mismatch("slice", format!("{}, expected (batch, tokens, dim)", x.shape()));
    };
    if start + count > tokens {
        return mismatch("slice", format!("tokens {start}..{} of shape {}", start + count, x.shape()));
    }
    let mut out = Tensor::empty(x.tensor().device(), x.dtype(), [batch, count, dim])?;
    out.write(
        x.tensor(),
        Blocks {
            outer: batch,
            block: count * dim,
            src_offset: start * dim,
            src_stride: tokens * dim,
            dst_stride: count * dim,
            ..Blocks::default()
        },
    )?;
    let shape = x.shape();
    Ok(record(&[x], out, || Slice { shape, start }))
}

struct Slice {
    shape: Shape,
    start: usize,
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let (dim, block) = (self.shape[2], dy.shape()[1] * dy.shape()[2]);
        let mut dx = Tensor::zeros(dy.device(), dy.dtype(), self.shape)?;
        dx.write(
            &dy,
            Blocks {
                outer: self.shape[0],
                block,
                src_stride: block,
                dst_offset: self.start * dim,
                dst_stride: self.shape[1] * dim,
                ..Blocks::default()
            },
        )?;
        Ok(vec![Some(dx)])
    }
}
