//! The two operands of a task for one block of `k`: in place where the micro-kernel can read them so, packed otherwise.

use super::block::Part;
use super::format::Format;
use super::pack::{Operand, Order, pack, pack_rows};
use super::scratch::{Purpose, Scratch};
use super::tile::{Left, Prefetch, Rows};
use crate::Element;
use crate::cpu::simd::{Lanes, Real};
use std::ops::Range;

/// Up to so many rows that use `b`, packing it costs more than reading it in place; likewise of `a`.
const FEW_ROWS: usize = 512;
/// Columns that use `a`, in the same sense.
const FEW_COLS: usize = 64;
/// Longest rows, in bytes, that many tiles read step by step in place: longer ones crowd a few lines of the cache.
pub(super) const SHORT_ROW: usize = 2048;
/// Up to so many rows that use `b`, rows of it of any length are read in place: too few tiles for copies to pay.
const FEWEST_ROWS: usize = 64;

/// The panels of columns `cols`: their columns and their width in registers. All have `W` but the last ones, which
/// share what is left so that none is needlessly narrow.
#[inline(always)]
pub(super) fn panels<const W: usize>(
    cols: Range<usize>,
    lanes: usize,
) -> impl Iterator<Item = (Range<usize>, usize)> + Clone {
    let mut start = cols.start;
    std::iter::from_fn(move || {
        let left = (cols.end - start).div_ceil(lanes);
        let vectors = if W == 3 && left == 4 { 2 } else { left.min(W) };
        let panel = start..cols.end.min(start + vectors * lanes);
        start = panel.end;
        (vectors > 0).then_some((panel, vectors))
    })
}

/// Packs the values `ks` of `k` of columns `cols` of `b`, panel after panel.
#[inline(always)]
pub(super) fn pack_columns<V: Lanes<T::Acc>, T: Element, F: Format, const W: usize>(
    b: Operand<T>,
    cols: Range<usize>,
    ks: Range<usize>,
    to: &mut [T::Acc],
) {
    let panels = panels::<W>(cols, V::N).map(|(cols, vectors)| (cols, vectors * V::N));
    pack::<V, T, F>(b, ks, panels, to);
}

/// An operand for one block of `k`, in the units of the format.
#[derive(Clone, Copy)]
pub(super) enum Side<'a, A> {
    /// Packed panels.
    Panels(&'a [A]),
    /// In place from this element on, a step's elements being neighbours and steps `stride` apart.
    Steps { first: *const A, stride: usize },
    /// In place or packed from this element on, a row's steps being neighbours and rows `stride` apart.
    Rows { first: *const A, stride: usize },
}

impl<'a, A: Real> Side<'a, A> {
    /// Rows `row` to `row + R` of the part as the micro-kernel reads them; the part has `count` rows.
    #[inline(always)]
    pub(super) fn left<const R: usize>(self, row: usize, count: usize, steps: usize) -> Left<A> {
        match self {
            Side::Panels(panels) => Left::Steps { first: panels[row * steps..][..R * steps].as_ptr(), stride: R },
            Side::Steps { first, stride } => Left::Steps { first: first.wrapping_add(row), stride },
            Side::Rows { first, stride } => {
                Left::Rows { first: first.wrapping_add(row * stride), stride, rows: R.min(count - row) }
            }
        }
    }

    /// Columns `col` to `col + width` of the part, and the elements between their steps.
    #[inline(always)]
    pub(super) fn right(self, col: usize, width: usize, steps: usize) -> (*const A, usize) {
        match self {
            Side::Panels(panels) => (panels[col * steps..][..width * steps].as_ptr(), width),
            Side::Steps { first, stride } | Side::Rows { first, stride } => (first.wrapping_add(col), stride),
        }
    }

    /// The tile of rows from `next` on, to be fetched if it is read in place.
    #[inline(always)]
    pub(super) fn prefetch<const R: usize>(self, next: usize, count: usize, results: [Rows; 3]) -> Prefetch<A> {
        let (rows, stride, count) = match self {
            Side::Rows { first, stride } if next < count => {
                (first.wrapping_add(next * stride), stride, R.min(count - next))
            }
            _ => (std::ptr::null(), 0, 0),
        };
        Prefetch { rows, stride, count, panel: std::ptr::null(), share: 0, results }
    }

    /// What falls to each of `tiles` tiles of fetching the next panel, if panels of `size` elements are packed.
    #[inline(always)]
    pub(super) fn share(self, size: usize, tiles: usize) -> usize {
        if matches!(self, Side::Panels(_)) { size.div_ceil(tiles) } else { 0 }
    }

    /// An operand whose elements along `k` are rows, in place from element `start` of row `k` on.
    fn steps<T: Element<Acc = A>>(x: Operand<'a, T>, start: usize, k: usize) -> Side<'a, A> {
        Side::Steps { first: x.data[k * x.stride + start..].as_ptr().cast(), stride: x.stride }
    }

    /// `a`: in place where the format can read it so, packed otherwise.
    #[inline(always)]
    pub(super) fn rows<V: Lanes<A>, T: Element<Acc = A>, F: Format, const R: usize>(
        a: Operand<'a, T>,
        part: &Part,
        scratch: &'a mut Option<Scratch>,
    ) -> Side<'a, A> {
        let Part { rows, cols, ks } = part;
        let group = F::PER_STEP * F::GROUP;
        let whole = ks.len().is_multiple_of(group)
            && a.stride.is_multiple_of(F::PER_STEP)
            && rows.len().is_multiple_of(F::GROUP);
        if a.order == Order::KMajor && whole && size_of::<T>() * F::PER_STEP == size_of::<A>() {
            let first = a.data[rows.start * a.stride + ks.start..].as_ptr().cast();
            return Side::Rows { first, stride: a.stride / F::PER_STEP };
        }
        if short_rows::<T, F>(a) && rows.len().is_multiple_of(R) && cols.len() <= FEW_COLS && !ks.is_empty() {
            return Side::steps(a, rows.start, ks.start);
        }
        let steps = F::steps(ks.len());
        let len = rows.len().next_multiple_of(R) * steps;
        let packed = &mut scratch.get_or_insert_with(|| Scratch::take::<A>(Purpose::A, len)).slice()[..len];
        if F::ROW_MAJOR {
            pack_rows::<V, T, F>(a, rows.clone(), ks.clone(), packed);
            return Side::Rows { first: packed.as_ptr(), stride: steps };
        }
        let panels = rows.clone().step_by(R).map(|row| (row..rows.end.min(row + R), R));
        pack::<V, T, F>(a, ks.clone(), panels, packed);
        Side::Panels(packed)
    }

    /// `b`: in place if [`reads_in_place`] says so, packed otherwise; `m` rows use it.
    #[inline(always)]
    pub(super) fn columns<V: Lanes<A>, T: Element<Acc = A>, F: Format, const W: usize>(
        b: Operand<'a, T>,
        m: usize,
        part: &Part,
        scratch: &'a mut Option<Scratch>,
    ) -> Side<'a, A> {
        let Part { cols, ks, .. } = part;
        if reads_in_place::<V, T, F>(b, m) && cols.len().is_multiple_of(V::N) && !ks.is_empty() {
            return Side::steps(b, cols.start, ks.start);
        }
        let len = cols.len().next_multiple_of(V::N) * F::steps(ks.len());
        let packed = &mut scratch.get_or_insert_with(|| Scratch::take::<A>(Purpose::B, len)).slice()[..len];
        pack_columns::<V, T, F, W>(b, cols.clone(), ks.clone(), packed);
        Side::Panels(packed)
    }
}

/// Whether an operand's elements along `k` are rows, and of the panels' type.
fn of_panels<T: Element, F: Format>(x: Operand<T>) -> bool {
    F::PER_STEP == 1 && size_of::<T>() == size_of::<T::Acc>() && x.order == Order::MnMajor
}

/// The same of rows that are short, too.
fn short_rows<T: Element, F: Format>(x: Operand<T>) -> bool {
    of_panels::<T, F>(x) && x.stride * size_of::<T>() <= SHORT_ROW
}

/// Whether `b` is best read in place when `m` rows use it.
pub(super) fn reads_in_place<V: Lanes<T::Acc>, T: Element, F: Format>(b: Operand<T>, m: usize) -> bool {
    // Narrow panels want their steps side by side: of rows far apart the L1 cache holds only a few.
    let wide = size_of::<V>() == 64;
    let fewest = of_panels::<T, F>(b) && m <= FEWEST_ROWS;
    wide && (fewest || short_rows::<T, F>(b) && m <= FEW_ROWS) && b.stride.is_multiple_of(V::N)
}
