//! Scaled dot-product attention (Vaswani et al. 2017) without storing the score matrix (Dao et al. 2022).

use crate::error::{Result, expect_shape, mismatch};
use crate::tape::{Context, NoDerivative, Op, Var, record};
use crate::{Mask, Tensor};
use kernels::attention as kernel;

/// Which keys a query sees, and the rest of attention's settings.
#[derive(Debug, Clone, Default)]
pub struct Attend {
    /// The pattern.
    pub mask: Mask,
    /// (batch) I32: queries at or beyond give zeros.
    pub q_lens: Option<Tensor>,
    /// (batch) I32: keys at or beyond are unseen.
    pub k_lens: Option<Tensor>,
    /// (batch, keys) I32: key j is seen by query i when its segment is 0 or the query's own; below 0 it is padding.
    pub segments: Option<Tensor>,
    /// Factor on the scores; `1/√head_dim` when none.
    pub scale: Option<f64>,
    /// Probability with which a weight is dropped, and the mask's seed.
    pub dropout: (f64, u64),
    /// Keys used of those given, for a cache with room to grow; all when none. Gradients need all.
    pub keys: Option<usize>,
}

impl Attend {
    /// Full attention.
    pub fn full() -> Attend {
        Attend::default()
    }

    /// Each token sees itself and those before (aligned at the end when there are more keys than queries).
    pub fn causal() -> Attend {
        Attend { mask: Mask::Causal, ..Attend::default() }
    }

    fn problem(&self, q: &Tensor, k: &Tensor) -> Result<kernel::Attention<'_>> {
        let ([batch, q_len, q_heads, head_dim], [k_batch, kv_stride, kv_heads, k_dim]) =
            (&q.shape()[..], &k.shape()[..])
        else {
            let message =
                format!("queries {} and keys {}, expected (batch, tokens, heads, head_dim)", q.shape(), k.shape());
            return mismatch("attention", message);
        };
        if batch != k_batch || head_dim != k_dim || *kv_heads == 0 || q_heads % kv_heads != 0 {
            let message = format!(
                "queries {} do not fit keys {}: batch and head_dim must agree, heads divide",
                q.shape(),
                k.shape()
            );
            return mismatch("attention", message);
        }
        Ok(kernel::Attention {
            batch: *batch,
            q_len: *q_len,
            k_len: self.keys.unwrap_or(*kv_stride),
            q_heads: *q_heads,
            kv_heads: *kv_heads,
            head_dim: *head_dim,
            scale: self.scale.unwrap_or(1.0 / (*head_dim as f64).sqrt()),
            mask: self.mask,
            kv_stride: *kv_stride,
            q_lens: self.q_lens.as_ref().map(Tensor::view),
            k_lens: self.k_lens.as_ref().map(Tensor::view),
            segments: self.segments.as_ref().map(Tensor::view),
            dropout: self.dropout.0,
            seed: self.dropout.1,
        })
    }
}

/// `softmax(q·kᵀ·scale)·v` per head: q (batch, queries, heads, head_dim), k and v (batch, keys, kv_heads, head_dim);
/// a query that sees no key gives zeros.
pub fn attention(q: &Var, k: &Var, v: &Var, attend: Attend) -> Result<Var> {
    expect_shape("attention", "values", v.shape(), k.shape())?;
    let (out, lse) = forward(q.tensor(), k.tensor(), v.tensor(), &attend)?;
    let saved = [q, k, v].map(|x| x.tensor().clone());
    let y = out.clone();
    Ok(record(&[q, k, v], y, || Attention { qkv: saved, out, lse, attend }))
}

fn forward(q: &Tensor, k: &Tensor, v: &Tensor, attend: &Attend) -> Result<(Tensor, Tensor)> {
    let problem = attend.problem(q, k)?;
    let mut out = q.like()?;
    let lse_shape = [problem.batch, problem.q_heads, problem.q_len];
    let mut lse = Tensor::empty(q.device(), q.dtype().accumulator(), lse_shape)?;
    kernel::attention(&problem, q.view(), k.view(), v.view(), &mut out.view_mut()?, &mut lse.view_mut()?)?;
    Ok((out, lse))
}

/// The weights themselves, for pictures: (batch, heads, queries, keys) in the accumulator's type. Has no derivative.
pub fn attention_weights(q: &Var, k: &Var, attend: Attend) -> Result<Var> {
    let (_, lse) = forward(q.tensor(), k.tensor(), k.tensor(), &attend)?;
    let problem = attend.problem(q.tensor(), k.tensor())?;
    let shape = [problem.batch, problem.q_heads, problem.q_len, problem.k_len];
    let mut weights = Tensor::empty(q.tensor().device(), lse.dtype(), shape)?;
    kernel::attention_weights(&problem, q.tensor().view(), k.tensor().view(), lse.view(), &mut weights.view_mut()?)?;
    Ok(record(&[q, k], weights, || NoDerivative("attention_weights")))
}

struct Attention {
    qkv: [Tensor; 3],
    out: Tensor,
    lse: Tensor,
    attend: Attend,
}

impl Op for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let Attention { qkv: [q, k, v], out, lse, attend } = *self;
        let (mut dq, mut dk, mut dv) = (q.like()?, k.like()?, v.like()?);
        let [q_view, k_view, v_view] = [&q, &k, &v].map(Tensor::view);
        let saved =
            kernel::Saved { q: q_view, k: k_view, v: v_view, out: out.view(), lse: lse.view(), dout: dy.view() };
        let gradients = kernel::Gradients { dq: dq.view_mut()?, dk: dk.view_mut()?, dv: dv.view_mut()? };
        kernel::attention_backward(&attend.problem(&q, &k)?, saved, gradients)?;
        let needs = &context.needs;
        Ok(vec![needs[0].then_some(dq), needs[1].then_some(dk), needs[2].then_some(dv)])
    }
}
