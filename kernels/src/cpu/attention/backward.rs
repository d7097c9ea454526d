//! The backward pass: one task per key head, whose query heads add to its gradients one after another.

use super::forward::{drop_rows, score};
use super::rows::{Shared, pack, pack_transposed, row_dots, score_gradients, unpack, weights};
use super::sequence::Sequence;
use super::tile::{Left, Size, product};
use super::{Plan, scratch};
use crate::Element;
use crate::attention::Attention;
use crate::cpu::simd::Real;
use num_traits::{One, Zero};
use rayon::prelude::*;

/// Queries per block.
const QUERIES: usize = 32;

/// What the backward pass reads.
pub(crate) struct Saved<'a, T: Element> {
    pub(crate) q: &'a [T],
    pub(crate) k: &'a [T],
    pub(crate) v: &'a [T],
    pub(crate) out: &'a [T],
    pub(crate) lse: &'a [T::Acc],
    pub(crate) dout: &'a [T],
}

/// See [`crate::attention::attention_backward`].
pub(crate) fn backward<T: Element>(p: &Attention, saved: Saved<T>, dq: &mut [T], dk: &mut [T], dv: &mut [T]) {
    let plan = Plan::new(p, QUERIES);
    let (dq, dk, dv) = (Shared::new(dq), Shared::new(dk), Shared::new(dv));
    let Plan { block, width, keys, .. } = plan;
    let (wide, tall, part) = (p.head_dim * keys, p.k_len * width, block * width);
    let sizes = [
        wide,
        wide,
        tall,
        tall,
        tall,
        part,
        part,
        part,
        block * keys,
        block * keys,
        block,
        p.k_len,
    ];
    (0..p.batch * p.kv_heads).into_par_iter().for_each(|task| {
        let (batch, kv_head) = (task / p.kv_heads, task % p.kv_heads);
        let sequence = Sequence::new(p, batch);
        let rows = plan.kv_head(batch, kv_head);
        scratch::with(
            sizes,
            |[
                keys_t,
                values_t,
                keys,
                dk_sum,
                dv_sum,
                queries,
                dout,
                dq_rows,
                scores,
                gradients,
                delta,
                ones,
            ]| {
                pack_transposed(saved.k, rows, sequence.keys, keys_t, plan.keys);
                pack_transposed(saved.v, rows, sequence.keys, values_t, plan.keys);
                pack(saved.k, rows, sequence.keys, T::Acc::one(), keys, width);
                dk_sum.fill(T::Acc::zero());
                dv_sum.fill(T::Acc::zero());
                ones.fill(T::Acc::one());
                let mut group = Group {
                    p,
                    plan,
                    sequence,
                    saved: &saved,
                    dq: &dq,
                    keys_t,
                    values_t,
                    keys,
                    dk: dk_sum,
                    dv: dv_sum,
                    queries,
                    dout,
                    dq_rows,
                    scores,
                    gradients,
                    delta,
                };
                for head in kv_head * plan.group()..(kv_head + 1) * plan.group() {
                    group.head(batch, head);
                }
                unpack(group.dk, width, ones, &dk, rows);
                unpack(group.dv, width, ones, &dv, rows);
            },
        );
    });
}

/// The query heads of one key head, and scratch for a block of their queries.
struct Group<'a, T: Element> {
    p: &'a Attention<'a>,
    plan: Plan,
    sequence: Sequence<'a>,
    saved: &'a Saved<'a, T>,
    dq: &'a Shared<'a, T>,
    keys_t: &'a [T::Acc],
    values_t: &'a [T::Acc],
    keys: &'a [T::Acc],
    dk: &'a mut [T::Acc],
    dv: &'a mut [T::Acc],
    queries: &'a mut [T::Acc],
    dout: &'a mut [T::Acc],
    dq_rows: &'a mut [T::Acc],
    scores: &'a mut [T::Acc],
    gradients: &'a mut [T::Acc],
    delta: &'a mut [T::Acc],
}

impl<T: Element> Group<'_, T> {
    fn head(&mut self, batch: usize, head: usize) {
        let rows = self.plan.q_head(batch, head);
        for first in (0..self.sequence.queries).step_by(self.plan.block) {
            let m = self.plan.block.min(self.sequence.queries - first);
            self.block(batch, head, first, m);
        }
        for query in self.sequence.queries..self.p.q_len {
            // SAFETY: rows of dq belong to query heads, and those to tasks.
            let dq = unsafe { self.dq.row(rows.from(query).first, rows.dim) };
            dq.fill(T::narrow(T::Acc::zero()));
        }
    }

    /// Queries `first..first + m` of a head: their dq, and their part of dk and dv.
    fn block(&mut self, batch: usize, head: usize, first: usize, m: usize) {
        let Plan { width, keys, .. } = self.plan;
        let (saved, scale) = (self.saved, T::Acc::of(self.p.scale));
        let visible = self.sequence.visible_to(first, first + m);
        let (rows, row) = (
            self.plan.q_head(batch, head).from(first),
            self.plan.row(batch, head) + first,
        );
        self.plan.prefetch_next(
            batch,
            head,
            first,
            first + m,
            &[saved.q, saved.out, saved.dout],
            &[saved.k, saved.v],
        );
        pack(saved.q, rows, m, scale, self.queries, width);
        pack(saved.dout, rows, m, T::Acc::one(), self.dout, width);
        row_dots(saved.dout, saved.out, rows, &mut self.delta[..m]);

        let whole = score(&self.plan, m, visible, self.queries, self.keys_t, self.scores);
        weights::<T::Acc>(&self.sequence, first, self.scores, keys, whole, &saved.lse[row..][..m]);
        score(&self.plan, m, visible, self.dout, self.values_t, self.gradients);
        if self.p.dropout > 0.0 {
            drop_rows(self.p, row, m, visible, self.gradients, keys);
        }
        score_gradients::<T::Acc>(self.scores, self.gradients, keys, whole, &self.delta[..m]);
        if self.p.dropout > 0.0 {
            drop_rows(self.p, row, m, visible, self.scores, keys);
        }

        let size = |m, k| Size { m, n: width, k };
        let (weights, gradients) = (
            Left::transposed(self.scores, keys),
            Left::transposed(self.gradients, keys),
        );
        product::<T::Acc>(size(visible, m), weights, self.dout, width, self.dv, width, true);
        product::<T::Acc>(size(visible, m), gradients, self.queries, width, self.dk, width, true);
        let gradients = Left::rows(self.gradients, keys);
        product::<T::Acc>(
            size(m, visible),
            gradients,
            self.keys,
            width,
            self.dq_rows,
            width,
            false,
        );
        self.delta[..m].fill(scale);
        unpack(self.dq_rows, width, &self.delta[..m], self.dq, rows);
    }
}
