//! Attention in plain loops.

use super::Array;
use crate::Mask;
use rayon::prelude::*;

/// Which keys a query sees, as attention's contract says it.
#[derive(Clone, Default)]
pub(in super::super) struct Sight {
    pub(in super::super) mask: Mask,
    pub(in super::super) q_lens: Option<Vec<i32>>,
    pub(in super::super) k_lens: Option<Vec<i32>>,
    pub(in super::super) segments: Option<Vec<i32>>,
    /// As [`crate::ops::Attend::dropout`].
    pub(in super::super) dropout: (f64, u64),
}

impl Sight {
    fn sees(&self, batch: usize, (i, q_len): (usize, usize), (j, k_len): (usize, usize)) -> bool {
        let by_mask = match self.mask {
            Mask::Full => true,
            Mask::Causal => j + q_len <= i + k_len,
            Mask::Window(window) => j + q_len <= i + k_len && j + q_len + window > i + k_len,
            Mask::PrefixCausal(prefix) => j < prefix || (i >= prefix && j <= i),
        };
        let within = |lens: &Option<Vec<i32>>, place: usize| lens.as_ref().is_none_or(|l| (place as i32) < l[batch]);
        let by_segment = self.segments.as_ref().is_none_or(|s| {
            let (key, query) = (s[batch * k_len + j], s[batch * k_len + i + k_len - q_len]);
            key == 0 || (key > 0 && key == query)
        });
        by_mask && within(&self.q_lens, i) && within(&self.k_lens, j) && by_segment
    }
}

/// A key that a query sees: its place among the sequence's keys, its row of k, its weight, and the factor of dropout on that.
struct Seen {
    place: usize,
    row: usize,
    weight: f64,
    kept: f64,
}

/// What every row of q sees: q is (batch, queries, heads, head_dim), k (batch, keys, kv_heads, head_dim).
fn look(q: &Array, k: &Array, sight: &Sight) -> Vec<Vec<Seen>> {
    let ([_, q_len, heads, dim], [_, k_len, kv_heads, _]) = (&q.shape[..], &k.shape[..]) else {
        unreachable!("rank 4")
    };
    let (p, seed) = sight.dropout;
    let factors = (p > 0.0).then(|| super::dropout_factors(q.data.len() / dim * k_len, p, seed));
    let one = |row: usize| {
        let (batch, i, head) = (row / (q_len * heads), row / heads % q_len, row % heads);
        let first = ((batch * heads + head) * q_len + i) * k_len;
        let key_row = |j: usize| (batch * k_len + j) * kv_heads + head / (heads / kv_heads);
        let places: Vec<usize> = (0..*k_len).filter(|j| sight.sees(batch, (i, *q_len), (*j, *k_len))).collect();
        let scores: Vec<f64> =
            places.iter().map(|j| dot(q.row(row), k.row(key_row(*j))) / (*dim as f64).sqrt()).collect();
        let lse = super::log_sum_exp(&scores);
        let seen = places.into_iter().zip(scores).map(|(place, score)| Seen {
            place,
            row: key_row(place),
            weight: (score - lse).exp(),
            kept: factors.as_ref().map_or(1.0, |factors| factors[first + place]),
        });
        seen.collect()
    };
    (0..q.data.len() / dim).into_par_iter().map(one).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// `y += factor · x`
fn add(y: &mut [f64], factor: f64, x: &[f64]) {
    y.iter_mut().zip(x).for_each(|(y, x)| *y += factor * x);
}

/// softmax(q·kᵀ/√head_dim)·v over the keys each query sees; q (batch, queries, heads, head_dim), k, v (batch, keys,
/// kv_heads, head_dim).
pub(in super::super) fn attention(q: &Array, k: &Array, v: &Array, sight: &Sight) -> Array {
    let mut out = Array::zeros(q.shape);
    for (seen, out) in look(q, k, sight).iter().zip(out.data.chunks_mut(q.shape.last())) {
        seen.iter().for_each(|key| add(out, key.weight * key.kept, v.row(key.row)));
    }
    out
}

/// The gradients of q, k and v: with the weights P and dropout's factors Z, dv = (P ⊙ Z)ᵀ·dout,
/// dS = P ⊙ (Z ⊙ dout·vᵀ − rowsum(dout ⊙ out)), dq = dS·k/√head_dim, dk = dSᵀ·q/√head_dim.
pub(in super::super) fn attention_backward([q, k, v]: [&Array; 3], sight: &Sight, dout: &Array) -> Vec<Array> {
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| Array::zeros(x.shape));
    let dim = q.shape.last();
    let scale = 1.0 / (dim as f64).sqrt();
    for (row, seen) in look(q, k, sight).iter().enumerate() {
        let dout = dout.row(row);
        let dweights: Vec<f64> = seen.iter().map(|key| key.kept * dot(dout, v.row(key.row))).collect();
        let mean: f64 = seen.iter().zip(&dweights).map(|(key, d)| key.weight * d).sum();
        for (key, dweight) in seen.iter().zip(dweights) {
            let (ds, own) = (key.weight * (dweight - mean) * scale, key.row * dim..(key.row + 1) * dim);
            add(&mut dv.data[own.clone()], key.weight * key.kept, dout);
            add(&mut dk.data[own], ds, q.row(row));
            add(&mut dq.data[row * dim..(row + 1) * dim], ds, k.row(key.row));
        }
    }
    vec![dq, dk, dv]
}

/// The weights themselves, (batch, heads, queries, keys).
pub(in super::super) fn attention_weights(q: &Array, k: &Array, sight: &Sight) -> Array {
    let (batch, q_len, heads, k_len) = (q.shape[0], q.shape[1], q.shape[2], k.shape[1]);
    let mut weights = Array::zeros([batch, heads, q_len, k_len]);
    for (row, seen) in look(q, k, sight).iter().enumerate() {
        let (batch, i, head) = (row / (q_len * heads), row / heads % q_len, row % heads);
        for key in seen {
            weights.data[((batch * heads + head) * q_len + i) * k_len + key.place] = key.weight;
        }
    }
    weights
}
