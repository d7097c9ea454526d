//! Panels: the operands in the order the micro-kernel reads them.
//!
//! A panel holds `width` rows of `a` or columns of `b`, step after step: `panel[step·width + i]`. A step is one value of
//! `k`, widened to the accumulator, or with `PAIRS` two values of bf16 in the bits of one single. Past the operand's
//! edge a panel holds zeros.

use super::dot;
use crate::Element;
use crate::cpu::simd::Real;
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

/// Steps that `k` values take.
#[inline(always)]
pub(super) const fn steps<const PAIRS: bool>(k: usize) -> usize {
    if PAIRS { k.div_ceil(2) } else { k }
}

/// Packs the elements `span` of the values `ks` of `k` into a panel of `width ≥ span.len()`.
#[inline(always)]
pub(super) fn pack<T: Element, const PAIRS: bool>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    width: usize,
    panel: &mut [T::Acc],
) {
    match (from.order, width) {
        (Order::Across, 48) => across::<T, PAIRS, 48>(from, span, ks, panel),
        (Order::Across, 32) => across::<T, PAIRS, 32>(from, span, ks, panel),
        (Order::Across, 24) => across::<T, PAIRS, 24>(from, span, ks, panel),
        (Order::Across, 16) => across::<T, PAIRS, 16>(from, span, ks, panel),
        (Order::Across, 8) => across::<T, PAIRS, 8>(from, span, ks, panel),
        (Order::Across, 6) => across::<T, PAIRS, 6>(from, span, ks, panel),
        (Order::Across, 4) => across::<T, PAIRS, 4>(from, span, ks, panel),
        (Order::Across, other) => unreachable!("no micro-kernel has {other} rows or columns"),
        (Order::Along, _) => along::<T, PAIRS>(from, span, ks, width, panel),
    }
}

#[inline(always)]
fn across<T: Element, const PAIRS: bool, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panel: &mut [T::Acc],
) {
    let zeros = [T::narrow(T::Acc::of(0.0)); W];
    let row = |k: usize| -> [T; W] {
        if k >= ks.end {
            return zeros;
        }
        let row = &from.data[k * from.stride..][span.clone()];
        match row.try_into() {
            Ok(whole) => whole,
            Err(_) => {
                let mut padded = zeros;
                padded[..row.len()].copy_from_slice(row);
                padded
            }
        }
    };
    let per_step = if PAIRS { 2 } else { 1 };
    for (k, step) in ks.clone().step_by(per_step).zip(panel.chunks_exact_mut(W)) {
        let first = row(k);
        if PAIRS {
            let second = row(k + 1);
            for i in 0..W {
                step[i] = dot::pair::<T>(first[i], second[i]);
            }
        } else {
            for i in 0..W {
                step[i] = first[i].widen();
            }
        }
    }
}

#[inline(always)]
fn along<T: Element, const PAIRS: bool>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    width: usize,
    panel: &mut [T::Acc],
) {
    let zero = T::narrow(T::Acc::of(0.0));
    let used = steps::<PAIRS>(ks.len()) * width;
    for i in 0..width {
        let column = panel[..used].iter_mut().skip(i).step_by(width);
        if i >= span.len() {
            column.for_each(|x| *x = T::Acc::of(0.0));
            continue;
        }
        let row = &from.data[(span.start + i) * from.stride..][ks.clone()];
        if PAIRS {
            for (x, pair) in column.zip(row.chunks(2)) {
                *x = dot::pair::<T>(pair[0], pair.get(1).copied().unwrap_or(zero));
            }
        } else {
            for (x, value) in column.zip(row) {
                *x = value.widen();
            }
        }
    }
}
