//! Joining token sequences.

use crate::Blocks;
use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};

/// `parts` one after another along the tokens: (batch, tokens_i, dim) → (batch, Σ tokens_i, dim).
pub fn concat(parts: &[&Var]) -> Result<Var> {
    let shapes: Vec<Shape> = parts.iter().map(|p| p.shape()).collect();
    let Some(&[batch, _, dim]) = shapes.first().map(|s| &s[..]) else {
        return mismatch("concat", format!("{shapes:?}, expected tensors of shape (batch, tokens, dim)"));
    };
    if shapes.iter().any(|s| s.len() != 3 || s[0] != batch || s[2] != dim) {
        return mismatch("concat", format!("{shapes:?} differ in batch or dim"));
    }
    let tokens: usize = shapes.iter().map(|s| s[1]).sum();
    let first = parts[0].tensor();
    let mut out = Tensor::empty(first.device(), first.dtype(), [batch, tokens, dim])?;
    let mut start = 0;
    for part in parts {
        let block = part.shape()[1] * dim;
        out.write(
            part.tensor(),
            Blocks {
                outer: batch,
                block,
                src_stride: block,
                dst_offset: start,
                dst_stride: tokens * dim,
                ..Blocks::default()
            },
        )?;
        start += block;
    }
    Ok(record(parts, out, || Concat { shapes }))
}

struct Concat {
    shapes: Vec<Shape>,
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let stride = dy.shape()[1] * dy.shape()[2];
        let mut start = 0;
        let mut gradients = Vec::with_capacity(self.shapes.len());
        for (shape, needed) in self.shapes.iter().zip(&context.needs) {
            let block = shape[1] * shape[2];
            gradients.push(match needed {
                true => {
                    let mut dx = Tensor::empty(dy.device(), dy.dtype(), *shape)?;
                    dx.write(
                        &dy,
                        Blocks {
                            outer: shape[0],
                            block,
                            src_offset: start,
                            src_stride: stride,
                            dst_stride: block,
                            ..Blocks::default()
                        },
                    )?;
                    Some(dx)
                }
                false => None,
            });
            start += block;
        }
        Ok(gradients)
    }
}
