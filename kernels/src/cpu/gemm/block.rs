//! One task: a rectangle of `c` over a range of `k`, on one thread.

use super::epilogue::{Finish, Rect, Shared, write_tile};
use super::pack::{Operand, Order, pack, steps};
use super::scratch::{Purpose, Scratch};
use super::tile::{Left, MAX_TILE, multiply};
use crate::Element;
use crate::cpu::simd::{Lanes, Real};
use std::ops::Range;

/// Values of `k` between two visits to a tile: a panel of `b` this long stays in the first-level cache while the rows
/// of `a` pass by. Even, so that pairs never straddle two blocks.
pub(super) const K_BLOCK: usize = 256;

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

/// Panels of `b` packed beforehand: all columns from `first` on, padded to `padded`, block of `k` after block.
#[derive(Clone, Copy)]
pub(super) struct Panels<'a, A> {
    pub(super) data: &'a [A],
    pub(super) first: usize,
    pub(super) padded: usize,
}

/// Packs the values `ks` of `k` of columns `cols` of `b`, panel after panel.
#[inline(always)]
pub(super) fn pack_columns<V: Lanes<T::Acc>, T: Element, const W: usize, const PAIRS: bool>(
    from: Operand<T>,
    cols: Range<usize>,
    ks: Range<usize>,
    mut panels: &mut [T::Acc],
) {
    for first in cols.clone().step_by(W * V::N) {
        let span = first..cols.end.min(first + W * V::N);
        let width = span.len().next_multiple_of(V::N);
        let (panel, rest) = panels.split_at_mut(width * steps::<PAIRS>(ks.len()));
        pack::<T, PAIRS>(from, span, ks.clone(), width, panel);
        panels = rest;
    }
}

/// Computes `part` of the product. Without `panels` packs `b` itself. With `sums` leaves the unfinished sums there, tile
/// after tile; without finishes them into `c`.
///
/// # Safety
/// `part` must lie inside the product, `c` be as large as the product, and no other thread touch its part meanwhile.
#[inline(always)]
pub(super) unsafe fn multiply_part<
    V: Lanes<T::Acc>,
    T: Element,
    C: Element<Acc = T::Acc>,
    const R: usize,
    const W: usize,
    const PAIRS: bool,
>(
    job: &Job<T, C>,
    part: Part,
    panels: Option<Panels<T::Acc>>,
    sums: Option<&mut [T::Acc]>,
) {
    let blocks = part.ks.len().div_ceil(K_BLOCK).max(1);
    let keep = sums.is_some();
    let mut single = Single([T::Acc::of(0.0); MAX_TILE]);
    let mut scratch = [const { None }; 3];
    let [a_scratch, b_scratch, sums_scratch] = &mut scratch;
    let sums: &mut [T::Acc] = match sums {
        Some(sums) => sums,
        None if blocks == 1 => &mut single.0,
        None => {
            let tiles = part.rows.len().div_ceil(R) * part.cols.len().div_ceil(W * V::N);
            sums_scratch
                .insert(Scratch::take::<T::Acc>(Purpose::Sums, tiles * R * W * V::N))
                .slice()
        }
    };
    for block in 0..blocks {
        let start = part.ks.start + block * K_BLOCK;
        let now = Part {
            ks: start..part.ks.end.min(start + K_BLOCK),
            ..part.clone()
        };
        let left = rows_of::<T, R, PAIRS>(job.a, &now, a_scratch);
        let right = match panels {
            Some(panels) => panels.block(&now, steps::<PAIRS>(start), steps::<PAIRS>(now.ks.len())),
            None => columns_of::<V, T, W, PAIRS>(job.b, &now, b_scratch),
        };
        let visit = Visit {
            fresh: block == 0,
            last: block + 1 == blocks && !keep,
            single: blocks == 1 && !keep,
        };
        // SAFETY: the caller's promise; both sides hold the block's steps, and `sums` all tiles, or one if it is enough.
        unsafe { sweep::<V, T, C, R, W, PAIRS>(job, &now, left, right, sums, visit) }
    }
}

/// A tile on the stack, aligned like a register.
#[repr(align(64))]
struct Single<A>([A; MAX_TILE]);

/// What one block of `k` does with the tiles.
#[derive(Clone, Copy)]
struct Visit {
    /// Starts them from zero.
    fresh: bool,
    /// Finishes them into `c`.
    last: bool,
    /// All tiles share the memory of one: none is needed again.
    single: bool,
}

/// The rows of `a` for one block of `k`.
#[derive(Clone, Copy)]
enum LeftBlock<'a, T: Element> {
    InPlace { data: &'a [T], stride: usize },
    Packed(&'a [T::Acc]),
}

/// `a` in place where a step's values are neighbours already, packed otherwise.
#[inline(always)]
fn rows_of<'a, T: Element, const R: usize, const PAIRS: bool>(
    a: Operand<'a, T>,
    part: &Part,
    scratch: &'a mut Option<Scratch>,
) -> LeftBlock<'a, T> {
    let whole_steps = PAIRS && part.ks.len() % 2 == 0 && a.stride % 2 == 0;
    if a.order == Order::Along && (whole_steps || (!PAIRS && size_of::<T>() == size_of::<T::Acc>())) {
        let data = &a.data[part.rows.start * a.stride + part.ks.start..];
        return LeftBlock::InPlace { data, stride: a.stride };
    }
    let panel_len = R * steps::<PAIRS>(part.ks.len());
    let len = part.rows.len().div_ceil(R) * panel_len;
    let packed = &mut scratch
        .get_or_insert_with(|| Scratch::take::<T::Acc>(Purpose::A, len))
        .slice()[..len];
    for (row, panel) in part
        .rows
        .clone()
        .step_by(R)
        .zip(packed.chunks_exact_mut(panel_len.max(1)))
    {
        pack::<T, PAIRS>(a, row..part.rows.end.min(row + R), part.ks.clone(), R, panel);
    }
    LeftBlock::Packed(packed)
}

/// Packs the columns of `b` for one block of `k`.
#[inline(always)]
fn columns_of<'a, V: Lanes<T::Acc>, T: Element, const W: usize, const PAIRS: bool>(
    b: Operand<T>,
    part: &Part,
    scratch: &'a mut Option<Scratch>,
) -> &'a [T::Acc] {
    let len = part.cols.len().next_multiple_of(V::N) * steps::<PAIRS>(part.ks.len());
    let packed = &mut scratch
        .get_or_insert_with(|| Scratch::take::<T::Acc>(Purpose::B, len))
        .slice()[..len];
    pack_columns::<V, T, W, PAIRS>(b, part.cols.clone(), part.ks.clone(), packed);
    packed
}

impl<'a, A> Panels<'a, A> {
    /// The panels of a part, for the `steps` from `start` on.
    #[inline(always)]
    fn block(self, part: &Part, start: usize, steps: usize) -> &'a [A] {
        &self.data[start * self.padded + (part.cols.start - self.first) * steps..]
    }
}

/// Adds one block of `k` to all tiles of a part. A panel of `b` stays in the cache while the rows pass.
///
/// # Safety
/// As for [`multiply_part`]; `left` and `right` must hold the part's rows and columns for its `ks`, `sums` its tiles.
#[inline(always)]
unsafe fn sweep<
    V: Lanes<T::Acc>,
    T: Element,
    C: Element<Acc = T::Acc>,
    const R: usize,
    const W: usize,
    const PAIRS: bool,
>(
    job: &Job<T, C>,
    part: &Part,
    left: LeftBlock<T>,
    mut right: &[T::Acc],
    sums: &mut [T::Acc],
    visit: Visit,
) {
    let steps = steps::<PAIRS>(part.ks.len());
    let mut tile_at = 0;
    for col in part.cols.clone().step_by(W * V::N) {
        let cols = (part.cols.end - col).min(W * V::N);
        let vectors = cols.div_ceil(V::N);
        let (panel, rest) = right.split_at(vectors * V::N * steps);
        for row in part.rows.clone().step_by(R) {
            let rows = (part.rows.end - row).min(R);
            let a = match left {
                LeftBlock::Packed(panels) => Left::Panel(panels[(row - part.rows.start) * steps..].as_ptr()),
                LeftBlock::InPlace { data, stride } => Left::Rows {
                    first: data[(row - part.rows.start) * stride..].as_ptr().cast::<T::Acc>(),
                    stride: if PAIRS { stride / 2 } else { stride },
                    rows,
                },
            };
            let tile = sums[tile_at..][..R * W * V::N].as_mut_ptr();
            tile_at += if visit.single { 0 } else { R * W * V::N };
            // SAFETY: the panels hold `steps` steps, the tile R rows of W registers; the rectangle lies inside the part.
            unsafe {
                multiply::<T::Acc, V, R, PAIRS>(vectors, steps, a, panel.as_ptr(), tile, visit.fresh);
                if visit.last {
                    let at = Rect {
                        row,
                        col,
                        rows,
                        cols,
                        stride: job.n,
                    };
                    write_tile::<V, T, C>(tile, vectors * V::N, at, &job.finish, job.c);
                }
            }
        }
        right = rest;
    }
}

/// Adds up the sums that `ranges` ranges of `k` left one after another in `sums`, in that order, and finishes them.
///
/// # Safety
/// `rows × cols` must lie inside `c`, and no other thread touch it meanwhile.
#[inline(always)]
pub(super) unsafe fn merge_part<
    V: Lanes<T::Acc>,
    T: Element,
    C: Element<Acc = T::Acc>,
    const R: usize,
    const W: usize,
>(
    job: &Job<T, C>,
    rows: Range<usize>,
    cols: Range<usize>,
    sums: &mut [T::Acc],
    ranges: usize,
) {
    let (total, others) = sums.split_at_mut(sums.len() / ranges);
    for other in others.chunks_exact(total.len()) {
        for (total, other) in total.chunks_exact_mut(V::N).zip(other.chunks_exact(V::N)) {
            // SAFETY: both chunks hold a register; tiles are whole registers.
            unsafe { (V::load(total.as_ptr()) + V::load(other.as_ptr())).store(total.as_mut_ptr()) }
        }
    }
    let mut tiles = total.chunks_exact(R * W * V::N);
    for col in cols.clone().step_by(W * V::N) {
        let cols = (cols.end - col).min(W * V::N);
        for (row, tile) in rows.clone().step_by(R).zip(&mut tiles) {
            let at = Rect {
                row,
                col,
                rows: R.min(rows.end - row),
                cols,
                stride: job.n,
            };
            // SAFETY: the rectangle lies inside the caller's; the tile holds R rows of the panel's width.
            unsafe { write_tile::<V, T, C>(tile.as_ptr(), cols.next_multiple_of(V::N), at, &job.finish, job.c) }
        }
    }
}
