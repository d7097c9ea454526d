//! The SIMD implementation of every family, under the family's own name.

pub(crate) mod random;
pub mod simd;
