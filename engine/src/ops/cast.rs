//! Change of floating-point type.

use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use crate::{DType, Tensor};

/// `x` in another type; the gradient returns in `x`'s own.
pub fn cast(x: &Var, dtype: DType) -> Result<Var> {
    let out = x.tensor().cast(dtype)?;
    let from = x.dtype();
    Ok(record(&[x], out, || Cast { from }))
}

struct Cast {
    from: DType,
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        "cast"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Ok(vec![Some(dy.cast(self.from)?)])
    }
}
