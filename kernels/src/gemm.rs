//! Matrix products with a fused epilogue.

use crate::activation::Activation;
use crate::cpu::gemm::Finish;
use crate::cpu::simd::Real;
use crate::view::on_device;
use crate::{DType, Element, Error, Result, View, ViewMut, cpu};

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
        Gemm {
            layout,
            m,
            n,
            k,
            batch: 1,
        }
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
    /// `(batch, m, n)` T: multiplies the activation's result.
    pub gate: Option<View<'a>>,
    /// `(batch, m, n)` T: added at the end.
    pub residual: Option<View<'a>>,
}

/// `c = [c +] residual + gate ⊙ act(alpha·a·b + bias)`, `c` being `(batch, m, n)` of type T or A.
///
/// # Errors
/// Lengths that do not follow from `shape`, or types that differ.
pub fn gemm(shape: Gemm, a: View, b: View, c: &mut ViewMut, mut epilogue: Epilogue) -> Result<()> {
    check(shape, a, b, c, &epilogue)?;
    on_device!("gemm", a, T => {
        let finish = Finish::<T> {
            alpha: <T as Element>::Acc::of(epilogue.alpha.unwrap_or(1.0)),
            accumulate: epilogue.accumulate,
            bias: epilogue.bias.as_ref().map(|v| v.slice()),
            activation: epilogue.activation,
            pre: epilogue.pre.as_mut().map(|v| v.slice_mut().into()),
            gate: epilogue.gate.as_ref().map(|v| v.slice()),
            residual: epilogue.residual.as_ref().map(|v| v.slice()),
        };
        if c.dtype() == a.dtype() {
            cpu::gemm::gemm::<T, T>(shape, a.slice(), b.slice(), c.slice_mut(), finish);
        } else {
            cpu::gemm::gemm::<T, <T as Element>::Acc>(shape, a.slice(), b.slice(), c.slice_mut(), finish);
        }
    })
}

fn check(shape: Gemm, a: View, b: View, c: &ViewMut, epilogue: &Epilogue) -> Result<()> {
    const OP: &str = "gemm";
    let Gemm { m, n, k, batch, .. } = shape;
    a.expect_len(OP, "a", batch * m * k)?;
    b.expect_len(OP, "b", batch * k * n)?;
    b.expect_dtype(OP, "b", a.dtype())?;
    c.expect_len(OP, "c", batch * m * n)?;
    if c.dtype() != a.dtype() && c.dtype() != a.dtype().accumulator() {
        return Err(Error::Type {
            op: OP,
            what: "c",
            found: c.dtype(),
            expected: if a.dtype() == DType::BF16 {
                "bf16 or f32"
            } else {
                a.dtype().name()
            },
        });
    }
    if let Some(pre) = &epilogue.pre {
        pre.expect_len(OP, "pre", batch * m * n)?;
        pre.expect_dtype(OP, "pre", a.dtype())?;
    }
    let inputs = [
        ("bias", epilogue.bias, n),
        ("gate", epilogue.gate, batch * m * n),
        ("residual", epilogue.residual, batch * m * n),
    ];
    for (what, view, len) in inputs {
        if let Some(view) = view {
            view.expect_len(OP, what, len)?;
            view.expect_dtype(OP, what, a.dtype())?;
        }
    }
    Ok(())
}
