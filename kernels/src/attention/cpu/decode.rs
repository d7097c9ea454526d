//! The forward pass for few queries, as in decoding: each key is used so seldom that putting it where `product` wants it
//! would cost more than the product. Keys and values are read as they lie.

use super::forward::Heads;
use super::rows::{Head, pack, softmax, unpack};
use super::scratch;
use crate::Element;
use crate::attention::Attention;
use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{CHUNK, for_chunks};
use crate::cpu::simd::{MAX_LANES, Real, simd};
use num_traits::Zero;

/// Most queries.
const FEW: usize = 4;
/// Keys, or values, side by side: their sums do not wait for one another.
const SIDE: usize = 4;

/// Whether [`forward`] takes the call.
pub(super) fn fits(p: &Attention) -> bool {
    p.q_len <= FEW && p.dropout == 0.0
}

/// All heads of all sequences, those that share keys one after another.
pub(super) fn forward<'a, T: Element>(p: &Attention, heads: impl Fn(usize) -> Heads<'a, T> + Sync) {
    let work = p.q_len * p.k_len * p.head_dim;
    let (all, per) = (p.batch * p.q_heads, (CHUNK / work.max(1)).max(1));
    for_chunks(all.div_ceil(per), (), |chunk, ()| {
        for index in chunk * per..all.min((chunk + 1) * per) {
            heads(index / p.q_heads).attend_few(index % p.q_heads);
        }
    });
}

impl<T: Element> Heads<'_, T> {
    fn attend_few(&self, head: usize) {
        let (plan, dim) = (self.plan, self.p.head_dim);
        let [q, k, v] = self.inputs;
        let rows = plan.q_head(self.batch, head);
        let shared = plan.kv_head(self.batch, head / plan.group());
        let sizes = [plan.width, plan.keys, plan.width, 1];
        scratch::with(sizes, |[query, scores, mixed, inverse]| {
            for i in 0..self.sequence.queries {
                let visible = self.sequence.visible(i);
                pack(q, rows.from(i), 1, T::Acc::of(self.p.scale), query, plan.width);
                score_row::<T>(&query[..dim], k, shared, &mut scores[..visible]);
                // SAFETY: rows of log-sum-exps belong to heads, and heads to tasks.
                let lse = unsafe { self.lse.row(plan.row(self.batch, head) + i, 1) };
                let whole = visible.next_multiple_of(MAX_LANES);
                softmax::<T::Acc>(&self.sequence, i, scores, plan.keys, whole, lse, inverse);
                mix_row::<T>(&scores[..visible], v, shared, &mut mixed[..dim]);
                unpack(mixed, plan.width, inverse, self.out, rows.from(i));
            }
        });
        self.clear(head, rows);
    }
}

simd! {
    /// The products of a query with the first keys of a head, one for each score.
    fn score_row<V; T: Element>(query: &[T::Acc], k: &[T], head: Head, scores: &mut [T::Acc]) {
        let rows = scores.len();
        for (at, scores) in scores.chunks_mut(SIDE).enumerate() {
            let mut keys = [&k[..0]; SIDE];
            for (j, key) in keys.iter_mut().enumerate() {
                // Past the last key the last one once more: its product is not kept.
                let row = (at * SIDE + j).min(rows - 1);
                *key = &k[head.first + row * head.stride..][..query.len()];
            }
            let mut sums = [V::zero(); SIDE];
            lanes!(V, query.len(), at => {
                let x: V = at.load::<T::Acc, V>(query, T::Acc::zero());
                for j in 0..SIDE {
                    sums[j] = x.fma(at.load(keys[j], T::Acc::zero()), sums[j]);
                }
            });
            for (score, sum) in scores.iter_mut().zip(sums) {
                *score = sum.sum();
            }
        }
    }

    /// The sum of the first values of a head, each times its weight.
    fn mix_row<V; T: Element>(weights: &[T::Acc], v: &[T], head: Head, mixed: &mut [T::Acc]) {
        let dim = mixed.len();
        let row = |i: usize| &v[head.first + i * head.stride..][..dim];
        let whole = weights.len() - weights.len() % SIDE;
        lanes!(V, dim, at => {
            let mut sums = [V::zero(); SIDE];
            for i in (0..whole).step_by(SIDE) {
                for j in 0..SIDE {
                    sums[j] = V::splat(weights[i + j]).fma(at.load(row(i + j), T::Acc::zero()), sums[j]);
                }
            }
            for i in whole..weights.len() {
                sums[0] = V::splat(weights[i]).fma(at.load(row(i), T::Acc::zero()), sums[0]);
            }
            at.store::<T::Acc, V>(mixed, (sums[0] + sums[1]) + (sums[2] + sums[3]));
        });
    }
}
