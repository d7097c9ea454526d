//! Losses over a vocabulary: the last linear layer and the cross-entropy in one, so that the logits of all rows never
//! exist at once.
//!
//! With logits z = x·wᵀ of shape (rows, vocab), target t and smoothing ε, the loss of a row is
//! (1 − ε)·(lse z − z_t) + ε·(lse z − mean z), and its derivative to z is softmax z − (1 − ε)·δ_t − ε/vocab, which costs
//! little to compute in the forward pass while a chunk of logits is at hand (Wijmans et al., "Cut Your Losses", 2024).

use crate::view::on_device;
use crate::{DType, Error, Result, View, ViewMut, cpu};

/// Sizes and options of a linear layer followed by cross-entropy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CrossEntropy {
    /// Rows: all tokens of a batch.
    pub rows: usize,
    /// Width of a row of `x` and `w`.
    pub dim: usize,
    /// Classes.
    pub vocab: usize,
    /// The target of rows that do not count.
    pub ignore_index: i32,
    /// Label smoothing ε: the part of the target's weight that is spread over all classes.
    pub smoothing: f64,
}

/// The mean cross-entropy of `x·wᵀ` over the rows that are not ignored, and its derivatives (for upstream gradient 1).
///
/// `x` (rows, dim) and `w` (vocab, dim) of T, `targets` (rows) of I32. Outputs: `loss` (1) of A, 0 when all rows are
/// ignored; `losses` (rows) of A, 0 where ignored; `predictions` (rows) of I32, the class with the largest logit (the
/// first of equals), −1 where ignored; `dx` (rows, dim) of T, 0 where ignored; `dw` (vocab, dim) of A.
/// Ignored rows are not computed, so their `x` may hold anything.
///
/// # Errors
/// Lengths or types that do not fit; a target that is neither a class nor `ignore_index`; smoothing outside 0..=1.
pub fn linear_cross_entropy(
    p: &CrossEntropy,
    x: View,
    w: View,
    targets: View,
    loss: &mut ViewMut,
    losses: &mut ViewMut,
    predictions: &mut ViewMut,
    mut dx: Option<&mut ViewMut>,
    mut dw: Option<&mut ViewMut>,
) -> Result<()> {
    const OP: &str = "linear_cross_entropy";
    let (element, acc) = (x.dtype(), x.dtype().accumulator());
    x.expect_len(OP, "x", p.rows * p.dim)?;
    w.expect_len(OP, "w", p.vocab * p.dim)?;
    w.expect_dtype(OP, "w", element)?;
    targets.expect_len(OP, "targets", p.rows)?;
    targets.expect_dtype(OP, "targets", DType::I32)?;
    loss.expect_len(OP, "loss", 1)?;
    loss.expect_dtype(OP, "loss", acc)?;
    losses.expect_len(OP, "losses", p.rows)?;
    losses.expect_dtype(OP, "losses", acc)?;
    predictions.expect_len(OP, "predictions", p.rows)?;
    predictions.expect_dtype(OP, "predictions", DType::I32)?;
    if let Some(dx) = &dx {
        dx.expect_len(OP, "dx", p.rows * p.dim)?;
        dx.expect_dtype(OP, "dx", element)?;
    }
    if let Some(dw) = &dw {
        dw.expect_len(OP, "dw", p.vocab * p.dim)?;
        dw.expect_dtype(OP, "dw", acc)?;
    }
    if !(0.0..=1.0).contains(&p.smoothing) {
        let message = format!("smoothing {} is outside 0..=1", p.smoothing);
        return Err(Error::Value { op: OP, message });
    }
    on_device!("linear_cross_entropy", x, T => cpu::loss::linear_cross_entropy::<T>(
        p,
        x.slice(),
        w.slice(),
        targets.slice(),
        &mut cpu::loss::Outputs {
            loss: &mut loss.slice_mut()[0],
            losses: losses.slice_mut(),
            predictions: predictions.slice_mut(),
            dx: dx.as_mut().map(|dx| dx.slice_mut()),
            dw: dw.as_mut().map(|dw| dw.slice_mut()),
        },
    )?)
}
