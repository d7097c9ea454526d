//! The micro-kernel: a tile of sums kept in registers over all steps of a block of `k`.

use super::dot::dot;
use crate::cpu::simd::{Lanes, Real};

/// Elements of the largest tile of any instruction set.
pub(super) const MAX_TILE: usize = 8 * 48;

/// How the micro-kernel finds the rows of `a`.
#[derive(Clone, Copy)]
pub(super) enum Left<A> {
    /// In a packed panel.
    Panel(*const A),
    /// In place: `rows` of them, `stride` apart, a step's values being neighbours.
    Rows {
        first: *const A,
        stride: usize,
        rows: usize,
    },
}

/// `tile (R, vectors·V::N) = [tile +] a·b` over `steps` steps. `fresh` starts from zero.
///
/// # Safety
/// `a` must hold `steps` steps of its rows (a panel: of `R` rows), `b` a panel of `steps` steps as wide as the tile, and
/// `tile` `R` rows; `1 ≤ vectors ≤ 3`.
#[inline(always)]
pub(super) unsafe fn multiply<A: Real, V: Lanes<A>, const R: usize, const PAIRS: bool>(
    vectors: usize,
    steps: usize,
    a: Left<A>,
    b: *const A,
    tile: *mut A,
    fresh: bool,
) {
    // SAFETY: the caller's promise, for the width chosen here.
    unsafe {
        match vectors {
            1 => wide::<A, V, R, 1, PAIRS>(steps, a, b, tile, fresh),
            2 => wide::<A, V, R, 2, PAIRS>(steps, a, b, tile, fresh),
            _ => wide::<A, V, R, 3, PAIRS>(steps, a, b, tile, fresh),
        }
    }
}

#[inline(always)]
unsafe fn wide<A: Real, V: Lanes<A>, const R: usize, const W: usize, const PAIRS: bool>(
    steps: usize,
    a: Left<A>,
    b: *const A,
    tile: *mut A,
    fresh: bool,
) {
    // SAFETY: `multiply`'s promises; rows beyond the last are read from the last, and their sums are never stored in c.
    unsafe {
        let mut sums = [[V::zero(); W]; R];
        if !fresh {
            for i in 0..R {
                for j in 0..W {
                    sums[i][j] = V::load(tile.add((i * W + j) * V::N));
                }
            }
        }
        match a {
            Left::Panel(a) => {
                for step in 0..steps {
                    let b = registers::<A, V, W>(b.add(step * W * V::N));
                    for i in 0..R {
                        let a = V::splat(*a.add(step * R + i));
                        for j in 0..W {
                            sums[i][j] = dot::<A, V, PAIRS>(a, b[j], sums[i][j]);
                        }
                    }
                }
            }
            Left::Rows { first, stride, rows } => {
                let mut starts = [first; R];
                for i in 0..R {
                    starts[i] = first.add(stride * i.min(rows - 1));
                }
                for step in 0..steps {
                    let b = registers::<A, V, W>(b.add(step * W * V::N));
                    for i in 0..R {
                        let a = V::splat(starts[i].add(step).read_unaligned());
                        for j in 0..W {
                            sums[i][j] = dot::<A, V, PAIRS>(a, b[j], sums[i][j]);
                        }
                    }
                }
            }
        }
        for i in 0..R {
            for j in 0..W {
                sums[i][j].store(tile.add((i * W + j) * V::N));
            }
        }
    }
}

/// # Safety
/// `p` must be valid for reading `W` registers.
#[inline(always)]
unsafe fn registers<A: Real, V: Lanes<A>, const W: usize>(p: *const A) -> [V; W] {
    let mut all = [V::zero(); W];
    for j in 0..W {
        // SAFETY: the caller's promise.
        all[j] = unsafe { V::load(p.add(j * V::N)) };
    }
    all
}
