//! One task: a rectangle of `c` over a range of `k`, on one thread.

use super::epilogue::{Finish, Rect, Shared, write_tile};
use super::format::Format;
use super::pack::{Operand, Order, pack, pack_rows};
use super::scratch::{Purpose, Scratch};
use super::tile::{Ahead, Left, MAX_TILE, Step};
use crate::Element;
use crate::cpu::simd::{Lanes, Real};
use std::ops::Range;

/// Values of `k` between two visits to a tile: a panel of `b` this long stays in the first-level cache while the rows
/// of `a` pass by. A multiple of what any format groups, so that no step straddles two blocks.
pub(super) const K_BLOCK: usize = 256;

/// Up to so many rows that use `b`, or columns that use `a`, packing costs more than reading in place.
const FEW: usize = 128;
/// Longest rows, in bytes, read step by step in place: longer ones crowd a few lines of the cache.
const SHORT_ROW: usize = 2048;

/// One matrix product.
#[derive(Clone, Copy)]
pub(super) struct Job<'a, T: Element, C> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Operand<'a, T>,
    pub(super) b: Operand<'a, T>,
    pub(super) finish: Finish<'a, T>,
    pub(super) c: Shared<C>,
}

/// The part of a product that a task computes.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) cols: Range<usize>,
    pub(super) ks: Range<usize>,
}

/// Columns of `b` packed beforehand: for one block of `k` after another, from `first_k` on, the columns from
/// `first_col` on, padded to `padded`.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, A> {
    pub(super) data: &'a [A],
    pub(super) first_k: usize,
    pub(super) first_col: usize,
    pub(super) padded: usize,
}

/// Sums that outlive a task: where they lie and what becomes of them.
pub(super) struct Kept<'a, A> {
    pub(super) sums: &'a mut [A],
    /// Start them from zero.
    pub(super) fresh: bool,
    /// Finish them into `c`.
    pub(super) last: bool,
}

/// The panels of columns `cols`: their columns and their width in registers. All have `W` but the last ones, which
/// share what is left so that none is needlessly narrow.
#[inline(always)]
fn panels<const W: usize>(cols: Range<usize>, lanes: usize) -> impl Iterator<Item = (Range<usize>, usize)> + Clone {
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

/// Computes `part` of the product. Without `packed` it packs `b` itself; without `kept` it finishes all sums into `c`.
///
/// # Safety
/// `part` must lie inside the product, `c` be as large as the product, and no other thread touch its part meanwhile.
#[inline(always)]
pub(super) unsafe fn multiply_part<
    V: Lanes<T::Acc>,
    T: Element,
    C: Element<Acc = T::Acc>,
    F: Format,
    const R: usize,
    const W: usize,
>(
    job: &Job<T, C>,
    part: Part,
    packed: Option<Panels<T::Acc>>,
    kept: Option<Kept<T::Acc>>,
) {
    let session = F::begin();
    let blocks = part.ks.len().div_ceil(K_BLOCK).max(1);
    let mut single = Single([T::Acc::of(0.0); MAX_TILE]);
    let mut scratch = [const { None }; 3];
    let [a_scratch, b_scratch, sums_scratch] = &mut scratch;
    let one = kept.is_none() && blocks == 1;
    let Kept { sums, fresh, last } = kept.unwrap_or_else(|| {
        let tiles = part.rows.len().div_ceil(R) * part.cols.len().div_ceil(W * V::N);
        let sums = match one {
            true => &mut single.0[..],
            false => sums_scratch
                .insert(Scratch::take::<T::Acc>(Purpose::Sums, tiles * R * W * V::N))
                .slice(),
        };
        Kept {
            sums,
            fresh: true,
            last: true,
        }
    });
    for block in 0..blocks {
        let start = part.ks.start + block * K_BLOCK;
        let now = Part {
            ks: start..part.ks.end.min(start + K_BLOCK),
            ..part.clone()
        };
        let left = Side::rows::<V, T, F, R>(job.a, &now, a_scratch);
        let right = match packed {
            Some(panels) => panels.block::<F>(&now),
            None => Side::columns::<V, T, F, W>(job.b, &now, b_scratch),
        };
        let visit = Visit {
            fresh: fresh && block == 0,
            last: last && block + 1 == blocks,
            one,
        };
        // SAFETY: the caller's promise; both sides hold the block's steps, and `sums` all tiles, or one if it is enough.
        unsafe { sweep::<V, T, C, F, R, W>(job, &now, &session, left, right, sums, visit) }
    }
}

/// A tile on the stack, aligned like a register.
#[repr(align(64))]
struct Single<A>([A; MAX_TILE]);

/// What one block of `k` does with the tiles.
#[derive(Clone, Copy)]
struct Visit {
    fresh: bool,
    last: bool,
    /// All tiles share the memory of one: none is visited again.
    one: bool,
}

/// An operand for one block of `k`, in the units of the format.
#[derive(Clone, Copy)]
enum Side<'a, A> {
    /// Packed panels.
    Panels(&'a [A]),
    /// In place from this element on, a step's elements being neighbours and steps `stride` apart.
    Steps { first: *const A, stride: usize },
    /// In place or packed from this element on, a row's steps being neighbours and rows `stride` apart.
    Rows { first: *const A, stride: usize },
}

impl<'a, A: Real> Side<'a, A> {
    fn stride(self) -> usize {
        match self {
            Side::Panels(_) => 0,
            Side::Steps { stride, .. } | Side::Rows { stride, .. } => stride,
        }
    }

    /// An operand whose elements along `k` are rows, in place if so `few` use it that packing does not pay.
    #[inline(always)]
    fn short_rows<T: Element<Acc = A>, F: Format>(
        x: Operand<'a, T>,
        start: usize,
        ks: &Range<usize>,
        few: usize,
    ) -> Option<Side<'a, A>> {
        let same = F::PER_STEP == 1 && size_of::<T>() == size_of::<A>();
        let short = x.order == Order::Across && x.stride * size_of::<T>() <= SHORT_ROW;
        (same && short && few <= FEW && !ks.is_empty()).then(|| Side::Steps {
            first: x.data[ks.start * x.stride + start..].as_ptr().cast(),
            stride: x.stride,
        })
    }

    /// `a`: in place where the format can read it so, packed otherwise.
    #[inline(always)]
    fn rows<V: Lanes<A>, T: Element<Acc = A>, F: Format, const R: usize>(
        a: Operand<'a, T>,
        part: &Part,
        scratch: &'a mut Option<Scratch>,
    ) -> Side<'a, A> {
        let Part { rows, cols, ks } = part;
        let group = F::PER_STEP * F::GROUP;
        let whole = ks.len() % group == 0 && a.stride % F::PER_STEP == 0 && rows.len() % F::GROUP == 0;
        if a.order == Order::Along && whole && size_of::<T>() * F::PER_STEP == size_of::<A>() {
            let first = a.data[rows.start * a.stride + ks.start..].as_ptr().cast();
            return Side::Rows {
                first,
                stride: a.stride / F::PER_STEP,
            };
        }
        if rows.len() % R == 0
            && let Some(side) = Side::short_rows::<T, F>(a, rows.start, ks, cols.len())
        {
            return side;
        }
        let steps = F::steps(ks.len());
        let len = rows.len().next_multiple_of(R) * steps;
        let packed = &mut scratch
            .get_or_insert_with(|| Scratch::take::<A>(Purpose::A, len))
            .slice()[..len];
        if F::ROW_MAJOR {
            pack_rows::<V, T, F>(a, rows.clone(), ks.clone(), packed);
            return Side::Rows {
                first: packed.as_ptr(),
                stride: steps,
            };
        }
        let panels = rows.clone().step_by(R).map(|row| (row..rows.end.min(row + R), R));
        pack::<V, T, F>(a, ks.clone(), panels, packed);
        Side::Panels(packed)
    }

    /// `b`: packed, or in place if it lies right and few rows use it.
    #[inline(always)]
    fn columns<V: Lanes<A>, T: Element<Acc = A>, F: Format, const W: usize>(
        b: Operand<'a, T>,
        part: &Part,
        scratch: &'a mut Option<Scratch>,
    ) -> Side<'a, A> {
        let Part { rows, cols, ks } = part;
        if cols.len() % V::N == 0
            && let Some(side) = Side::short_rows::<T, F>(b, cols.start, ks, rows.len())
        {
            return side;
        }
        let len = cols.len().next_multiple_of(V::N) * F::steps(ks.len());
        let packed = &mut scratch
            .get_or_insert_with(|| Scratch::take::<A>(Purpose::B, len))
            .slice()[..len];
        pack_columns::<V, T, F, W>(b, cols.clone(), ks.clone(), packed);
        Side::Panels(packed)
    }
}

impl<'a, A: Real> Panels<'a, A> {
    /// The panels of a part.
    #[inline(always)]
    fn block<F: Format>(self, part: &Part) -> Side<'a, A> {
        let before = F::steps(part.ks.start - self.first_k) * self.padded;
        Side::Panels(&self.data[before + (part.cols.start - self.first_col) * F::steps(part.ks.len())..])
    }
}

/// Adds one block of `k` to all tiles of a part. A panel of `b` stays in the cache while the rows pass.
///
/// # Safety
/// As for [`multiply_part`]; `left` and `right` must hold the part's rows and columns for its `ks`, `sums` its tiles.
#[inline(always)]
unsafe fn sweep<V: Lanes<T::Acc>, T: Element, C: Element<Acc = T::Acc>, F: Format, const R: usize, const W: usize>(
    job: &Job<T, C>,
    part: &Part,
    session: &F::Session,
    left: Side<T::Acc>,
    right: Side<T::Acc>,
    sums: &mut [T::Acc],
    visit: Visit,
) {
    let steps = F::steps(part.ks.len());
    let mut tile_at = 0;
    let row_tiles = part.rows.len().div_ceil(R);
    for (cols, vectors) in panels::<W>(part.cols.clone(), V::N) {
        let width = vectors * V::N;
        let from = cols.start - part.cols.start;
        let (b, b_stride) = match right {
            Side::Panels(panels) => (panels[from * steps..][..width * steps].as_ptr(), width),
            Side::Steps { first, stride, .. } | Side::Rows { first, stride, .. } => (first.wrapping_add(from), stride),
        };
        let share = if matches!(right, Side::Panels(_)) {
            (width * steps).div_ceil(row_tiles)
        } else {
            0
        };
        let first_panel = cols.start == part.cols.start;
        for row in part.rows.clone().step_by(R) {
            let rows = (part.rows.end - row).min(R);
            let from = row - part.rows.start;
            let a = match left {
                Side::Panels(panels) => Left::Steps {
                    first: panels[from * steps..][..R * steps].as_ptr(),
                    stride: R,
                },
                Side::Steps { first, stride, .. } => Left::Steps {
                    first: first.wrapping_add(from),
                    stride,
                },
                Side::Rows { first, stride, .. } => Left::Rows {
                    first: first.wrapping_add(from * stride),
                    stride,
                    rows,
                },
            };
            let ahead = Ahead {
                rows: match left {
                    Side::Rows { first, stride, .. } => first.wrapping_add((from + R) * stride),
                    _ => std::ptr::null(),
                },
                stride: left.stride(),
                count: if first_panel {
                    R.min((part.rows.end - row).saturating_sub(R))
                } else {
                    0
                },
                panel: b.wrapping_add(steps * width + from / R * share),
                share,
            };
            let tile = sums[tile_at..][..R * W * V::N].as_mut_ptr();
            tile_at += if visit.one { 0 } else { R * W * V::N };
            let step = Step {
                vectors,
                steps,
                b,
                b_stride,
                tile,
                fresh: visit.fresh,
                ahead,
            };
            // SAFETY: both sides hold `steps` steps, the tile R rows of W registers; the rectangle lies inside the part.
            unsafe {
                F::multiply::<T::Acc, V, R>(session, a, step);
                if visit.last {
                    let at = Rect {
                        row,
                        col: cols.start,
                        rows,
                        cols: cols.len(),
                        stride: job.n,
                    };
                    write_tile::<V, T, C>(tile, width, at, &job.finish, job.c);
                }
            }
        }
    }
}
