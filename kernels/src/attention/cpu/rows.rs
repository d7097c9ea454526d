//! Row by row: between heads in memory and padded scratch, and from scores to softmax weights and back.

use super::sequence::Sequence;
use crate::cpu::prefetch::prefetch_l2;
use crate::cpu::random::uniform;
use crate::cpu::simd::{Real, load_tail, simd, store_tail};
use crate::cpu::transpose;
use num_traits::{Float, One, Zero};
use std::marker::PhantomData;

/// An output that tasks write rows of, no two tasks the same row.
#[derive(Debug)]
pub(super) struct Shared<'a, T> {
    data: *mut T,
    len: usize,
    lifetime: PhantomData<&'a mut [T]>,
}

// SAFETY: elements are reached only through `row`, whose callers never hold overlapping rows.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T> Shared<'a, T> {
    pub(super) fn new(data: &'a mut [T]) -> Shared<'a, T> {
        Shared { data: data.as_mut_ptr(), len: data.len(), lifetime: PhantomData }
    }

    /// Elements `first..first + len`.
    ///
    /// # Safety
    /// No other live slice may overlap them.
    #[allow(clippy::mut_from_ref)]
    pub(super) unsafe fn row(&self, first: usize, len: usize) -> &mut [T] {
        assert!(first + len <= self.len);
        // SAFETY: inside the slice this was made from; the caller vouches that nobody else uses these elements.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(first), len) }
    }

    /// Asks for rows that will be written.
    pub(super) fn prefetch(&self, head: Head, rows: usize) {
        prefetch(self.data, head, rows);
    }
}

/// Where one head's rows lie in `(tokens, heads, head_dim)`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Head {
    /// Index of the first row's first element.
    pub(super) first: usize,
    /// Elements from row to row.
    pub(super) stride: usize,
    /// Elements per row.
    pub(super) dim: usize,
}

impl Head {
    /// The same head from row `row` on.
    pub(super) fn from(self, row: usize) -> Head {
        Head { first: self.first + row * self.stride, ..self }
    }
}

/// Asks for `rows` rows of a head in the L2 cache: the first is full of what the current head's products read.
pub(super) fn prefetch<T>(x: *const T, head: Head, rows: usize) {
    for row in 0..rows {
        prefetch_l2(x.wrapping_add(head.first + row * head.stride), head.dim);
    }
}

simd! {
    /// Copies `rows` rows times `factor` into scratch rows of `width` elements, padded with zeros.
    pub(super) fn pack<V; T: Element>(x: &[T], head: Head, rows: usize, factor: T::Acc, out: &mut [T::Acc], width: usize) {
        let Head { first, stride, dim } = head;
        let whole = dim - dim % V::N;
        for (i, out) in out.chunks_exact_mut(width).take(rows).enumerate() {
            let x = &x[first + i * stride..][..dim];
            for j in (0..whole).step_by(V::N) {
                // SAFETY: j + V::N ≤ dim ≤ width.
                unsafe { (T::load::<V>(x.as_ptr().add(j)) * V::splat(factor)).store(out.as_mut_ptr().add(j)) }
            }
            for j in whole..dim {
                out[j] = x[j].widen() * factor;
            }
            out[dim..].fill(T::Acc::zero());
        }
    }

    /// Copies `rows` rows into the columns of scratch rows of `width` elements, a multiple of `MAX_LANES`, padded with zeros.
    pub(super) fn pack_transposed<V; T: Element>(x: &[T], head: Head, rows: usize, out: &mut [T::Acc], width: usize) {
        let dim = head.dim;
        let row = |i: usize| &x[head.first + i * head.stride..][..dim];
        let whole = if transpose::fits::<V, T::Acc>() { dim - dim % V::N } else { 0 };
        for i in (0..if whole > 0 { rows } else { 0 }).step_by(V::N) {
            for j in (0..whole).step_by(V::N) {
                let line = |r| match i + r < rows {
                    // SAFETY: the row has dim ≥ j + V::N elements.
                    true => unsafe { T::load::<V>(row(i + r)[j..].as_ptr()) },
                    false => V::zero(),
                };
                transpose::square(line, &mut out[j * width + i..], width);
            }
        }
        let padded = rows.next_multiple_of(V::N);
        for out in out.chunks_exact_mut(width).take(whole) {
            out[padded..].fill(T::Acc::zero());
        }
        for (j, out) in out.chunks_exact_mut(width).enumerate().take(dim).skip(whole) {
            for (i, out) in out.iter_mut().enumerate() {
                *out = if i < rows { row(i)[j].widen() } else { T::Acc::zero() };
            }
        }
    }

    /// Rounds scratch rows of `width` elements times `factor` into rows of a head.
    ///
    /// Safety: the head's rows are this task's own.
    pub(super) fn unpack<V; T: Element>(x: &[T::Acc], width: usize, factors: &[T::Acc], out: &Shared<T>, head: Head) {
        let Head { first, stride, dim } = head;
        for (i, (x, factor)) in x.chunks_exact(width).zip(factors).enumerate() {
            // SAFETY: tasks own heads, and rows of different heads do not overlap.
            let out = unsafe { out.row(first + i * stride, dim) };
            for (x, out) in x.chunks_exact(V::N).zip(out.chunks_mut(V::N)) {
                // SAFETY: a chunk of `x` has V::N elements, and so has `out` where it is stored to whole.
                unsafe {
                    let y = V::load(x.as_ptr()) * V::splat(*factor);
                    match out.len() == V::N {
                        true => T::store(out.as_mut_ptr(), y),
                        false => store_tail(out, y),
                    }
                }
            }
        }
    }

    /// Turns rows of scores into exp(score − largest); writes the log-sum-exp and the inverse of each row's sum.
    pub(super) fn softmax<V; A: Element>(
        sequence: &Sequence, first: usize, scores: &mut [A::Acc], width: usize, whole: usize, lse: &mut [A::Acc], inverse: &mut [A::Acc],
    ) {
        let none = A::Acc::neg_infinity();
        for (r, row) in scores.chunks_exact_mut(width).take(lse.len()).enumerate() {
            let row = sequence.hide::<A::Acc, V>(first + r, &mut row[..whole]);
            let mut largest = V::splat(none);
            for x in row.chunks_exact(V::N) {
                // SAFETY: a chunk has V::N elements.
                largest = largest.max(unsafe { V::load(x.as_ptr()) });
            }
            let mut largest = largest.largest();
            if largest == none {
                // No key is seen, or only such as have a NaN score, which a comparison passes over and a sum does not.
                largest = row.iter().fold(none, |sum, &x| sum + x);
            }
            lse[r] = largest;
            if largest == none {
                row.fill(A::Acc::zero());
                continue;
            }
            let mut sum = V::zero();
            for x in row.chunks_exact_mut(V::N) {
                // SAFETY: a chunk has V::N elements.
                unsafe {
                    let e = (V::load(x.as_ptr()) - V::splat(largest)).exp();
                    e.store(x.as_mut_ptr());
                    sum = sum + e;
                }
            }
            inverse[r] = sum.sum();
        }
        for (lse, inverse) in lse.iter_mut().zip(inverse) {
            let blind = *lse == none;
            *lse = if blind { none } else { *lse + inverse.ln() };
            *inverse = if blind { A::Acc::zero() } else { A::Acc::one() / *inverse };
        }
    }

    /// Turns rows of scores into softmax weights, given each row's log-sum-exp.
    pub(super) fn weights<V; A: Element>(
        sequence: &Sequence, first: usize, scores: &mut [A::Acc], width: usize, whole: usize, lse: &[A::Acc],
    ) {
        for (r, (row, &lse)) in scores.chunks_exact_mut(width).zip(lse).enumerate() {
            let row = sequence.hide::<A::Acc, V>(first + r, &mut row[..whole]);
            if lse == A::Acc::neg_infinity() {
                row.fill(A::Acc::zero());
                continue;
            }
            for x in row.chunks_exact_mut(V::N) {
                // SAFETY: a chunk has V::N elements.
                unsafe { (V::load(x.as_ptr()) - V::splat(lse)).exp().store(x.as_mut_ptr()) }
            }
        }
    }

    /// Turns rows of dP, the gradients of the softmax weights P, into those of the scores, P ⊙ (dP − D), in the first
    /// `whole` columns.
    pub(super) fn score_gradients<V; A: Element>(
        weights: &[A::Acc], gradients: &mut [A::Acc], width: usize, whole: usize, delta: &[A::Acc],
    ) {
        for ((p, dp), &d) in weights.chunks_exact(width).zip(gradients.chunks_exact_mut(width)).zip(delta) {
            for (p, dp) in p[..whole].chunks_exact(V::N).zip(dp[..whole].chunks_exact_mut(V::N)) {
                // SAFETY: both chunks have V::N elements.
                unsafe { (V::load(p.as_ptr()) * (V::load(dp.as_ptr()) - V::splat(d))).store(dp.as_mut_ptr()) }
            }
        }
    }

    /// Multiplies a row by its dropout mask: 0, or 1/(1−p) for what is kept.
    pub(super) fn drop_row<V; A: Element>(row: &mut [A::Acc], p: f64, seed: u64, first: u64) {
        let (p, kept) = (p as f32, A::Acc::of(1.0 / (1.0 - p)));
        for (j, x) in row.iter_mut().enumerate() {
            let factor = if uniform(seed, first + j as u64) >= p { kept } else { A::Acc::zero() };
            *x = *x * factor;
        }
    }

    /// rowsum(x ⊙ y) of a head's rows.
    pub(super) fn row_dots<V; T: Element>(x: &[T], y: &[T], head: Head, out: &mut [T::Acc]) {
        let Head { first, stride, dim } = head;
        for (i, out) in out.iter_mut().enumerate() {
            let at = first + i * stride;
            let mut sum = V::zero();
            for (x, y) in x[at..][..dim].chunks(V::N).zip(y[at..][..dim].chunks(V::N)) {
                let (x, y) = match x.len() == V::N {
                    // SAFETY: both chunks have V::N elements.
                    true => unsafe { (T::load::<V>(x.as_ptr()), T::load::<V>(y.as_ptr())) },
                    false => (load_tail(x, T::Acc::zero()), load_tail(y, T::Acc::zero())),
                };
                sum = x.fma(y, sum);
            }
            *out = sum.sum();
        }
    }
}
