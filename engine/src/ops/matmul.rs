//! Batched products of two variables: `a·b` or `a·bᵀ`.

use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};

/// `a·b`, or `a·bᵀ` when `transposed`: a (…, m, k), b (…, k, n) or (…, n, k) → (…, m, n), batch for batch.
pub fn matmul(a: &Var, b: &Var, transposed: bool) -> Result<Var> {
    let (sa, sb) = (a.shape(), b.shape());
    let bad =
        || mismatch("matmul", format!("{sa} and {sb}{} do not multiply", if transposed { " transposed" } else { "" }));
    let ([outer_a @ .., m, k], [outer_b @ .., r, c]) = (&sa[..], &sb[..]) else {
        return bad();
    };
    let (inner, n) = if transposed { (*c, *r) } else { (*r, *c) };
    if inner != *k || outer_a != outer_b {
        return bad();
    }
    let layout = if transposed { Layout::Nt } else { Layout::Nn };
    let product = Gemm { layout, m: *m, n, k: *k, batch: outer_a.iter().product() };
    let out = run(product, a.tensor(), b.tensor(), sa.with_last(n))?;
    let (a_value, b_value) = (a.tensor().clone(), b.tensor().clone());
    Ok(record(&[a, b], out, || Matmul { a: a_value, b: b_value, product }))
}

struct Matmul {
    a: Tensor,
    b: Tensor,
    product: Gemm,
}

impl Op for Matmul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let Matmul { a, b, product: Gemm { layout, m, n, k, batch } } = *self;
        let shape = |layout, m, n, k| Gemm { layout, m, n, k, batch };
        let transposed = layout == Layout::Nt;
        let da_layout = if transposed { Layout::Nn } else { Layout::Nt };
        let da = context.needs[0].then(|| run(shape(da_layout, m, k, n), &dy, &b, a.shape())).transpose()?;
        let db = context.needs[1]
            .then(|| match transposed {
                true => run(shape(Layout::Tn, n, k, m), &dy, &a, b.shape()),
                false => run(shape(Layout::Tn, k, n, m), &a, &dy, b.shape()),
            })
            .transpose()?;
        Ok(vec![da, db])
    }
}

fn run(product: Gemm, a: &Tensor, b: &Tensor, shape: Shape) -> Result<Tensor> {
    let mut c = Tensor::empty(a.device(), a.dtype(), shape)?;
    gemm(product, a.view(), b.view(), &mut c.view_mut()?, Epilogue::default())?;
    Ok(c)
}
