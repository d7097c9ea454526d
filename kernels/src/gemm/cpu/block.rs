//! One task: a rectangle of `c` over a range of `k`, on one thread.

use super::epilogue::{Epilogue, Rect, Shared, write_tile};
use super::format::Format;
use super::pack::Operand;
use super::scratch::{Purpose, Scratch};
use super::side::{Side, panels};
use super::tile::{MAX_TILE, Prefetch, Rows, Step};
use crate::cpu::prefetch::LINE;
use crate::cpu::simd::{Lanes, Real};
use crate::{Element, Stored};
use std::ops::Range;

/// Values of `k` between two visits to a tile: a panel of `b` this long stays in the L1 cache while the rows
/// of `a` pass by. A multiple of what any format groups, so that no step straddles two blocks.
pub(super) const K_BLOCK: usize = 384;

/// Elements from which on `c` is not in the L1 cache anyway.
const FAR: usize = 1 << 14;

/// One matrix product.
#[derive(Clone, Copy)]
pub(super) struct Job<'a, T: Element, C> {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: Operand<'a, T>,
    pub(super) b: Operand<'a, T>,
    pub(super) epilogue: Epilogue<'a, T>,
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
pub(super) struct Accumulators<'a, A> {
    pub(super) sums: &'a mut [A],
    /// Start them from zero.
    pub(super) fresh: bool,
    /// Finish them into `c`.
    pub(super) last: bool,
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
    kept: Option<Accumulators<T::Acc>>,
) {
    let session = F::begin();
    let blocks = part.ks.len().div_ceil(K_BLOCK).max(1);
    let mut single = Single([T::Acc::of(0.0); MAX_TILE]);
    let mut scratch = [const { None }; 3];
    let [a_scratch, b_scratch, sums_scratch] = &mut scratch;
    let whole = part.rows.len().is_multiple_of(R) && part.cols.len().is_multiple_of(V::N);
    let (mut sums, fresh, last) = match kept {
        Some(Accumulators { sums, fresh, last }) => (Sums::Tiles(sums), fresh, last),
        None if whole && C::DTYPE == T::Acc::DTYPE && job.epilogue.is_sum() => {
            let first = job.c.element(part.rows.start * job.n + part.cols.start).cast();
            (Sums::InPlace { first, stride: job.n }, !job.epilogue.accumulate, false)
        }
        None if blocks == 1 => (Sums::One(&mut single.0), true, true),
        None => {
            let tiles = part.rows.len().div_ceil(R) * part.cols.len().div_ceil(W * V::N);
            let scratch = sums_scratch.insert(Scratch::take::<T::Acc>(Purpose::Sums, tiles * R * W * V::N));
            (Sums::Tiles(scratch.slice()), true, true)
        }
    };
    for block in 0..blocks {
        let start = part.ks.start + block * K_BLOCK;
        let now = Part { ks: start..part.ks.end.min(start + K_BLOCK), ..part.clone() };
        let left = Side::rows::<V, T, F, R>(job.a, &now, a_scratch);
        let right = match packed {
            Some(panels) => panels.block::<F>(&now),
            None => Side::columns::<V, T, F, W>(job.b, job.m, &now, b_scratch),
        };
        let k_block = KBlock { fresh: fresh && block == 0, last: last && block + 1 == blocks };
        // SAFETY: the caller's promise; both sides hold the block's steps, and `sums` all tiles, or one if it is enough.
        unsafe { sweep::<V, T, C, F, R, W>(job, &now, &session, left, right, &mut sums, k_block) }
    }
}

/// A tile on the stack, aligned like a register.
#[repr(align(64))]
struct Single<A>([A; MAX_TILE]);

/// What one block of `k` does with the sums.
#[derive(Clone, Copy)]
struct KBlock {
    /// Starts them from zero.
    fresh: bool,
    /// Finishes them into `c`.
    last: bool,
}

/// Where a part's sums live.
enum Sums<'a, A> {
    /// In one tile: each is finished at once.
    One(&'a mut [A]),
    /// Tile after tile.
    Tiles(&'a mut [A]),
    /// In `c`, from the part's first element on.
    InPlace { first: *mut A, stride: usize },
}

impl<A> Sums<'_, A> {
    /// The memory of tile `index`, which has `size` elements, lies at `(row, col)` of the part and is `width` wide; and
    /// the elements between its rows.
    #[inline(always)]
    fn tile(&mut self, index: usize, size: usize, row: usize, col: usize, width: usize) -> (*mut A, usize) {
        match self {
            Sums::One(tile) => (tile[..size].as_mut_ptr(), width),
            Sums::Tiles(tiles) => (tiles[index * size..][..size].as_mut_ptr(), width),
            Sums::InPlace { first, stride } => (first.wrapping_add(row * *stride + col), *stride),
        }
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
    sums: &mut Sums<T::Acc>,
    k_block: KBlock,
) {
    let (steps, count) = (F::steps(part.ks.len()), part.rows.len());
    let writes = (k_block.last || matches!(sums, Sums::InPlace { .. })) && job.m * job.n >= FAR;
    let mut index = 0;
    for (cols, vectors) in panels::<W>(part.cols.clone(), V::N) {
        let (col, width) = (cols.start - part.cols.start, vectors * V::N);
        let (b, b_stride) = right.right(col, width, steps);
        let share = right.share(width * steps, count.div_ceil(R));
        for row in (0..count).step_by(R) {
            let (tile, tile_stride) = sums.tile(index, R * W * V::N, row, col, width);
            index += 1;
            let at = Rect {
                row: part.rows.start + row,
                col: cols.start,
                rows: R.min(count - row),
                cols: cols.len(),
                stride: job.n,
            };
            let next = if col == 0 { row + R } else { count };
            // Sums that are gone on with are read before they are written: those of the next tile are fetched.
            let touched = Rect {
                row: at.row + if k_block.fresh { 0 } else { R },
                rows: if k_block.fresh { at.rows } else { R.min(count.saturating_sub(row + R)) },
                ..at
            };
            let prefetch = Prefetch {
                panel: b.wrapping_add(width * steps + row / R * share),
                share,
                ..left.prefetch::<R>(next, count, results(job, touched, writes, k_block.last))
            };
            let step = Step { vectors, steps, b, b_stride, tile, tile_stride, fresh: k_block.fresh, prefetch };
            // SAFETY: both sides hold `steps` steps, the tile R rows of W registers; the rectangle lies inside the part.
            unsafe {
                F::multiply::<T::Acc, V, R>(session, left.left::<R>(row, count, steps), step);
                if k_block.last {
                    write_tile::<V, T, C>(tile, tile_stride, at, &job.epilogue, job.c);
                }
            }
        }
    }
}

/// What a tile that `writes` into `at` will touch of `c`, and in its
/// `last` block of `k` of what else belongs to it; to be prefetched.
#[inline(always)]
fn results<T: Element, C: Element<Acc = T::Acc>>(job: &Job<T, C>, at: Rect, writes: bool, last: bool) -> [Rows; 3] {
    let place = at.row * at.stride + at.col;
    let rows = |first: *const u8, size: usize, exists| Rows {
        first,
        rows: if exists { at.rows } else { 0 },
        stride: at.stride * size,
        // Where rows do not begin with a cache line they reach into one more.
        bytes: at.cols * size + if (at.stride * size).is_multiple_of(LINE) { 0 } else { LINE },
    };
    let pre = job.epilogue.pre.map_or(std::ptr::null(), |pre| pre.element(place).cast_const());
    let residual = job.epilogue.residual.map_or(std::ptr::null(), |x| x.as_ptr().wrapping_add(place));
    let last = writes && last;
    [
        rows(job.c.element(place).cast(), size_of::<C>(), writes),
        rows(pre.cast(), size_of::<T>(), last && !pre.is_null()),
        rows(residual.cast(), size_of::<T>(), last && !residual.is_null()),
    ]
}
