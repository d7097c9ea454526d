//! Panels: the operands in the order the micro-kernel reads them.
//!
//! A panel holds `width` rows of `a` or columns of `b`, step after step: `panel[step·width + i]`. Past the operand's
//! edge, and past the last value of `k`, it holds zeros.

use super::format::{Format, pair};
use super::transpose;
use crate::Element;
use crate::cpu::simd::{Lanes, Real};
use std::ops::Range;

/// Which way an operand lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `k` is the row: a step's elements are neighbours.
    Across,
    /// `k` is the column: an element's steps are neighbours.
    Along,
}

/// An operand: `stride` elements between rows.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    pub(super) data: &'a [T],
    pub(super) stride: usize,
    pub(super) order: Order,
}

/// Packs the elements `span` and the values `ks` of `k` into panels of `W` elements, one after another. The last may be
/// narrower in the operand; it is filled with zeros.
#[inline(always)]
pub(super) fn pack<V: Lanes<T::Acc>, T: Element, F: Format, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panels: &mut [T::Acc],
) {
    match from.order {
        Order::Across => across::<T, F, W>(from, span, ks, panels),
        Order::Along => {
            let panel_len = W * F::steps(ks.len());
            for (first, panel) in span.clone().step_by(W).zip(panels.chunks_exact_mut(panel_len.max(1))) {
                along::<V, T, F, W>(from, first..span.end.min(first + W), ks.clone(), panel);
            }
        }
    }
}

/// Reads the operand row by row, each row into all panels.
#[inline(always)]
fn across<T: Element, F: Format, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panels: &mut [T::Acc],
) {
    let zeros = [T::narrow(T::Acc::of(0.0)); W];
    let load = |k: usize, first: usize| -> [T; W] {
        if k >= ks.end {
            return zeros;
        }
        let row = &from.data[k * from.stride..][first..span.end.min(first + W)];
        row.try_into().unwrap_or_else(|_| {
            let mut padded = zeros;
            padded[..row.len()].copy_from_slice(row);
            padded
        })
    };
    let steps = F::steps(ks.len());
    for step in 0..steps {
        let k = ks.start + step * F::PER_STEP;
        for (panel, first) in span.clone().step_by(W).enumerate() {
            let to = &mut panels[(panel * steps + step) * W..][..W];
            let values = load(k, first);
            if F::PER_STEP == 2 {
                let others = load(k + 1, first);
                for i in 0..W {
                    to[i] = pair::<T>(values[i], others[i]);
                }
            } else {
                for i in 0..W {
                    to[i] = values[i].widen();
                }
            }
        }
    }
}

/// Transposes one panel.
#[inline(always)]
fn along<V: Lanes<T::Acc>, T: Element, F: Format, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panel: &mut [T::Acc],
) {
    let full_steps = ks.len() / F::PER_STEP;
    let row = |i: usize| &from.data[(span.start + i) * from.stride..][ks.clone()];
    for i in (0..W).step_by(transpose::SIZE) {
        let square = transpose::fits::<V, T::Acc>() && i + transpose::SIZE <= span.len();
        let done = if square {
            full_steps / transpose::SIZE * transpose::SIZE
        } else {
            0
        };
        for step in (0..done).step_by(transpose::SIZE) {
            let value = step * F::PER_STEP;
            let rows: [&[T]; transpose::SIZE] =
                std::array::from_fn(|j| &row(i + j)[value..value + transpose::SIZE * F::PER_STEP]);
            transpose::square::<V, T, F>(rows, &mut panel[step * W + i..], W);
        }
        for j in i..W.min(i + transpose::SIZE) {
            let values = if j < span.len() {
                &row(j)[done * F::PER_STEP..]
            } else {
                &[]
            };
            let column = panel.iter_mut().skip(done * W + j).step_by(W);
            fill::<T, F>(values, column);
        }
    }
}

/// Writes one element's steps, then zeros.
#[inline(always)]
fn fill<'a, T: Element, F: Format>(values: &[T], to: impl Iterator<Item = &'a mut T::Acc>) {
    let zero = T::narrow(T::Acc::of(0.0));
    let mut steps = values.chunks(F::PER_STEP);
    for x in to {
        *x = match steps.next() {
            Some([value]) if F::PER_STEP == 1 => value.widen(),
            Some(values) => pair::<T>(values[0], values.get(1).copied().unwrap_or(zero)),
            None => T::Acc::of(0.0),
        };
    }
}

/// Packs rows of `a` row-major, each padded to whole groups of steps; `rows` has room for whole squares of them.
#[inline(always)]
pub(super) fn pack_rows<V: Lanes<T::Acc>, T: Element, F: Format>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    rows: &mut [T::Acc],
) {
    let steps = F::steps(ks.len());
    if from.order == Order::Across {
        return rows_across::<V, T, F>(from, span, ks, rows);
    }
    for (i, to) in rows.chunks_exact_mut(steps.max(1)).enumerate() {
        let values = if i < span.len() {
            &from.data[(span.start + i) * from.stride..][ks.clone()]
        } else {
            &[]
        };
        fill::<T, F>(values, to.iter_mut());
    }
}

/// Transposes squares of steps and rows, for a `k` of whole groups.
#[inline(always)]
fn rows_across<V: Lanes<T::Acc>, T: Element, F: Format>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    rows: &mut [T::Acc],
) {
    const S: usize = transpose::SIZE;
    let steps = F::steps(ks.len());
    let mut square = [T::Acc::of(0.0); S * S];
    for (block, first) in rows.chunks_exact_mut(S * steps.max(1)).zip((span.start..).step_by(S)) {
        for step in (0..steps).step_by(S) {
            let start = ks.end.min(ks.start + step * F::PER_STEP);
            let end = ks.end.min(start + S * F::PER_STEP);
            let columns = first.min(span.end)..span.end.min(first + S);
            square.fill(T::Acc::of(0.0));
            across::<T, F, S>(from, columns, start..end, &mut square);
            transpose::turn::<V, T::Acc>(&square, &mut block[step..], steps);
        }
    }
}
