//! The SIMD implementation of every family, under the family's own name.

pub mod simd;
