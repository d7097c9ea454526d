//! What the CPU's side of every family shares: instruction sets, threads, random numbers, scores.

pub(crate) mod lanes;
pub(crate) mod parallel;
pub(crate) mod prefetch;
pub(crate) mod random;
pub(crate) mod score;
pub mod simd;
pub(crate) mod transpose;

pub use crate::gemm::cpu::saturate;
