//! Losses over a vocabulary: the last linear layer and the cross-entropy in one, so that the logits of all rows never
//! exist at once.
//!
//! With logits z = x·wᵀ of shape (rows, vocab) and target t the loss of a row is lse z − z_t, and its derivative to z is
//! softmax z − δ_t, which costs little to compute in the forward pass while a chunk of logits is at hand (Wijmans et al., "Cut
//! Your Losses", 2024).

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Result, View, ViewMut, profile};

/// Sizes and options of a linear layer followed by cross-entropy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CrossEntropy {
    /// Rows: all tokens of a batch.
    pub rows: usize,
    /// Width of a row of `x` and `w`.
    pub dim: usize,
    /// Classes.
    pub vocab: usize,
    /// The target of rows that do not count.
    pub ignore_index: i32,
}

/// What [`linear_cross_entropy`] writes.
#[derive(Debug)]
pub struct Outputs<'a> {
    /// (1) of A: 0 when all rows are ignored.
    pub loss: ViewMut<'a>,
    /// (rows) of A: 0 where ignored.
    pub losses: ViewMut<'a>,
    /// (rows) of I32: the class with the largest logit (the first of equals), −1 where ignored.
    pub predictions: ViewMut<'a>,
    /// (rows, dim) of T: 0 where ignored.
    pub dx: Option<ViewMut<'a>>,
    /// (vocab, dim) of A.
    pub dw: Option<ViewMut<'a>>,
}

/// The mean cross-entropy of `x·wᵀ` over the rows that are not ignored, and its derivatives (for upstream gradient 1).
///
/// `x` (rows, dim) and `w` (vocab, dim) of T, `targets` (rows) of I32. Ignored rows are not computed, so their `x` may hold
/// anything.
///
/// # Errors
/// A target that is neither a class nor `ignore_index`. Where CUDA kernels run nobody waits for the targets to be looked at:
/// there such a row's loss is NaN, and the gradients.
pub fn linear_cross_entropy(p: &CrossEntropy, x: View, w: View, targets: View, out: Outputs) -> Result<()> {
    let call = Call::new("linear_cross_entropy", "x", &x)?;
    call.same("x", &x, p.rows * p.dim)?;
    call.same("w", &w, p.vocab * p.dim)?;
    call.typed("targets", &targets, DType::I32, p.rows)?;
    call.accumulator("loss", &out.loss, 1)?;
    call.accumulator("losses", &out.losses, p.rows)?;
    call.typed("predictions", &out.predictions, DType::I32, p.rows)?;
    if let Some(dx) = &out.dx {
        call.same("dx", dx, p.rows * p.dim)?;
    }
    if let Some(dw) = &out.dw {
        call.accumulator("dw", dw, p.vocab * p.dim)?;
    }
    let products = 1 + u8::from(out.dx.is_some()) + u8::from(out.dw.is_some());
    profile::computes(2.0 * f64::from(products) * p.rows as f64 * p.vocab as f64 * p.dim as f64);
    on_device!("linear_cross_entropy", x, T => cpu::linear_cross_entropy::<T>(p, x, w, targets, out)?,
        gpu => gpu::linear_cross_entropy(p, x, w, targets, out))
}
