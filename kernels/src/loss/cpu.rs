//! Linear + cross-entropy on the CPU: chunks of rows, each with two passes over its logits between three products.

use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{chunk_rows, for_chunks};
use crate::cpu::score::{Scratch, Statistics, narrow_space, narrowed, statistics};
use crate::cpu::simd::{Real, simd};
use crate::elementwise::cpu::scale_chunk;
use crate::gemm::cpu::product;
use crate::gemm::{Gemm, Layout};
use crate::loss::{CrossEntropy, Outputs};
use crate::{Element, Error, Result, Stored, View};
use num_traits::{One, Zero};
use std::ops::Range;

/// Rows in a chunk at most.
const MAX_ROWS: usize = 1024;
/// Rows in a chunk at least, as far as memory allows: fewer make poor products.
const MIN_ROWS: usize = 256;
/// Logits in a chunk otherwise: 1 MB in f32, which stays in a core's own cache.
const CHUNK_LOGITS: usize = 1 << 18;
/// Bytes for a chunk's logits at most.
const CHUNK_BYTES: usize = 64 << 20;

/// What chunks write.
struct Slices<'a, T: Element> {
    losses: &'a mut [T::Acc],
    predictions: &'a mut [i32],
    dx: Option<&'a mut [T]>,
    dw: Option<&'a mut [T::Acc]>,
}

pub(crate) fn linear_cross_entropy<T: Element>(
    p: &CrossEntropy,
    x: View,
    w: View,
    targets: View,
    mut all: Outputs,
) -> Result<()> {
    let (x, w, targets) = (x.slice::<T>(), w.slice::<T>(), targets.slice());
    let mut out = Slices::<T> {
        losses: all.losses.slice_mut(),
        predictions: all.predictions.slice_mut(),
        dx: all.dx.as_mut().map(|dx| dx.slice_mut()),
        dw: all.dw.as_mut().map(|dw| dw.slice_mut()),
    };
    let active = active_rows(p, targets)?;
    out.losses.fill(T::Acc::zero());
    out.predictions.fill(-1);
    if let Some(dx) = out.dx.as_deref_mut().filter(|_| active.len() < p.rows) {
        dx.fill(T::zeroed());
    }
    if let Some(dw) = out.dw.as_deref_mut().filter(|_| active.is_empty()) {
        dw.fill(T::Acc::zero());
    }
    let rows = rows_per_chunk::<T>(p.vocab).min(active.len()).max(1);
    let mut space = Space {
        logits: Scratch::new(rows * p.vocab),
        dlogits: narrow_space(rows * p.vocab),
        gathered: Scratch::new(if active.len() < p.rows { rows * p.dim } else { 0 }),
    };
    for (index, rows) in active.chunks(rows).enumerate() {
        let chunk = Chunk { p, rows, count: active.len(), first: index == 0, targets };
        chunk.run(x, w, &mut space, &mut out);
    }
    let total: f64 = out.losses.iter().map(|loss| loss.f64()).sum();
    all.loss.slice_mut()[0] = T::Acc::of(total / active.len().max(1) as f64);
    Ok(())
}

/// Rows whose logits are computed together.
fn rows_per_chunk<T: Element>(vocab: usize) -> usize {
    let bytes = size_of::<T::Acc>() + if T::DTYPE == T::Acc::DTYPE { 0 } else { size_of::<T>() };
    let most = (CHUNK_BYTES / (bytes * vocab.max(1))).max(1);
    (CHUNK_LOGITS / vocab.max(1)).clamp(MIN_ROWS, MAX_ROWS).min(most)
}

/// The rows that count, in order.
fn active_rows(p: &CrossEntropy, targets: &[i32]) -> Result<Vec<usize>> {
    let mut active = Vec::with_capacity(targets.len());
    for (row, &target) in targets.iter().enumerate() {
        if target == p.ignore_index {
            continue;
        }
        if target < 0 || target as usize >= p.vocab {
            return Err(Error::Value {
                op: "linear_cross_entropy",
                message: format!("target {target} of row {row} is outside the vocabulary of {} ids", p.vocab),
            });
        }
        active.push(row);
    }
    Ok(active)
}

/// The elements of `rows` when they follow one another.
fn consecutive(rows: &[usize], dim: usize) -> Option<Range<usize>> {
    let (first, end) = (rows[0], rows[rows.len() - 1] + 1);
    (end - first == rows.len()).then_some(first * dim..end * dim)
}

/// The chosen rows of `x`: where they are if they follow one another, else copied to `space`.
fn gather<'a, T: Element>(x: &'a [T], dim: usize, rows: &[usize], space: &'a mut [T]) -> &'a [T] {
    if let Some(range) = consecutive(rows, dim) {
        return &x[range];
    }
    for (&row, copy) in rows.iter().zip(space.chunks_exact_mut(dim.max(1))) {
        copy.copy_from_slice(&x[row * dim..][..dim]);
    }
    &space[..rows.len() * dim]
}

/// Copies gathered rows back, unless they follow one another and were written in place.
fn scatter<T: Element>(space: &[T], dim: usize, rows: &[usize], x: &mut [T]) {
    if consecutive(rows, dim).is_none() {
        for (&row, copy) in rows.iter().zip(space.chunks_exact(dim.max(1))) {
            x[row * dim..][..dim].copy_from_slice(copy);
        }
    }
}

/// Memory for a chunk.
struct Space<T: Element> {
    logits: Scratch<T::Acc>,
    /// Their derivative where T is not the accumulator; else it takes the logits' place.
    dlogits: Option<Scratch<T>>,
    /// Rows of `x` or `dx` that do not follow one another.
    gathered: Scratch<T>,
}

/// Some of the rows that count.
struct Chunk<'a> {
    p: &'a CrossEntropy,
    rows: &'a [usize],
    /// Rows that count in all.
    count: usize,
    /// `dw` is to be overwritten.
    first: bool,
    targets: &'a [i32],
}

impl Chunk<'_> {
    fn run<T: Element>(&self, x: &[T], w: &[T], space: &mut Space<T>, out: &mut Slices<T>) {
        let (p, m, one) = (self.p, self.rows.len(), T::Acc::one());
        let logits = &mut space.logits[..m * p.vocab];
        let x = gather(x, p.dim, self.rows, &mut space.gathered);
        product(Gemm::new(Layout::Nt, m, p.vocab, p.dim), one, x, w, logits, false);
        let wanted = out.dx.is_some() || out.dw.is_some();
        self.score(logits, space.dlogits.as_deref_mut().map(|all| &mut all[..m * p.vocab]), wanted, out);
        let dlogits = narrowed(logits, &space.dlogits);
        if let Some(dw) = out.dw.as_deref_mut() {
            product(Gemm::new(Layout::Tn, p.vocab, p.dim, m), one, dlogits, x, dw, !self.first);
        }
        if let Some(dx) = out.dx.as_deref_mut() {
            let dx_rows = match consecutive(self.rows, p.dim) {
                Some(range) => &mut dx[range],
                None => &mut space.gathered[..m * p.dim],
            };
            product(Gemm::new(Layout::Nn, m, p.dim, p.vocab), one, dlogits, w, dx_rows, false);
            scatter(&space.gathered, p.dim, self.rows, dx);
        }
    }

    /// Losses and predictions; where `wanted` the derivative of the mean loss takes the place of the logits, or, rounded,
    /// that of `dlogits` if there is one.
    fn score<T: Element>(&self, logits: &mut [T::Acc], dlogits: Option<&mut [T]>, wanted: bool, out: &mut Slices<T>) {
        let (vocab, step) = (self.p.vocab, chunk_rows(self.p.vocab));
        let mut results = vec![(T::Acc::zero(), 0); self.rows.len()];
        let parts = ((self.rows, step), (logits, step * vocab), (dlogits, step * vocab), (&mut results[..], step));
        for_chunks(self.rows.len().div_ceil(step), parts, |_, (rows, logits, mut dlogits, results)| {
            for (i, &row) in rows.iter().enumerate() {
                let (z, target) = (&mut logits[i * vocab..][..vocab], self.targets[row] as usize);
                let s = statistics(z);
                results[i] = (s.excess(z[target]), s.argmax as i32);
                if wanted {
                    self.derive(&s, z, target);
                }
                if let (true, Some(dlogits)) = (wanted, dlogits.as_deref_mut()) {
                    scale_chunk(z, &mut dlogits[i * vocab..][..vocab], T::Acc::one());
                }
            }
        });
        for (&row, (loss, prediction)) in self.rows.iter().zip(results) {
            (out.losses[row], out.predictions[row]) = (loss, prediction);
        }
    }

    /// Puts the derivative of the mean loss over all rows that count in the place of a row's logits.
    fn derive<A: Real + Element<Acc = A>>(&self, s: &Statistics<A>, z: &mut [A], target: usize) {
        let weight = A::one() / A::of(self.count as f64);
        softmax(z, s.max, weight / s.sum);
        z[target] = z[target] - weight;
    }
}

simd! {
    /// z becomes factor · e^(z − max).
    fn softmax<V; T: Element>(z: &mut [T], max: T::Acc, factor: T::Acc) {
        let (max, factor) = (V::splat(max), V::splat(factor));
        lanes!(V, z.len(), at => {
            let shifted = at.load::<T, V>(z, T::Acc::zero()) - max;
            at.store(z, shifted.exp() * factor);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_of_large_vocabularies_stay_within_their_bytes() {
        for vocab in [1, 2000, 32000, 50257, 128256, 1 << 20] {
            assert!(rows_per_chunk::<f32>(vocab) * vocab * 4 <= CHUNK_BYTES);
            assert!(rows_per_chunk::<half::bf16>(vocab) * vocab * (4 + 2) <= CHUNK_BYTES);
            assert!(rows_per_chunk::<f64>(vocab) * vocab * 8 <= CHUNK_BYTES);
        }
    }
}
