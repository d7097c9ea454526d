//! Arithmetic on buffers: the kernels Lenslet computes with.
//!
//! A family is a folder: its `mod.rs` holds the contract (maths, shapes, types, errors) and the dispatch by device, `cpu.rs` the
//! SIMD implementation, `gpu.rs` the launches of its `.cu` files. It is registered here and in `gpu/families.rs`. `cpu/` and
//! `gpu/` hold what families share. Nothing here knows tensors or gradients.
//!
//! Conventions, once for all families:
//! - Views are contiguous and row-major; shapes come as arguments, written `(batch, tokens, dim)`.
//! - `T` is F32, BF16 or F64; F64 is for checks and computed on the CPU only. Statistics, losses and weight gradients are in
//!   `A`, the accumulator of `T` (F32, or F64 for F64).
//! - Outputs are overwritten, never read, unless the contract says "adds to".
//! - Lengths, types and devices that do not fit are errors that name the argument; what else is refused stands with the contract.
//! - How work is split depends on shapes alone, so results are the same to the last bit for any number of threads.

pub mod activation;
pub mod attention;
pub mod contrastive;
pub mod copy;
pub mod cpu;
pub mod cuda;
mod device;
mod dispatch;
pub mod dropout;
mod dtype;
pub mod elementwise;
pub mod embedding;
mod error;
pub mod gemm;
pub mod gpu;
pub mod loss;
pub mod matching;
pub mod norm;
pub mod optimizer;
pub mod patch;
pub mod pixels;
pub mod profile;
pub mod reduce;
pub mod rotary;
mod view;

pub use device::{Buffer, Device, Kind, MemoryUse};
pub use dtype::{DType, Element, Stored};
pub use error::{Error, Result};
pub use view::{View, ViewMut};
