//! Sums and means over one dimension or all.

use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};
use kernels::reduce;

/// The sum of all elements, in the accumulator's type: a scalar of shape (1).
pub fn sum(x: &Var) -> Result<Var> {
    let split = (1, x.shape().elements(), 1);
    forward(x, split, Shape::from([1]), x.dtype().accumulator(), 1.0)
}

/// The sum over dimension `axis`, which disappears.
pub fn sum_axis(x: &Var, axis: usize) -> Result<Var> {
    along(x, axis, |_| 1.0)
}

/// The mean over dimension `axis`, which disappears.
pub fn mean_axis(x: &Var, axis: usize) -> Result<Var> {
    along(x, axis, |size| 1.0 / size.max(1) as f64)
}

fn along(x: &Var, axis: usize, factor: impl Fn(usize) -> f64) -> Result<Var> {
    let shape = x.shape();
    if axis >= shape.len() {
        return mismatch("sum_axis", format!("axis {axis} of shape {shape}"));
    }
    let (outer, inner) = (shape[..axis].iter().product(), shape[axis + 1..].iter().product());
    let left = Shape::new(&[&shape[..axis], &shape[axis + 1..]].concat());
    forward(x, (outer, shape[axis], inner), left, x.dtype(), factor(shape[axis]))
}

fn forward(x: &Var, split: (usize, usize, usize), shape: Shape, dtype: crate::DType, factor: f64) -> Result<Var> {
    let mut out = Tensor::empty(x.tensor().device(), dtype, shape)?;
    reduce::sum_axis(x.tensor().view(), &mut out.view_mut()?, split.0, split.1, split.2, factor)?;
    let (shape, dtype) = (x.shape(), x.dtype());
    Ok(record(&[x], out, || Sum { shape, dtype, split, factor }))
}

struct Sum {
    shape: Shape,
    dtype: crate::DType,
    split: (usize, usize, usize),
    factor: f64,
}

impl Op for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let dy = dy.cast(self.dtype)?;
        let mut dx = Tensor::empty(dy.device(), self.dtype, self.shape)?;
        let (outer, axis, inner) = self.split;
        reduce::broadcast_axis(dy.view(), &mut dx.view_mut()?, outer, axis, inner, self.factor)?;
        Ok(vec![Some(dx)])
    }
}
