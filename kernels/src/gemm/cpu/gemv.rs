//! Products of few rows, which decoding consists of. Packing `b` pays off over many rows of `a`; with few, all time goes
//! into reading `b` once. So its rows pass by as they lie in memory, a few side by side, each multiplied with all rows
//! of `a`.

use super::block::Job;
use super::epilogue::{Rect, write_tile};
use super::pack::Order;
use crate::Element;
use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::for_chunks;
use crate::cpu::prefetch::prefetch_l2;
use crate::cpu::simd::{Lanes, MAX_LANES, simd};
use crate::elementwise::cpu::widened;
use num_traits::Zero;
use std::ops::Range;

/// Most rows of `a`: with more, packing `b` begins to pay.
const FEW: usize = 16;
/// Rows of `a` multiplied at once, with two rows of `b`: their sums fit the registers of AVX2.
const ROWS: usize = 4;
/// Elements of `b` per task: some 20 µs of reading from memory.
const TASK: usize = 1 << 16;

/// Whether [`multiply`] takes the product.
pub(super) fn fits<T: Element, C>(job: &Job<T, C>) -> bool {
    job.m <= FEW && job.a.order == Order::KMajor && job.b.order == Order::KMajor
}

/// A whole product with few rows of `a` and rows of `b` that lie along `k`.
pub(super) fn multiply<T: Element, C: Element<Acc = T::Acc>>(job: &Job<T, C>) {
    let Job { n, k, .. } = *job;
    let cols = (TASK / k.max(1)).next_multiple_of(MAX_LANES).max(MAX_LANES);
    widened([job.a.data], |[a]| {
        for_chunks(n.div_ceil(cols), (), |task, ()| {
            multiply_cols(job, a, task * cols..n.min((task + 1) * cols));
        });
    });
}

simd! {
    /// The columns `cols` of the product, with `a` widened. Safety: no other task has them.
    fn multiply_cols<V; T: Element, C: Element<Acc = T::Acc>>(job: &Job<T, C>, a: &[T::Acc], cols: Range<usize>) {
        for col in cols.clone().step_by(V::N) {
            for row in (0..job.m).step_by(ROWS) {
                let at = Rect { row, col, rows: ROWS.min(job.m - row), cols: V::N.min(cols.end - col), stride: job.n };
                match at.rows {
                    1 => tile::<V, T, C, 1, 4>(job, a, at),
                    2 => tile::<V, T, C, 2, 4>(job, a, at),
                    3 => tile::<V, T, C, 3, 2>(job, a, at),
                    _ => tile::<V, T, C, 4, 2>(job, a, at),
                }
            }
        }
    }
}

/// The tile of `M` rows and up to `V::N` columns at `at`, `R` columns at a time.
#[inline(always)]
fn tile<V: Lanes<T::Acc>, T: Element, C: Element<Acc = T::Acc>, const M: usize, const R: usize>(
    job: &Job<T, C>,
    a: &[T::Acc],
    at: Rect,
) {
    let mut sums = [T::Acc::zero(); ROWS * MAX_LANES];
    let mut left = [&a[..0]; M];
    for i in 0..M {
        left[i] = &a[(at.row + i) * job.k..][..job.k];
    }
    for first in (0..at.cols).step_by(R) {
        let mut right = [&job.b.data[..0]; R];
        for j in 0..R {
            // Past the last column the last one once more: its sums are not written.
            let col = at.col + (first + j).min(at.cols - 1);
            right[j] = &job.b.data[col * job.k..][..job.k];
        }
        let dots = dots::<V, T, M, R>(left, right);
        for i in 0..M {
            for j in 0..R {
                sums[i * V::N + first + j] = dots[i][j].sum();
            }
        }
    }
    // SAFETY: the tile has M rows of V::N ≥ at.cols sums; its place in `c` is this task's own.
    unsafe { write_tile::<V, T, C>(sums.as_ptr(), V::N, at, &job.epilogue, job.c) }
}

/// The products of `M` rows of `a` with `R` rows of `b`, lane by lane.
#[inline(always)]
fn dots<V: Lanes<T::Acc>, T: Element, const M: usize, const R: usize>(a: [&[T::Acc]; M], b: [&[T]; R]) -> [[V; R]; M] {
    let k = a[0].len();
    let mut sums = [[V::zero(); R]; M];
    lanes!(V, k, at => {
        let mut left = [V::zero(); M];
        for i in 0..M {
            left[i] = at.load::<T::Acc, V>(a[i], T::Acc::zero());
        }
        for j in 0..R {
            // The rows that follow these: the processor foresees no further than the page.
            prefetch_l2(b[j].as_ptr().wrapping_add(at.start() + R * k), V::N);
            let right: V = at.load(b[j], T::Acc::zero());
            for i in 0..M {
                sums[i][j] = left[i].fma(right, sums[i][j]);
            }
        }
    });
    sums
}
