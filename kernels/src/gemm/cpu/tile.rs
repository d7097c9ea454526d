//! The micro-kernel: a tile of sums kept in registers over all steps of a block of `k`.

use super::side::SHORT_ROW;
use crate::cpu::prefetch::{prefetch_l1, prefetch_l2};
use crate::cpu::simd::{Lanes, Real};

/// Elements of the largest tile of any instruction set.
pub(super) const MAX_TILE: usize = 32 * 32;

/// How the micro-kernel finds the rows of `a`.
#[derive(Clone, Copy)]
pub(super) enum Left<A> {
    /// Step after step, `stride` apart, a step's `R` values being neighbours.
    Steps { first: *const A, stride: usize },
    /// Row-major: `rows` of them, `stride` apart.
    Rows { first: *const A, stride: usize, rows: usize },
}

/// The other side and the sums.
#[derive(Clone, Copy)]
pub(super) struct Step<A> {
    /// Registers per row of the tile.
    pub(super) vectors: usize,
    pub(super) steps: usize,
    /// First step of `b`, and elements between steps.
    pub(super) b: *const A,
    pub(super) b_stride: usize,
    /// The sums, and elements between their rows.
    pub(super) tile: *mut A,
    pub(super) tile_stride: usize,
    /// Whether the sums start from zero.
    pub(super) fresh: bool,
    pub(super) prefetch: Prefetch<A>,
}

/// What this tile will write and the next ones will read, to be prefetched into the L2 cache little by little.
#[derive(Clone, Copy)]
pub(super) struct Prefetch<A> {
    /// `count` rows of `a`, `stride` apart, for the same steps.
    pub(super) rows: *const A,
    pub(super) stride: usize,
    pub(super) count: usize,
    /// `share` elements of packed `b`.
    pub(super) panel: *const A,
    pub(super) share: usize,
    /// What this tile will write, and what its epilogue reads.
    pub(super) results: [Rows; 3],
}

/// Rows of `c` or of what goes with it: their number, bytes between them, and bytes of each.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) first: *const u8,
    pub(super) rows: usize,
    pub(super) stride: usize,
    pub(super) bytes: usize,
}

/// Steps that `b` is asked for in advance where they lie too far apart for the processor to foresee them: some 400 cycles
/// of a whole tile.
const FAR_STEPS: usize = 16;

/// Steps between two prefetches: a row of `a` moves on by one cache line of singles.
pub(super) const FETCH: usize = 16;

impl<A> Prefetch<A> {
    /// The same elements under another name of the same size.
    pub(super) fn cast<B>(self) -> Prefetch<B> {
        Prefetch {
            rows: self.rows.cast(),
            stride: self.stride,
            count: self.count,
            panel: self.panel.cast(),
            share: self.share,
            results: self.results,
        }
    }

    /// Spread over `groups` groups of [`FETCH`] steps.
    #[inline(always)]
    pub(super) fn spread(self, groups: usize) -> Spread<A> {
        Spread {
            rows: self.results[0].rows.max(self.results[1].rows).max(self.results[2].rows).div_ceil(groups.max(1)),
            size: self.share.div_ceil(groups.max(1)).next_multiple_of(FETCH),
            prefetch: self,
        }
    }
}

/// A [`Prefetch`] group by group. What a group's part is has been divided beforehand: a division takes as long as a step.
#[derive(Clone, Copy)]
pub(super) struct Spread<A> {
    prefetch: Prefetch<A>,
    /// Rows of the results for each group.
    rows: usize,
    /// Elements of the panel for each group.
    size: usize,
}

impl<A> Spread<A> {
    /// Fetches what belongs to group `index`.
    #[inline(always)]
    pub(super) fn group(&self, index: usize) {
        let prefetch = &self.prefetch;
        for row in 0..prefetch.count {
            prefetch_l2(prefetch.rows.wrapping_add(row * prefetch.stride + index * FETCH), 1);
        }
        for result in prefetch.results {
            for row in index * self.rows..result.rows.min((index + 1) * self.rows) {
                prefetch_l2(result.first.wrapping_add(row * result.stride), result.bytes);
            }
        }
        if index * self.size < prefetch.share {
            prefetch_l2(prefetch.panel.wrapping_add(index * self.size), self.size);
        }
    }
}

/// `Format::multiply` with sums in vector registers.
///
/// # Safety
/// As for `Format::multiply`.
#[inline(always)]
pub(super) unsafe fn multiply<A: Real, V: Lanes<A>, const R: usize>(
    a: Left<A>,
    step: Step<A>,
    dot: impl Fn(V, V, V) -> V + Copy,
) {
    // SAFETY: the caller's promise, for the width chosen here.
    unsafe {
        match step.vectors {
            1 => wide::<A, V, R, 1>(a, step, dot),
            2 => wide::<A, V, R, 2>(a, step, dot),
            _ => wide::<A, V, R, 3>(a, step, dot),
        }
    }
}

/// [`multiply`] for `W` registers per row.
///
/// # Safety
/// As for `Format::multiply`.
#[inline(always)]
unsafe fn wide<A: Real, V: Lanes<A>, const R: usize, const W: usize>(
    a: Left<A>,
    step: Step<A>,
    dot: impl Fn(V, V, V) -> V + Copy,
) {
    let mut sums = [[V::zero(); W]; R];
    // SAFETY: the caller's promise; rows beyond the last are read from the last, and their sums are never stored in c.
    unsafe {
        if !step.fresh {
            for i in 0..R {
                for j in 0..W {
                    sums[i][j] = V::load(step.tile.add(i * step.tile_stride + j * V::N));
                }
            }
        }
        match a {
            Left::Steps { first, stride } => add_steps(&mut sums, first, stride, step, dot),
            Left::Rows { first, stride, rows } => {
                let mut starts = [first; R];
                for i in 0..R {
                    starts[i] = first.add(stride * i.min(rows - 1));
                }
                add_rows(&mut sums, starts, step, dot);
            }
        }
        for i in 0..R {
            for j in 0..W {
                sums[i][j].store(step.tile.add(i * step.tile_stride + j * V::N));
            }
        }
    }
}

/// Adds all steps of a [`Left::Steps`].
///
/// # Safety
/// `first` must be valid for reading `R` elements at each step, and `step.b` `W` registers.
#[inline(always)]
unsafe fn add_steps<A: Real, V: Lanes<A>, const R: usize, const W: usize>(
    sums: &mut [[V; W]; R],
    first: *const A,
    stride: usize,
    step: Step<A>,
    dot: impl Fn(V, V, V) -> V + Copy,
) {
    let groups = step.steps.div_ceil(FETCH);
    let prefetch = step.prefetch.spread(groups);
    for group in 0..groups {
        prefetch.group(group);
        for index in group * FETCH..step.steps.min((group + 1) * FETCH) {
            // SAFETY: the caller's promise.
            unsafe {
                let (a, b) = (first.add(index * stride), step.b.add(index * step.b_stride));
                add_step(sums, |i| *a.add(i), b, step.b_stride, dot);
            }
        }
    }
}

/// Adds all steps of a [`Left::Rows`] whose rows begin at `starts`.
///
/// # Safety
/// Each row must be valid for reading an element at each step, and `step.b` `W` registers.
#[inline(always)]
unsafe fn add_rows<A: Real, V: Lanes<A>, const R: usize, const W: usize>(
    sums: &mut [[V; W]; R],
    starts: [*const A; R],
    step: Step<A>,
    dot: impl Fn(V, V, V) -> V + Copy,
) {
    let groups = step.steps.div_ceil(FETCH);
    let prefetch = step.prefetch.spread(groups);
    for group in 0..groups {
        prefetch.group(group);
        for start in starts {
            prefetch_l1(start.wrapping_add((group + 2) * FETCH));
        }
        for index in group * FETCH..step.steps.min((group + 1) * FETCH) {
            // SAFETY: the caller's promise.
            unsafe {
                let a = |i: usize| starts[i].add(index).read_unaligned();
                add_step(sums, a, step.b.add(index * step.b_stride), step.b_stride, dot);
            }
        }
    }
}

/// Adds one step to all sums: `sums[i] += a(i)·b`; the next one's `b` lies `b_stride` further on.
///
/// # Safety
/// `b` must be valid for reading `W` registers.
#[inline(always)]
unsafe fn add_step<A: Real, V: Lanes<A>, const R: usize, const W: usize>(
    sums: &mut [[V; W]; R],
    a: impl Fn(usize) -> A,
    b: *const A,
    b_stride: usize,
    dot: impl Fn(V, V, V) -> V,
) {
    if b_stride * size_of::<A>() > SHORT_ROW {
        for j in 0..W {
            prefetch_l1(b.wrapping_add(FAR_STEPS * b_stride + j * V::N));
        }
    }
    let mut right = [V::zero(); W];
    for j in 0..W {
        // SAFETY: the caller's promise.
        right[j] = unsafe { V::load(b.add(j * V::N)) };
    }
    for i in 0..R {
        let left = V::splat(a(i));
        for j in 0..W {
            sums[i][j] = dot(left, right[j], sums[i][j]);
        }
    }
}
