//! What the processor's multiply-adds could do at most: the ceiling that products are held against.

use super::code::Code;
use crate::cpu::simd::{Lanes, Real, isa};
use crate::{DType, Error, Result};

/// Sums that do not wait for one another: more than two units of latency 4 or 5 keep busy, fewer than AVX2 has registers.
const CHAINS: usize = 12;

/// Keeps the multiply-adds of every thread of the current pool busy, on registers alone, for `rounds` rounds; products of `dtype` use
/// the same instructions. Returns the floating-point operations of all threads.
///
/// # Errors
/// A type that the CPU has no products in.
pub fn saturate(dtype: DType, rounds: usize) -> Result<f64> {
    let work = match dtype {
        DType::F32 => Code::<f32, f32>::new(isa()).saturate,
        DType::BF16 => Code::<half::bf16, half::bf16>::new(isa()).saturate,
        DType::F64 => Code::<f64, f64>::new(isa()).saturate,
        found => {
            return Err(Error::Type { op: "saturate", what: "dtype", found, expected: "f32, bf16 or f64" });
        }
    };
    // SAFETY: `Code::new` is given instruction sets that this processor has.
    Ok(rayon::broadcast(|_| unsafe { work(rounds) }).into_iter().sum())
}

/// `rounds` multiply-adds on each chain; the operations in them, if `dot` adds `per_step` products to an element.
#[inline(always)]
pub(super) fn chains<A: Real, V: Lanes<A>>(rounds: usize, per_step: usize, dot: impl Fn(V, V, V) -> V) -> f64 {
    let x = V::splat(A::of(std::hint::black_box(1e-3)));
    let mut sums = [x; CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = dot(x, x, *sum);
        }
    }
    std::hint::black_box(sums.map(V::sum));
    2.0 * (rounds * CHAINS * V::N * per_step) as f64
}
