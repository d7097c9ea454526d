//! Sums along one axis on the CPU.
//!
//! Where the outputs alone are enough work to share out, each is summed over the whole axis by one task. Else the axis is
//! cut into parts, whose sums become the rows of a second, short sum.

use crate::Element;
use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{CHUNK, chunk_rows, for_chunks, with_scratch};
use crate::cpu::simd::{Real, simd};
use crate::elementwise::cpu::scale_chunk;
use num_traits::{One, Zero};

/// Columns summed together: their sums stay in the L1 cache.
const COLUMNS: usize = 512;
/// Parts the axis is cut into at most, and outputs (in blocks of columns) beyond which it is not cut.
const PARTS: usize = 64;

/// `out[o, i] = factor · Σ_a x[o, a, i]`.
pub(crate) fn sum_axis<T: Element, U: Element<Acc = T::Acc>>(
    x: &[T],
    out: &mut [U],
    [outer, axis, inner]: [usize; 3],
    factor: f64,
) {
    let factor = T::Acc::of(factor);
    let rows = part_rows(outer, axis, inner);
    if rows >= axis {
        return sum_whole_axis(x, out, [outer, axis, inner], factor);
    }
    let parts = axis.div_ceil(rows);
    with_scratch::<T::Acc, _>(outer * parts * inner, |sums| {
        for_chunks(outer * parts, ((&mut *sums, inner),), |chunk, (sums,)| {
            let (o, first) = (chunk / parts, chunk % parts * rows);
            let count = rows.min(axis - first);
            let x = &x[(o * axis + first) * inner..][..count * inner];
            sum_rows(x, inner, count, inner, T::Acc::one(), sums);
        });
        sum_whole_axis(sums, out, [outer, parts, inner], factor);
    });
}

/// Rows of the axis that are summed by one task.
fn part_rows(outer: usize, axis: usize, inner: usize) -> usize {
    let outputs = outer * inner.div_ceil(COLUMNS);
    if outputs >= PARTS || outer * axis * inner <= CHUNK {
        return axis;
    }
    axis.div_ceil((axis * inner).div_ceil(CHUNK).min(PARTS))
}

/// [`sum_axis`] with each output summed over the whole axis by one task.
fn sum_whole_axis<T: Element, U: Element<Acc = T::Acc>>(
    x: &[T],
    out: &mut [U],
    [outer, axis, inner]: [usize; 3],
    factor: T::Acc,
) {
    if outer * inner == 0 {
        return;
    }
    if outer >= PARTS || inner <= COLUMNS {
        let per = chunk_rows(axis * inner);
        let parts = ((x, per * axis * inner), (out, per * inner));
        return for_chunks(outer.div_ceil(per), parts, |_, (x, out)| {
            for (o, out) in out.chunks_exact_mut(inner).enumerate() {
                sum_rows(&x[o * axis * inner..][..axis * inner], inner, axis, inner, factor, out);
            }
        });
    }
    let columns = chunk_rows(axis).next_multiple_of(COLUMNS);
    for (o, out) in out.chunks_exact_mut(inner).enumerate() {
        let x = &x[o * axis * inner..][..axis * inner];
        for_chunks(inner.div_ceil(columns), ((out, columns),), |chunk, (out,)| {
            let width = out.len();
            sum_rows(x.get(chunk * columns..).unwrap_or(&[]), inner, axis, width, factor, out);
        });
    }
}

/// `out[i] = factor · Σ_r x[r · stride + i]` over `rows` rows, for `width` columns.
fn sum_rows<T: Element, U: Element<Acc = T::Acc>>(
    x: &[T],
    stride: usize,
    rows: usize,
    width: usize,
    factor: T::Acc,
    out: &mut [U],
) {
    if width == 1 && stride == 1 {
        out[0] = U::narrow(sum_contiguous(&x[..rows]) * factor);
        return;
    }
    for start in (0..width).step_by(COLUMNS) {
        let end = width.min(start + COLUMNS);
        sum_columns(x.get(start..).unwrap_or(&[]), stride, rows, factor, &mut out[start..end]);
    }
}

simd! {
    /// The sum of all elements.
    fn sum_contiguous<V; T: Element>(x: &[T]) -> T::Acc {
        let mut sum = V::zero();
        lanes!(V, x.len(), at => {
            let x: V = at.load(x, T::Acc::zero());
            sum = sum + x;
        });
        sum.sum()
    }

    /// `out[i] = factor · Σ_r x[r · stride + i]` for at most `COLUMNS` columns.
    fn sum_columns<V; T: Element, U: Element<Acc = T::Acc>>(
        x: &[T],
        stride: usize,
        rows: usize,
        factor: T::Acc,
        out: &mut [U],
    ) {
        let mut sums = [T::Acc::zero(); COLUMNS];
        let sums = &mut sums[..out.len()];
        for row in 0..rows {
            let x = &x[row * stride..][..sums.len()];
            lanes!(V, sums.len(), at => {
                let (x, sum): (V, V) = (at.load(x, T::Acc::zero()), at.load(sums, T::Acc::zero()));
                at.store(sums, sum + x);
            });
        }
        scale_chunk(sums, out, factor);
    }
}

/// `out[o, a, i] = factor · x[o, i]`.
pub(crate) fn broadcast_axis<T: Element, U: Element<Acc = T::Acc>>(
    x: &[T],
    out: &mut [U],
    [outer, axis, inner]: [usize; 3],
    factor: f64,
) {
    let factor = T::Acc::of(factor);
    let per = chunk_rows(inner);
    for_chunks((outer * axis).div_ceil(per), ((out, per * inner),), |chunk, (mut out,)| {
        let mut row = chunk * per;
        while !out.is_empty() {
            let o = row / axis;
            let run = ((o + 1) * axis - row).min(out.len() / inner);
            let here = out.split_off_mut(..run * inner).expect("a run ends within the chunk");
            repeat(&x[o * inner..][..inner], here, factor);
            row += run;
        }
    });
}

/// Every row of `out` is `factor · x`.
fn repeat<T: Element, U: Element<Acc = T::Acc>>(x: &[T], out: &mut [U], factor: T::Acc) {
    match x {
        [x] => out.fill(U::narrow(x.widen() * factor)),
        _ => out.chunks_exact_mut(x.len()).for_each(|out| scale_chunk(x, out, factor)),
    }
}
