//! Dropout on the CPU.

use crate::Element;
use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{CHUNK, for_chunks};
use crate::cpu::random::uniform;
use crate::cpu::simd::{MAX_LANES, Real, simd};
use num_traits::Zero;

pub(crate) fn dropout<T: Element>(x: &[T], y: &mut [T], p: f64, seed: u64) {
    for_chunks(x.len().div_ceil(CHUNK), ((x, CHUNK), (y, CHUNK)), |chunk, (x, y)| {
        dropout_chunk(x, y, p, seed, chunk * CHUNK);
    });
}

simd! {
    /// `x` and `y` start at element `first`.
    fn dropout_chunk<V; T: Element>(x: &[T], y: &mut [T], p: f64, seed: u64, first: usize) {
        let (threshold, scale) = (p as f32, T::Acc::of(1.0 / (1.0 - p)));
        lanes!(V, x.len(), at => {
            let first = (first + at.start()) as u64;
            let mut factors = [T::Acc::zero(); MAX_LANES];
            for (lane, factor) in (0..).zip(factors.iter_mut().take(V::N)) {
                // `first` is a multiple of the register's width: an `or` adds, and leaves the upper half alone.
                let kept = uniform(seed, first | lane) >= threshold;
                *factor = if kept { scale } else { T::Acc::zero() };
            }
            // SAFETY: the array holds MAX_LANES ≥ V::N elements.
            let factor = unsafe { V::load(factors.as_ptr()) };
            let x: V = at.load(x, T::Acc::zero());
            at.store(y, x * factor);
        });
    }
}
