//! The forward pass, and the softmax weights for pictures.

use super::rows::{Shared, drop_row, pack, pack_transposed, softmax, unpack};
use super::sequence::Sequence;
use super::tile::{Left, Size, product};
use super::{Plan, decode, rows, scratch};
use crate::Element;
use crate::attention::Attention;
use crate::cpu::simd::{MAX_LANES, Real};
use num_traits::{Float, One, Zero};
use rayon::prelude::*;

/// Queries per block: few, so that a causal mask's upper half is mostly skipped.
const QUERIES: usize = 16;

/// Tasks below which heads of a group are not kept together, though they share keys.
const ENOUGH_TASKS: usize = 32;

/// See [`crate::attention::attention`].
pub(crate) fn forward<T: Element>(p: &Attention, q: &[T], k: &[T], v: &[T], out: &mut [T], lse: &mut [T::Acc]) {
    let plan = Plan::new(p, QUERIES);
    let (out, lse) = (Shared::new(out), Shared::new(lse));
    let heads =
        |batch| Heads { p, plan, sequence: Sequence::new(p, batch), batch, inputs: [q, k, v], out: &out, lse: &lse };
    if decode::fits(p) {
        return decode::forward(p, heads);
    }
    let together = if p.batch * p.kv_heads < ENOUGH_TASKS { 1 } else { plan.group() };
    (0..p.batch * p.q_heads / together).into_par_iter().for_each(|task| {
        let (batch, head) = (task * together / p.q_heads, task * together % p.q_heads);
        let heads = heads(batch);
        let Plan { block, width, keys, .. } = plan;
        let sizes = [p.head_dim * keys, p.k_len * width, block * width, block * keys, block];
        scratch::with(sizes, |[keys, values, queries, scores, inverse]| {
            let kv_head = plan.kv_head(batch, head / plan.group());
            pack_transposed(k, kv_head, heads.sequence.keys, keys, plan.keys);
            pack(v, kv_head, heads.sequence.keys, T::Acc::one(), values, width);
            for head in head..head + together {
                heads.attend(head, keys, values, queries, scores, inverse);
            }
        });
    });
}

/// Query heads of one sequence that share keys.
pub(super) struct Heads<'a, T: Element> {
    pub(super) p: &'a Attention<'a>,
    pub(super) plan: Plan,
    pub(super) sequence: Sequence<'a>,
    pub(super) batch: usize,
    pub(super) inputs: [&'a [T]; 3],
    pub(super) out: &'a Shared<'a, T>,
    pub(super) lse: &'a Shared<'a, T::Acc>,
}

impl<T: Element> Heads<'_, T> {
    fn attend(
        &self,
        head: usize,
        keys: &[T::Acc],
        values: &[T::Acc],
        queries: &mut [T::Acc],
        scores: &mut [T::Acc],
        inverse: &mut [T::Acc],
    ) {
        let Plan { block, width, .. } = self.plan;
        let rows = self.plan.q_head(self.batch, head);
        let [q, k, v] = self.inputs;
        for first in (0..self.sequence.queries).step_by(block) {
            let end = (first + block).min(self.sequence.queries);
            let (m, visible) = (end - first, self.sequence.visible_to(first, end));
            self.plan.prefetch_next(self.batch, head, first, end, &[q], &[k, v]);
            self.out.prefetch(rows.from(first), m);
            pack(q, rows.from(first), m, T::Acc::of(self.p.scale), queries, width);
            let whole = score(&self.plan, m, visible, queries, keys, scores);
            // SAFETY: rows of log-sum-exps belong to heads, and heads to tasks.
            let lse = unsafe { self.lse.row(self.plan.row(self.batch, head) + first, m) };
            softmax::<T::Acc>(&self.sequence, first, scores, self.plan.keys, whole, lse, &mut inverse[..m]);
            if self.p.dropout > 0.0 {
                drop_rows::<T::Acc>(
                    self.p,
                    self.plan.row(self.batch, head) + first,
                    m,
                    visible,
                    scores,
                    self.plan.keys,
                );
            }
            let size = Size { m, n: width, k: visible };
            let scores = Left::rows(scores, self.plan.keys);
            product::<T::Acc>(size, scores, values, width, queries, width, false);
            unpack(queries, width, &inverse[..m], self.out, rows.from(first));
        }
        self.clear(head, rows);
    }

    /// Zeros for the queries that do not count.
    pub(super) fn clear(&self, head: usize, rows: rows::Head) {
        for query in self.sequence.queries..self.p.q_len {
            // SAFETY: rows belong to heads, and heads to tasks.
            unsafe {
                self.out.row(rows.from(query).first, rows.dim).fill(T::narrow(T::Acc::zero()));
                self.lse.row(self.plan.row(self.batch, head) + query, 1)[0] = T::Acc::neg_infinity();
            }
        }
    }
}

/// Scores of `m` packed queries against the first `visible` packed keys, rounded up to registers; returns their number.
pub(super) fn score<A: Real + Element<Acc = A>>(
    plan: &Plan,
    m: usize,
    visible: usize,
    queries: &[A],
    keys: &[A],
    scores: &mut [A],
) -> usize {
    let size = Size { m, n: visible.next_multiple_of(MAX_LANES), k: plan.head_dim };
    product::<A>(size, Left::rows(queries, plan.width), keys, plan.keys, scores, plan.keys, false);
    size.n
}

/// Applies the dropout mask of `m` queries, the first of which is row `row` of `(batch, q_heads, q_len)`.
pub(super) fn drop_rows<A: Real + Element<Acc = A>>(
    p: &Attention,
    row: usize,
    m: usize,
    visible: usize,
    weights: &mut [A],
    width: usize,
) {
    for (i, weights) in weights.chunks_exact_mut(width).take(m).enumerate() {
        let first = (row + i) as u64 * p.k_len as u64;
        drop_row::<A>(&mut weights[..visible], p.dropout, p.seed, first);
    }
}

/// See [`crate::attention::attention_weights`].
pub(crate) fn weights<T: Element>(p: &Attention, q: &[T], k: &[T], lse: &[T::Acc], weights: &mut [T::Acc]) {
    let plan = Plan::new(p, QUERIES);
    let Plan { block, width, .. } = plan;
    weights.fill(T::Acc::zero());
    let heads = weights.par_chunks_mut((p.q_len * p.k_len).max(1)).enumerate();
    heads.for_each(|(task, weights)| {
        let (batch, head) = (task / p.q_heads, task % p.q_heads);
        let sequence = Sequence::new(p, batch);
        let rows = plan.q_head(batch, head);
        let lse = &lse[plan.row(batch, head)..];
        scratch::with([p.head_dim * plan.keys, block * width, block * plan.keys], |[keys, queries, scores]| {
            pack_transposed(k, plan.kv_head(batch, head / plan.group()), sequence.keys, keys, plan.keys);
            for first in (0..sequence.queries).step_by(block) {
                let end = (first + block).min(sequence.queries);
                let (m, visible) = (end - first, sequence.visible_to(first, end));
                pack(q, rows.from(first), m, T::Acc::of(p.scale), queries, width);
                let whole = score(&plan, m, visible, queries, keys, scores);
                rows::weights::<T::Acc>(&sequence, first, scores, plan.keys, whole, &lse[first..end]);
                let scores = scores.chunks_exact(plan.keys);
                for (weights, scores) in weights[first * p.k_len..end * p.k_len].chunks_exact_mut(p.k_len).zip(scores) {
                    weights[..visible].copy_from_slice(&scores[..visible]);
                }
            }
        });
    });
}
