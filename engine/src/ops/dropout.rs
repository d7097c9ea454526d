//! Dropout (Srivastava et al. 2014) with a counter-based mask: nothing is stored.

use crate::Tensor;
use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use kernels::dropout as kernel;

/// Zeroes each element with probability `p` and scales the others by `1 / (1 − p)`; the mask follows from `seed`.
pub fn dropout(x: &Var, p: f64, seed: u64) -> Result<Var> {
    if !(0.0..1.0).contains(&p) {
        return mismatch("dropout", format!("p = {p}, expected 0 ≤ p < 1"));
    }
    if p == 0.0 {
        return Ok(x.clone());
    }
    let op = Dropout { p, seed };
    let y = op.apply(x.tensor())?;
    Ok(record(&[x], y, || op))
}

struct Dropout {
    p: f64,
    seed: u64,
}

impl Dropout {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut y = x.like()?;
        kernel::dropout(x.view(), &mut y.view_mut()?, self.p, self.seed)?;
        Ok(y)
    }
}

impl Op for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(self.apply(&dy)?)])
    }
}
