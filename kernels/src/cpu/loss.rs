//! Linear + cross-entropy on the CPU: chunks of rows, each with two passes over its logits between three products.

use super::gemm::product;
use super::lanes::{Place, lanes};
use super::parallel::{chunk_rows, for_chunks};
use super::score::{Scratch, statistics};
use super::simd::{Real, simd};
use crate::gemm::Layout;
use crate::loss::CrossEntropy;
use crate::{Element, Error, Result};
use num_traits::{Float, One, Zero};
use std::ops::Range;

/// Rows in a chunk at most.
const MAX_ROWS: usize = 1024;
/// Rows in a chunk at least, whatever the vocabulary: fewer make poor products.
const MIN_ROWS: usize = 64;
/// Logits in a chunk otherwise: 4 MB in f32, which stays in the last cache.
const CHUNK_LOGITS: usize = 1 << 20;

/// What [`linear_cross_entropy`] writes.
pub(crate) struct Outputs<'a, T: Element> {
    pub(crate) loss: &'a mut T::Acc,
    pub(crate) losses: &'a mut [T::Acc],
    pub(crate) predictions: &'a mut [i32],
    pub(crate) dx: Option<&'a mut [T]>,
    pub(crate) dw: Option<&'a mut [T::Acc]>,
}

pub(crate) fn linear_cross_entropy<T: Element>(
    p: &CrossEntropy,
    x: &[T],
    w: &[T],
    targets: &[i32],
    out: &mut Outputs<T>,
) -> Result<()> {
    let active = active_rows(p, targets)?;
    out.losses.fill(T::Acc::zero());
    out.predictions.fill(-1);
    if let Some(dx) = out.dx.as_deref_mut().filter(|_| active.len() < p.rows) {
        dx.fill(T::zeroed());
    }
    if let Some(dw) = out.dw.as_deref_mut().filter(|_| active.is_empty()) {
        dw.fill(T::Acc::zero());
    }
    let rows = (CHUNK_LOGITS / p.vocab.max(1))
        .clamp(MIN_ROWS, MAX_ROWS)
        .min(active.len());
    let mut logits = Scratch::<T::Acc>::new(rows * p.vocab);
    let mut dlogits = (out.dx.is_some() || out.dw.is_some()).then(|| Scratch::<T>::new(rows * p.vocab));
    let mut gathered = Scratch::<T>::new(if active.len() < p.rows { rows * p.dim } else { 0 });
    let mut results = vec![(T::Acc::zero(), 0); rows];
    for (index, rows) in active.chunks(rows.max(1)).enumerate() {
        let (m, len) = (rows.len(), rows.len() * p.vocab);
        let x = gather(x, p.dim, rows, &mut gathered);
        product(
            Layout::Nt,
            m,
            p.vocab,
            p.dim,
            T::Acc::one(),
            x,
            w,
            &mut logits[..len],
            false,
        );
        let mut dlogits = dlogits.as_deref_mut().map(|all| &mut all[..len]);
        score_rows::<T>(
            p,
            active.len(),
            rows,
            targets,
            &logits[..len],
            &mut results[..m],
            dlogits.as_deref_mut(),
        );
        for (&row, &(loss, prediction)) in rows.iter().zip(&results) {
            (out.losses[row], out.predictions[row]) = (loss, prediction);
        }
        if let (Some(dlogits), Some(dw)) = (&dlogits, out.dw.as_deref_mut()) {
            product(Layout::Tn, p.vocab, p.dim, m, T::Acc::one(), dlogits, x, dw, index > 0);
        }
        if let (Some(dlogits), Some(dx)) = (&dlogits, out.dx.as_deref_mut()) {
            let dx_rows = match consecutive(rows, p.dim) {
                Some(range) => &mut dx[range],
                None => &mut gathered[..m * p.dim],
            };
            product(Layout::Nn, m, p.dim, p.vocab, T::Acc::one(), dlogits, w, dx_rows, false);
            scatter(&gathered, p.dim, rows, dx);
        }
    }
    let total: f64 = out.losses.iter().map(|loss| loss.f64()).sum();
    *out.loss = T::Acc::of(total / active.len().max(1) as f64);
    Ok(())
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
                message: format!(
                    "target {target} of row {row} is outside the vocabulary of {} ids",
                    p.vocab
                ),
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

/// Loss and prediction of each row of a chunk of logits, and the derivative of the mean over `count` rows.
fn score_rows<T: Element>(
    p: &CrossEntropy,
    count: usize,
    rows: &[usize],
    targets: &[i32],
    logits: &[T::Acc],
    results: &mut [(T::Acc, i32)],
    dlogits: Option<&mut [T]>,
) {
    let (width, step) = (p.vocab, chunk_rows(p.vocab));
    let (smoothing, classes) = (T::Acc::of(p.smoothing), T::Acc::of(p.vocab as f64));
    let parts = (
        (rows, step),
        (logits, step * width),
        (results, step),
        (dlogits, step * width),
    );
    for_chunks(
        rows.len().div_ceil(step),
        parts,
        |_, (rows, logits, results, mut dlogits)| {
            for (i, &row) in rows.iter().enumerate() {
                let (z, target) = (&logits[i * width..][..width], targets[row] as usize);
                let s = statistics(z);
                let (nll, even) = (s.excess(z[target]), s.excess(s.total / classes));
                let loss = nll + smoothing * (even - nll);
                results[i] = (loss, s.argmax as i32);
                if let Some(dlogits) = dlogits.as_deref_mut() {
                    let weight = T::Acc::one() / T::Acc::of(count as f64);
                    let spread = smoothing * weight / classes;
                    let dz = &mut dlogits[i * width..][..width];
                    softmax(z, dz, s.max, weight / s.sum, spread);
                    let likely = (z[target] - s.max).exp() / s.sum;
                    dz[target] = T::narrow(weight * (likely - T::Acc::one() + smoothing) - spread);
                }
            }
        },
    );
}

simd! {
    /// dz = factor · e^(z − max) − spread
    fn softmax<V; T: Element>(z: &[T::Acc], dz: &mut [T], max: T::Acc, factor: T::Acc, spread: T::Acc) {
        let (max, factor, spread) = (V::splat(max), V::splat(factor), V::splat(-spread));
        lanes!(V, z.len(), at => {
            let z: V = at.load(z, T::Acc::zero());
            at.store(dz, (z - max).exp().fma(factor, spread));
        });
    }
}
