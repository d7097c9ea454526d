//! The SIMD implementation of every family, under the family's own name.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod contrastive;
pub(crate) mod copy;
pub(crate) mod dropout;
pub(crate) mod elementwise;
pub(crate) mod embedding;
pub(crate) mod gemm;
pub(crate) mod lanes;
pub(crate) mod loss;
pub(crate) mod matching;
pub(crate) mod norm;
pub(crate) mod optimizer;
pub(crate) mod parallel;
pub(crate) mod patch;
pub(crate) mod pixels;
pub(crate) mod prefetch;
pub(crate) mod random;
pub(crate) mod reduce;
pub(crate) mod rotary;
pub(crate) mod score;
pub mod simd;
mod transpose;

pub use gemm::saturate;
