//! The micro-kernel: a tile of sums kept in registers over all steps of a block of `k`.

use crate::cpu::simd::{Lanes, Real};

/// Elements of the largest tile of any instruction set.
pub(super) const MAX_TILE: usize = 32 * 32;

/// How the micro-kernel finds the rows of `a`.
#[derive(Clone, Copy)]
pub(super) enum Left<A> {
    /// In a packed panel, step after step.
    Panel(*const A),
    /// Row-major: `rows` of them, `stride` apart.
    Rows {
        first: *const A,
        stride: usize,
        rows: usize,
    },
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
    pub(super) tile: *mut A,
    /// Whether the sums start from zero.
    pub(super) fresh: bool,
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

#[inline(always)]
unsafe fn wide<A: Real, V: Lanes<A>, const R: usize, const W: usize>(
    a: Left<A>,
    step: Step<A>,
    dot: impl Fn(V, V, V) -> V + Copy,
) {
    let Step {
        steps,
        b,
        b_stride,
        tile,
        fresh,
        ..
    } = step;
    let mut sums = [[V::zero(); W]; R];
    // SAFETY: the caller's promise; rows beyond the last are read from the last, and their sums are never stored in c.
    unsafe {
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
                    let a = a.add(step * R);
                    add_step::<A, V, R, W>(&mut sums, |i| *a.add(i), b.add(step * b_stride), dot);
                }
            }
            Left::Rows { first, stride, rows } => {
                let mut starts = [first; R];
                for i in 0..R {
                    starts[i] = first.add(stride * i.min(rows - 1));
                }
                for step in 0..steps {
                    let a = |i: usize| starts[i].add(step).read_unaligned();
                    add_step::<A, V, R, W>(&mut sums, a, b.add(step * b_stride), dot);
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

/// Adds one step to all sums: `sums[i] += a(i)·b`.
///
/// # Safety
/// `b` must be valid for reading `W` registers.
#[inline(always)]
unsafe fn add_step<A: Real, V: Lanes<A>, const R: usize, const W: usize>(
    sums: &mut [[V; W]; R],
    a: impl Fn(usize) -> A,
    b: *const A,
    dot: impl Fn(V, V, V) -> V,
) {
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
