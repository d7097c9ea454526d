//! Panels: the operands in the order the micro-kernel reads them.
//!
//! A panel holds `width` rows of `a` or columns of `b`, step after step: `panel[step·width + i]`. Past the operand's
//! edge, and past the last value of `k`, it holds zeros.

use super::format::{Format, pair};
use crate::Element;
use crate::cpu::prefetch::prefetch_l2;
use crate::cpu::simd::{Lanes, Real};
use crate::cpu::transpose;
use std::ops::Range;

/// Which way an operand lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// `k` is the row: a step's elements are neighbours.
    MnMajor,
    /// `k` is the column: an element's steps are neighbours.
    KMajor,
}

/// An operand: `stride` elements between rows.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a, T> {
    pub(super) data: &'a [T],
    pub(super) stride: usize,
    pub(super) order: Order,
}

/// Steps packed in one go where `k` is the row: few enough rows that the cache holds what all panels take from them.
const CHUNK: usize = 8;

/// Packs the elements `span` and the values `ks` of `k` into panels, one after another, whose spans and widths `panels`
/// gives. A panel's width is 4, 6 or a multiple of 8; elements past its span are filled with zeros.
#[inline(always)]
pub(super) fn pack<V: Lanes<T::Acc>, T: Element, F: Format>(
    from: Operand<T>,
    ks: Range<usize>,
    panels: impl Iterator<Item = (Range<usize>, usize)> + Clone,
    to: &mut [T::Acc],
) {
    let steps = F::steps(ks.len());
    let chunk = if from.order == Order::MnMajor { CHUNK.next_multiple_of(F::GROUP) } else { steps.max(1) };
    for first in (0..steps).step_by(chunk) {
        let start = ks.start + first * F::PER_STEP;
        let ks = start.min(ks.end)..ks.end.min(start + chunk * F::PER_STEP);
        if from.order == Order::MnMajor {
            fetch_rows(from, ks.end..ks.end + ks.len(), panels.clone());
        }
        let mut at = 0;
        for (span, width) in panels.clone() {
            let panel = &mut to[at + first * width..][..width * F::steps(ks.len())];
            at += width * steps;
            match width {
                48 => one::<V, T, F, 48>(from, span, ks.clone(), panel),
                32 => one::<V, T, F, 32>(from, span, ks.clone(), panel),
                24 => one::<V, T, F, 24>(from, span, ks.clone(), panel),
                16 => one::<V, T, F, 16>(from, span, ks.clone(), panel),
                8 => one::<V, T, F, 8>(from, span, ks.clone(), panel),
                6 => one::<V, T, F, 6>(from, span, ks.clone(), panel),
                4 => one::<V, T, F, 4>(from, span, ks.clone(), panel),
                other => unreachable!("no panel has width {other}"),
            }
        }
    }
}

/// Asks for the rows `ks` of the panels' columns: reading by short pieces of long rows, the processor would not by itself.
#[inline(always)]
fn fetch_rows<T>(from: Operand<T>, ks: Range<usize>, mut panels: impl Iterator<Item = (Range<usize>, usize)>) {
    let first = panels.next().map_or(0..0, |(span, _)| span);
    let end = panels.last().map_or(first.end, |(span, _)| span.end);
    for k in ks {
        prefetch_l2(from.data.as_ptr().wrapping_add(k * from.stride + first.start), end - first.start);
    }
}

#[inline(always)]
fn one<V: Lanes<T::Acc>, T: Element, F: Format, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panel: &mut [T::Acc],
) {
    match from.order {
        Order::MnMajor => mn_major::<T, F, W>(from, span, ks, panel),
        Order::KMajor => k_major::<V, T, F, W>(from, span, ks, panel),
    }
}

/// Copies steps, or joins rows to pairs.
#[inline(always)]
fn mn_major<T: Element, F: Format, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panel: &mut [T::Acc],
) {
    let whole = if span.len() == W { ks.len() / F::PER_STEP } else { 0 };
    let (body, rest) = panel.split_at_mut(whole * W);
    if whole > 0 {
        let data = &from.data[ks.start * from.stride + span.start..][..(whole * F::PER_STEP - 1) * from.stride + W];
        for (step, to) in body.chunks_exact_mut(W).enumerate() {
            // By value: behind pointers the compiler would go element by element.
            // SAFETY: the slice taken above ends with the last row's W elements.
            let row =
                |i: usize| unsafe { data.as_ptr().add((step * F::PER_STEP + i) * from.stride).cast::<[T; W]>().read() };
            let (first, second) = (row(0), row(F::PER_STEP - 1));
            let mut values = [T::Acc::of(0.0); W];
            for i in 0..W {
                values[i] = if F::PER_STEP == 2 { pair::<T>(first[i], second[i]) } else { first[i].widen() };
            }
            to.copy_from_slice(&values);
        }
    }
    let row = |k: usize| {
        if k < ks.end { &from.data[k * from.stride..][span.clone()] } else { &[] }
    };
    let first = ks.start + whole * F::PER_STEP;
    for (k, to) in (first..).step_by(F::PER_STEP).zip(rest.chunks_exact_mut(W)) {
        edge::<T, F>(row(k), if F::PER_STEP == 2 { row(k + 1) } else { &[] }, to);
    }
}

/// A step that reaches past the operand's edge: zeros there.
#[inline(always)]
fn edge<T: Element, F: Format>(first: &[T], second: &[T], to: &mut [T::Acc]) {
    let zero = T::narrow(T::Acc::of(0.0));
    let get = |row: &[T], i: usize| row.get(i).copied().unwrap_or(zero);
    for (i, to) in to.iter_mut().enumerate() {
        *to = if F::PER_STEP == 2 { pair::<T>(get(first, i), get(second, i)) } else { get(first, i).widen() };
    }
}

/// Transposes one panel.
#[inline(always)]
fn k_major<V: Lanes<T::Acc>, T: Element, F: Format, const W: usize>(
    from: Operand<T>,
    span: Range<usize>,
    ks: Range<usize>,
    panel: &mut [T::Acc],
) {
    let full_steps = ks.len() / F::PER_STEP;
    let row = |i: usize| &from.data[(span.start + i) * from.stride..][ks.clone()];
    let fits = transpose::fits::<V, T::Acc>();
    let side = if fits { V::N } else { transpose::SIZE };
    for i in (0..W).step_by(side) {
        let square = fits && i + side <= span.len();
        let done = if square { full_steps / side * side } else { 0 };
        for step in (0..done).step_by(side) {
            let value = step * F::PER_STEP;
            let steps = |j| register::<V, T, F>(&row(i + j)[value..]);
            transpose::square(steps, &mut panel[step * W + i..], W);
        }
        for j in i..W.min(i + side) {
            let values = if j < span.len() { &row(j)[done * F::PER_STEP..] } else { &[] };
            let column = panel.iter_mut().skip(done * W + j).step_by(W);
            fill::<T, F>(values, column);
        }
    }
}

/// A row's first `V::N` steps.
#[inline(always)]
fn register<V: Lanes<T::Acc>, T: Element, F: Format>(row: &[T]) -> V {
    let row = &row[..V::N * F::PER_STEP];
    // SAFETY: the row holds as many steps as a register: elements to widen, or pairs of two bytes each.
    unsafe {
        match F::PER_STEP {
            1 => T::load::<V>(row.as_ptr()),
            _ => V::load(row.as_ptr().cast()),
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
    if from.order == Order::MnMajor {
        return rows_across::<V, T, F>(from, span, ks, rows);
    }
    for (i, to) in rows.chunks_exact_mut(steps.max(1)).enumerate() {
        let values = if i < span.len() { &from.data[(span.start + i) * from.stride..][ks.clone()] } else { &[] };
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
            mn_major::<T, F, S>(from, columns, start..end, &mut square);
            // SAFETY: the square has a line of S ≥ V::N steps for each row.
            let line = |i: usize| unsafe { V::load(square[i * S..].as_ptr()) };
            transpose::square(line, &mut block[step..], steps);
        }
    }
}
