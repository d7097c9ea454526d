//! Rotary position embedding (Su et al. 2021), rotate-half convention.

use crate::Tensor;
use crate::error::{Result, expect_shape, mismatch};
use crate::tape::{Context, Op, Var, record};
use kernels::rotary as kernel;

/// Turns each pair (i, i + head_dim/2) of a head by `position · inv_freq[i]`:
/// x (batch, tokens, heads, head_dim), positions (batch, tokens) I32, inv_freq (head_dim/2) in the accumulator's type.
pub fn rotary(x: &Var, positions: &Tensor, inv_freq: &Tensor) -> Result<Var> {
    let [batch, tokens, heads, head_dim] = x.shape()[..] else {
        return mismatch("rotary", format!("{}, expected (batch, tokens, heads, head_dim)", x.shape()));
    };
    expect_shape("rotary", "positions", positions.shape(), [batch, tokens])?;
    expect_shape("rotary", "inv_freq", inv_freq.shape(), [head_dim / 2])?;
    let op = Rotary { positions: positions.clone(), inv_freq: inv_freq.clone(), heads };
    let y = op.turn(x.tensor(), false)?;
    Ok(record(&[x], y, || op))
}

struct Rotary {
    positions: Tensor,
    inv_freq: Tensor,
    heads: usize,
}

impl Rotary {
    fn turn(&self, x: &Tensor, inverse: bool) -> Result<Tensor> {
        let mut y = x.like()?;
        let (positions, inv_freq) = (self.positions.view(), self.inv_freq.view());
        kernel::rotary(x.view(), positions, inv_freq, &mut y.view_mut()?, self.heads, inverse)?;
        Ok(y)
    }
}

impl Op for Rotary {
    fn name(&self) -> &'static str {
        "rotary"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.turn(&dy, true)?)])
    }
}
