//! Rotary embedding on the processor.

use crate::Element;
use crate::cpu::simd::{Real, load_tail, simd, store_tail};
use num_traits::Zero;
use rayon::prelude::*;

/// Elements a task rotates, about.
const TASK: usize = 1 << 14;

/// See [`crate::rotary::rotary`].
pub(crate) fn rotary<T: Element>(
    x: &[T],
    positions: &[i32],
    inv_freq: &[T::Acc],
    y: &mut [T],
    heads: usize,
    inverse: bool,
) {
    if x.is_empty() {
        return;
    }
    let half = inv_freq.len();
    let table = Table::new(positions, inv_freq, inverse);
    let token = heads * 2 * half;
    let tokens = (TASK / token).max(1);
    let tasks = x.par_chunks(tokens * token).zip(y.par_chunks_mut(tokens * token));
    tasks.zip(positions.par_chunks(tokens)).enumerate().for_each(|(task, ((x, y), positions))| {
        for (i, position) in positions.iter().enumerate() {
            let angles = table.angles(task * tokens + i, *position);
            let range = i * token..(i + 1) * token;
            rotate(&x[range.clone()], &mut y[range], angles);
        }
    });
}

/// Cosines and sines: a row for each position where positions are dense, as in batches of sequences, else for each token.
struct Table<A> {
    /// Rows of `half` cosines and `half` sines.
    rows: Vec<A>,
    half: usize,
    /// The first row's position, if rows are positions.
    first: Option<i32>,
}

impl<A: Real> Table<A> {
    /// A table for at least one token.
    fn new(positions: &[i32], inv_freq: &[A], inverse: bool) -> Table<A> {
        let (least, most) = positions.iter().fold((i32::MAX, i32::MIN), |(a, b), &p| (a.min(p), b.max(p)));
        let dense = most as i64 - (least as i64) < positions.len() as i64;
        let half = inv_freq.len();
        let mut rows = Vec::with_capacity(2 * half * positions.len());
        let mut row = |position: i32| {
            let angles = inv_freq.iter().map(|&f| A::of(position as f64) * f);
            rows.extend(angles.clone().map(A::cos));
            rows.extend(angles.map(|a| if inverse { -a.sin() } else { a.sin() }));
        };
        match dense {
            true => (least..=most).for_each(&mut row),
            false => positions.iter().copied().for_each(&mut row),
        }
        Table { rows, half, first: dense.then_some(least) }
    }

    fn angles(&self, token: usize, position: i32) -> &[A] {
        let row = self.first.map_or(token, |first| (position - first) as usize);
        &self.rows[row * 2 * self.half..][..2 * self.half]
    }
}

simd! {
    /// All heads of one token: (a, b) → (a·cos − b·sin, b·cos + a·sin).
    fn rotate<V; T: Element>(x: &[T], y: &mut [T], angles: &[T::Acc]) {
        let half = angles.len() / 2;
        let (cos, sin) = angles.split_at(half);
        for (x, y) in x.chunks_exact(2 * half).zip(y.chunks_exact_mut(2 * half)) {
            let ((xa, xb), (ya, yb)) = (x.split_at(half), y.split_at_mut(half));
            for j in (0..half).step_by(V::N) {
                if j + V::N <= half {
                    // SAFETY: j + V::N ≤ half, the length of all six slices.
                    unsafe {
                        let (c, s) = (V::load(cos.as_ptr().add(j)), V::load(sin.as_ptr().add(j)));
                        let (a, b) = (T::load::<V>(xa.as_ptr().add(j)), T::load::<V>(xb.as_ptr().add(j)));
                        T::store(ya.as_mut_ptr().add(j), a.fma(c, -(b * s)));
                        T::store(yb.as_mut_ptr().add(j), b.fma(c, a * s));
                    }
                } else {
                    let zero = T::Acc::zero();
                    let (c, s) = (load_tail::<T::Acc, V>(&cos[j..], zero), load_tail::<T::Acc, V>(&sin[j..], zero));
                    let (a, b) = (load_tail::<T, V>(&xa[j..], zero), load_tail::<T, V>(&xb[j..], zero));
                    store_tail(&mut ya[j..], a.fma(c, -(b * s)));
                    store_tail(&mut yb[j..], b.fma(c, a * s));
                }
            }
        }
    }
}
