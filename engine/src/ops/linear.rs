//! `y = act(x·wᵀ + b)` or `y = residual + x·wᵀ + b`, each in one product.

use crate::error::{Result, expect_shape, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Activation, Tensor};
use kernels::ViewMut;
use kernels::activation::activate_backward;
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use kernels::reduce::sum_axis;

/// `x·wᵀ + b`: x (rows, in), w (out, in), b (out) → (rows, out).
pub fn linear(x: &Var, w: &Var, b: Option<&Var>) -> Result<Var> {
    forward(x, w, b, None, None)
}

/// `act(x·wᵀ + b)`; keeps the pre-activation for backward.
pub fn linear_act(x: &Var, w: &Var, b: Option<&Var>, activation: Activation) -> Result<Var> {
    forward(x, w, b, Some(activation), None)
}

/// `residual + x·wᵀ + b`: residual (rows, out).
pub fn linear_residual(x: &Var, w: &Var, b: Option<&Var>, residual: &Var) -> Result<Var> {
    forward(x, w, b, None, Some(residual))
}

struct Linear {
    x: Tensor,
    w: Tensor,
    activation: Option<(Activation, Tensor)>,
    product: Gemm,
}

/// The product of a call, if its shapes fit: x (rows, in), w (out, in), b (out), residual (rows, out).
fn checked(x: &Var, w: &Var, b: Option<&Var>, residual: Option<&Var>) -> Result<Gemm> {
    let (rows, dim) = (x.shape().rows(), x.shape().last());
    let [out, inner] = w.shape()[..] else {
        return mismatch("linear", format!("the weight has shape {}, expected (out, in)", w.shape()));
    };
    if inner != dim {
        return mismatch(
            "linear",
            format!("input {} and weight {} differ in their last dimension", x.shape(), w.shape()),
        );
    }
    if let Some(b) = b {
        expect_shape("linear", "the bias", b.shape(), [out])?;
    }
    if let Some(residual) = residual {
        expect_shape("linear", "the residual", residual.shape(), x.shape().with_last(out))?;
    }
    Ok(Gemm::new(Layout::Nt, rows, out, dim))
}

fn forward(x: &Var, w: &Var, b: Option<&Var>, act: Option<Activation>, residual: Option<&Var>) -> Result<Var> {
    let product = checked(x, w, b, residual)?;
    let shape = x.shape().with_last(product.n);
    let mut y = Tensor::empty(x.tensor().device(), x.dtype(), shape)?;
    let tracked = [Some(x), Some(w), b, residual].into_iter().flatten().any(Var::needs_gradient);
    let mut pre = match act {
        Some(_) if tracked => Some(y.like()?),
        _ => None,
    };
    let epilogue = Epilogue {
        bias: b.map(|b| b.tensor().view()),
        activation: act,
        pre: pre.as_mut().map(Tensor::view_mut).transpose()?,
        residual: residual.map(|r| r.tensor().view()),
        ..Epilogue::default()
    };
    gemm(product, x.tensor().view(), w.tensor().view(), &mut y.view_mut()?, epilogue)?;
    let none = Var::constant(x.tensor().clone());
    let inputs = [x, w, b.unwrap_or(&none), residual.unwrap_or(&none)];
    let (x, w) = (x.tensor().clone(), w.tensor().clone());
    Ok(record(&inputs, y, || Linear { x, w, activation: act.zip(pre), product }))
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let Linear { x, w, activation, product: Gemm { m: rows, n: out, k: dim, .. } } = *self;
        let residual = context.needs[3].then(|| dy.clone());
        let dpre = match activation {
            Some((activation, pre)) => {
                let mut dpre = dy.like()?;
                activate_backward(pre.view(), dy.view(), &mut dpre.view_mut()?, activation)?;
                dpre
            }
            None => dy,
        };
        let product = |shape, b: &Tensor, c: &mut ViewMut<'_>, accumulate| {
            let epilogue = Epilogue { accumulate, ..Epilogue::default() };
            Ok(gemm(shape, dpre.view(), b.view(), c, epilogue)?)
        };
        let mut dx = context.needs[0].then(|| x.like()).transpose()?;
        if let Some(dx) = &mut dx {
            product(Gemm::new(Layout::Nn, rows, dim, out), &w, &mut dx.view_mut()?, false)?;
        }
        let dw = context.gradient(1, &w, |dw, add| product(Gemm::new(Layout::Tn, out, dim, rows), &x, dw, add))?;
        let db = context.needs[2]
            .then(|| {
                let mut db = Tensor::empty(x.device(), x.dtype().accumulator(), [out])?;
                sum_axis(dpre.view(), &mut db.view_mut()?, 1, rows, out, 1.0)?;
                Result::Ok(db)
            })
            .transpose()?;
        Ok(vec![dx, dw, db, residual])
    }
}
