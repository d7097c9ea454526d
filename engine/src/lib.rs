//! Tensors and gradients.
//!
//! A [`Var`] is a tensor that may be recorded on a [`Tape`]; the functions in [`ops`] compute and record;
//! [`Tape::gradients`] walks the tape in reverse and hands every leaf its gradient. [`Params`] keeps a model's
//! weights under their names in flat arenas, [`Optimizer`] steps them.
//!
//! ```
//! use engine::{Device, Tape, Tensor, ops};
//! # fn main() -> engine::Result<()> {
//! let device = Device::cpu();
//! let tape = Tape::new();
//! let x = tape.leaf(Tensor::from_slice(&device, &[1.0f32, 2.0, 3.0], [1, 3])?);
//! let w = tape.leaf(Tensor::from_slice(&device, &[0.5f32, -1.0, 2.0], [1, 3])?);
//! let y = ops::linear(&x, &w, None)?; // (1, 1): x·wᵀ
//! let loss = ops::sum(&y)?;
//! let gradients = tape.gradients(&loss)?;
//! assert_eq!(loss.tensor().to_vec::<f32>()?, [4.5]);
//! assert_eq!(gradients.of(&w)?.to_vec::<f32>()?, [1.0, 2.0, 3.0]);
//! # Ok(())
//! # }
//! ```

mod error;
mod gradients;
mod graph;
mod matching;
mod muon;
pub mod ops;
mod optimizer;
mod params;
mod schedule;
mod shape;
pub mod table;
mod tape;
mod tensor;

pub use error::{Error, Result};
pub use gradients::GradientArena;
pub use graph::Graph;
pub use kernels::activation::Activation;
pub use kernels::attention::Mask;
pub use kernels::copy::Blocks;
pub use kernels::{DType, Device, Element, Kind, MemoryUse, Stored};
pub use matching::Pairs;
pub use optimizer::{AdamW, Optimizer, StepReport};
pub use params::{GroupSpec, Init, ParamBuilder, ParamId, ParamSpec, Params, Role, Update};
pub use schedule::{Curve, Schedule};
pub use shape::Shape;
pub use tape::{Gradients, Tape, Var};
pub use tensor::Tensor;
