//! Matrix products with a fused epilogue.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::activation::Activation;
use crate::cpu::simd::Real;
use crate::dispatch::Call;
use crate::view::on_device;
use crate::{Element, Result, View, ViewMut, profile};

/// Which operand is stored transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Layout {
    /// `a` is `(m, k)`, `b` is `(k, n)`.
    Nn,
    /// `a` is `(m, k)`, `b` is `(n, k)` and enters transposed: a linear layer.
    Nt,
    /// `a` is `(k, m)` and enters transposed, `b` is `(k, n)`: a weight gradient.
    Tn,
}

/// The sizes of a product `(m, k)·(k, n)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Gemm {
    /// How `a` and `b` are stored.
    pub layout: Layout,
    /// Rows of the result.
    pub m: usize,
    /// Columns of the result.
    pub n: usize,
    /// Length of the sums.
    pub k: usize,
    /// Number of products; their matrices lie one after another.
    pub batch: usize,
}

impl Gemm {
    /// One product.
    pub fn new(layout: Layout, m: usize, n: usize, k: usize) -> Gemm {
        Gemm { layout, m, n, k, batch: 1 }
    }
}

/// What happens to a product before it is stored.
#[derive(Debug, Default)]
pub struct Epilogue<'a> {
    /// Factor of the product; 1 when absent.
    pub alpha: Option<f64>,
    /// Add to what `c` holds.
    pub accumulate: bool,
    /// `(n)` T, added to every row; shared by the batch.
    pub bias: Option<View<'a>>,
    /// Applied after the bias.
    pub activation: Option<Activation>,
    /// `(batch, m, n)` T: receives `alpha·a·b + bias`, what the activation's derivative needs.
    pub pre: Option<ViewMut<'a>>,
    /// `(batch, m, n)` T: added at the end.
    pub residual: Option<View<'a>>,
}

/// `c = [c +] residual + act(alpha·a·b + bias)`, `c` being `(batch, m, n)` of type T or A. On a GPU f32 may be multiplied as
/// tf32, see [`Device::allow_tf32`](crate::Device::allow_tf32).
///
/// # Errors
/// Lengths that do not follow from `shape`, or types that differ.
pub fn gemm(shape: Gemm, a: View, b: View, c: &mut ViewMut, mut epilogue: Epilogue) -> Result<()> {
    check(shape, a, b, c, &epilogue)?;
    profile::computes(2.0 * shape.batch as f64 * shape.m as f64 * shape.n as f64 * shape.k as f64);
    on_device!("gemm", a, T => {
        let slices = cpu::Epilogue::<T> {
            alpha: <T as Element>::Acc::of(epilogue.alpha.unwrap_or(1.0)),
            accumulate: epilogue.accumulate,
            bias: epilogue.bias.as_ref().map(|v| v.slice()),
            activation: epilogue.activation,
            pre: epilogue.pre.as_mut().map(|v| v.slice_mut().into()),
            residual: epilogue.residual.as_ref().map(|v| v.slice()),
        };
        if c.dtype() == a.dtype() {
            cpu::gemm::<T, T>(shape, a.slice(), b.slice(), c.slice_mut(), slices);
        } else {
            cpu::gemm::<T, <T as Element>::Acc>(shape, a.slice(), b.slice(), c.slice_mut(), slices);
        }
    }, gpu => gpu::gemm(shape, a, b, c, epilogue))
}

fn check(shape: Gemm, a: View, b: View, c: &ViewMut, epilogue: &Epilogue) -> Result<()> {
    let call = Call::new("gemm", "a", &a)?;
    let Gemm { m, n, k, batch, .. } = shape;
    let size = call.elements(&[batch, m, n])?;
    call.same("a", &a, call.elements(&[batch, m, k])?)?;
    call.same("b", &b, call.elements(&[batch, k, n])?)?;
    call.same_or_accumulator("c", c, size)?;
    if let Some(pre) = &epilogue.pre {
        call.same("pre", pre, size)?;
    }
    let inputs = [("bias", epilogue.bias, n), ("residual", epilogue.residual, size)];
    for (what, view, len) in inputs {
        if let Some(view) = view {
            call.same(what, &view, len)?;
        }
    }
    Ok(())
}
