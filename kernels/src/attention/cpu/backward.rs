//! The backward pass: one task per key head, whose query heads add to its gradients one after another.

use super::forward::{drop_rows, score};
use super::rows::{Shared, pack, pack_transposed, row_dots, score_gradients, unpack, weights};
use super::sequence::Sequence;
use super::tile::{Left, Size, product};
use super::{Plan, scratch};
use crate::Element;
use crate::attention::{Attention, Gradients, Saved};
use crate::cpu::simd::Real;
use num_traits::{One, Zero};
use rayon::prelude::*;

/// Queries per block.
const QUERIES: usize = 32;

/// What the backward pass reads.
struct Slices<'a, T: Element> {
    q: &'a [T],
    k: &'a [T],
    v: &'a [T],
    out: &'a [T],
    lse: &'a [T::Acc],
    dout: &'a [T],
}

/// See [`crate::attention::attention_backward`].
pub(crate) fn backward<T: Element>(p: &Attention, saved: Saved, mut gradients: Gradients) {
    let Saved { q, k, v, out, lse, dout } = saved;
    let (q, k, v, out, lse, dout) = (q.slice(), k.slice(), v.slice(), out.slice(), lse.slice(), dout.slice());
    let pass = Pass::<T> {
        p,
        plan: Plan::new(p, QUERIES),
        saved: Slices { q, k, v, out, lse, dout },
        dq: Shared::new(gradients.dq.slice_mut()),
        dk: Shared::new(gradients.dk.slice_mut()),
        dv: Shared::new(gradients.dv.slice_mut()),
    };
    (0..p.batch * p.kv_heads)
        .into_par_iter()
        .for_each(|task| scratch::with(pass.sizes(), |memory| pass.key_head(task, memory)));
}

/// What all tasks share: sizes, inputs and outputs.
struct Pass<'a, T: Element> {
    p: &'a Attention<'a>,
    plan: Plan,
    saved: Slices<'a, T>,
    dq: Shared<'a, T>,
    dk: Shared<'a, T>,
    dv: Shared<'a, T>,
}

impl<T: Element> Pass<'_, T> {
    /// Sizes of the memory of [`Pass::key_head`], in its order.
    fn sizes(&self) -> [usize; 12] {
        let Plan { block, width, keys, .. } = self.plan;
        let (wide, tall) = (self.p.head_dim * keys, self.p.k_len * width);
        let (part, scores) = (block * width, block * keys);
        [wide, wide, tall, tall, tall, part, part, part, scores, scores, block, self.p.k_len]
    }

    /// Key head `task` of `(batch, kv_heads)`: its gradients, and those of the query heads that share it.
    fn key_head(&self, task: usize, memory: [&mut [T::Acc]; 12]) {
        let [keys_t, values_t, keys, dk, dv, queries, dout, dq_rows, scores, gradients, delta, ones] = memory;
        let (p, plan, saved) = (self.p, self.plan, &self.saved);
        let (batch, kv_head) = (task / p.kv_heads, task % p.kv_heads);
        let (sequence, rows) = (Sequence::new(p, batch), plan.kv_head(batch, kv_head));
        self.dk.prefetch(rows, p.k_len);
        self.dv.prefetch(rows, p.k_len);
        pack_transposed(saved.k, rows, sequence.keys, keys_t, plan.keys);
        pack_transposed(saved.v, rows, sequence.keys, values_t, plan.keys);
        pack(saved.k, rows, sequence.keys, T::Acc::one(), keys, plan.width);
        dk.fill(T::Acc::zero());
        dv.fill(T::Acc::zero());
        ones.fill(T::Acc::one());
        let mut group = Group {
            pass: self,
            sequence,
            keys_t,
            values_t,
            keys,
            dk,
            dv,
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
        unpack(group.dk, plan.width, ones, &self.dk, rows);
        unpack(group.dv, plan.width, ones, &self.dv, rows);
    }
}

/// The query heads of one key head, and scratch for a block of their queries.
struct Group<'a, T: Element> {
    pass: &'a Pass<'a, T>,
    sequence: Sequence<'a>,
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
        let Pass { p, plan, dq, .. } = self.pass;
        let rows = plan.q_head(batch, head);
        for first in (0..self.sequence.queries).step_by(plan.block) {
            let m = plan.block.min(self.sequence.queries - first);
            self.block(batch, head, first, m);
        }
        for query in self.sequence.queries..p.q_len {
            // SAFETY: rows of dq belong to query heads, and those to tasks.
            let dq = unsafe { dq.row(rows.from(query).first, rows.dim) };
            dq.fill(T::narrow(T::Acc::zero()));
        }
    }

    /// Queries `first..first + m` of a head: their dq, and their part of dk and dv.
    fn block(&mut self, batch: usize, head: usize, first: usize, m: usize) {
        let Pass { p, plan, saved, dq, .. } = self.pass;
        let Plan { width, keys, .. } = *plan;
        let visible = self.sequence.visible_to(first, first + m);
        let (rows, row) = (plan.q_head(batch, head).from(first), plan.row(batch, head) + first);
        plan.prefetch_next(batch, head, first, first + m, &[saved.q, saved.out, saved.dout], &[saved.k, saved.v]);
        dq.prefetch(rows, m);
        pack(saved.q, rows, m, T::Acc::of(p.scale), self.queries, width);
        pack(saved.dout, rows, m, T::Acc::one(), self.dout, width);
        row_dots(saved.dout, saved.out, rows, &mut self.delta[..m]);

        let whole = score(plan, m, visible, self.queries, self.keys_t, self.scores);
        weights::<T::Acc>(&self.sequence, first, self.scores, keys, whole, &saved.lse[row..][..m]);
        score(plan, m, visible, self.dout, self.values_t, self.gradients);
        if p.dropout > 0.0 {
            drop_rows(p, row, m, visible, self.gradients, keys);
        }
        score_gradients::<T::Acc>(self.scores, self.gradients, keys, whole, &self.delta[..m]);
        if p.dropout > 0.0 {
            drop_rows(p, row, m, visible, self.scores, keys);
        }

        let size = |m, k| Size { m, n: width, k };
        let (weights, gradients) = (Left::transposed(self.scores, keys), Left::transposed(self.gradients, keys));
        product::<T::Acc>(size(visible, m), weights, self.dout, width, self.dv, width, true);
        product::<T::Acc>(size(visible, m), gradients, self.queries, width, self.dk, width, true);
        let gradients = Left::rows(self.gradients, keys);
        product::<T::Acc>(size(m, visible), gradients, self.keys, width, self.dq_rows, width, false);
        self.delta[..m].fill(T::Acc::of(p.scale));
        unpack(self.dq_rows, width, &self.delta[..m], dq, rows);
    }
}
