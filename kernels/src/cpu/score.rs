//! What the losses over score matrices share: scratch for a block of scores, softmax statistics.

use crate::cpu::lanes::{Place, lanes};
use crate::cpu::simd::{Lanes, MAX_LANES, Real, simd};
use crate::{Element, Stored};
use num_traits::{Float, Zero};
use std::cell::RefCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

/// A cache line, so that scratch is aligned for every register.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
struct Line([u64; 8]);

thread_local! {
    /// Memory given back by [`Scratch`], for the next one on this thread.
    static POOL: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// A slice of `len` elements with arbitrary contents, reused from call to call.
pub(crate) struct Scratch<A: bytemuck::Pod> {
    lines: Vec<Line>,
    len: usize,
    element: PhantomData<A>,
}

impl<A: bytemuck::Pod> Scratch<A> {
    pub(crate) fn new(len: usize) -> Scratch<A> {
        let needed = (len * size_of::<A>()).div_ceil(size_of::<Line>());
        let mut lines = POOL.with_borrow_mut(|pool| {
            let fits = pool.iter().position(|lines| lines.len() >= needed);
            match fits {
                Some(at) => pool.swap_remove(at),
                None => pool.pop().unwrap_or_default(),
            }
        });
        if lines.len() < needed {
            lines = vec![Line([0; 8]); needed];
        }
        Scratch { lines, len, element: PhantomData }
    }
}

impl<A: bytemuck::Pod> Drop for Scratch<A> {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // The thread may be ending and its pool gone: then the memory is simply freed.
        let _ = POOL.try_with(|pool| pool.borrow_mut().push(lines));
    }
}

impl<A: bytemuck::Pod> Deref for Scratch<A> {
    type Target = [A];
    fn deref(&self) -> &[A] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<A: bytemuck::Pod> DerefMut for Scratch<A> {
    fn deref_mut(&mut self) -> &mut [A] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

/// Room for scores rounded to the type that products take, where that is not the type they are computed in.
pub(crate) fn narrow_space<T: Element>(len: usize) -> Option<Scratch<T>> {
    (T::DTYPE != T::Acc::DTYPE).then(|| Scratch::new(len))
}

/// Scores as products take them: `narrow` if there is such a copy, else the scores themselves, whose type is T then.
pub(crate) fn narrowed<'a, T: Element>(scores: &'a [T::Acc], narrow: &'a Option<Scratch<T>>) -> &'a [T] {
    match narrow {
        Some(narrow) => &narrow[..scores.len()],
        None => bytemuck::cast_slice(scores),
    }
}

/// A row of scores z in short.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statistics<A> {
    /// The largest score.
    pub(crate) max: A,
    /// Its first place.
    pub(crate) argmax: usize,
    /// Σ e^(z − max); NaN when any score is, though the largest passes over it.
    pub(crate) sum: A,
}

impl<A: Real> Statistics<A> {
    /// ln Σ e^z
    pub(crate) fn lse(&self) -> A {
        self.max + self.sum.ln()
    }

    /// ln Σ e^z − `score`, without the rounding of a large log-sum-exp.
    pub(crate) fn excess(&self, score: A) -> A {
        self.sum.ln() + (self.max - score)
    }
}

simd! {
    /// The statistics of a row of at most 2²⁴ scores.
    pub(crate) fn statistics<V; T: Element>(row: &[T]) -> Statistics<T::Acc> {
        let lowest = T::Acc::neg_infinity();
        let width = V::splat(T::Acc::of(V::N as f64));
        let mut index = [T::Acc::zero(); MAX_LANES];
        index.iter_mut().enumerate().for_each(|(i, lane)| *lane = T::Acc::of(i as f64));
        // SAFETY: the array holds MAX_LANES ≥ V::N elements.
        let first: V = unsafe { V::load(index.as_ptr()) };
        let mut here = first - width;
        let (mut best, mut place) = (V::splat(lowest), first);
        lanes!(V, row.len(), at => {
            let z: V = at.load(row, lowest);
            here = here + width;
            place = z.select_gt(best, here, place);
            best = z.select_gt(best, z, best);
        });
        let max = best.largest();
        let (mut bests, mut places) = ([lowest; MAX_LANES], index);
        // SAFETY: both arrays hold MAX_LANES ≥ V::N elements.
        unsafe {
            best.store(bests.as_mut_ptr());
            place.store(places.as_mut_ptr());
        }
        let argmax = (0..V::N).filter(|&i| bests[i] == max).map(|i| places[i].f64() as usize).min();
        let (mut sum, shift) = (V::zero(), V::splat(max));
        lanes!(V, row.len(), at => {
            let z: V = at.load(row, lowest);
            sum = sum + (z - shift).exp();
        });
        Statistics {
            max,
            argmax: argmax.unwrap_or(0),
            sum: sum.sum(),
        }
    }
}

/// ln(1 + u) for 0 ≤ u ≤ 1: 2·artanh(y) with y = u / (2 + u) ≤ 1/3, by its power series.
#[inline(always)]
pub(crate) fn ln_1p<A: Real, V: Lanes<A>>(u: V) -> V {
    let terms = if size_of::<A>() == 4 { 7 } else { 16 };
    let y = u / (u + V::splat(A::of(2.0)));
    let y2 = y * y;
    let mut p = V::zero();
    for k in (0..=terms).rev() {
        p = p.fma(y2, V::splat(A::of(2.0 / (2 * k + 1) as f64)));
    }
    p * y
}

/// ln(1 + eˣ); NaN for NaN.
#[inline(always)]
pub(crate) fn softplus<A: Real, V: Lanes<A>>(x: V) -> V {
    let positive = x - x.min(V::zero());
    positive + ln_1p::<A, V>(x.min(-x).exp())
}
