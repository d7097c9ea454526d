//! The table of ops: every op with sample inputs and a plain oracle.
//!
//! It drives three checks, on every device: the oracle's gradients against finite differences, the op's result and gradients
//! in each type against the oracle's in f64, and that no op is missing.
//!
//! To add an op over kernels that there are: its file in `ops/`, two lines in `ops/mod.rs` that name it, its row in `rows.rs`
//! and, where no oracle fits, a function in `oracle.rs` with one for its gradients.

mod array;
mod check;
mod oracle;
mod rows;

pub use array::Array;
pub use check::{finite_differences, follows_oracle};
pub use rows::{grid, rows};

use crate::{Device, Result, Var};

/// An op's result on the device its inputs live on.
pub type Run = Box<dyn Fn(&Device, &[Var]) -> Result<Var>>;
/// The same in plain f64 loops.
pub type Oracle = Box<dyn Fn(&[Array]) -> Array>;
/// The gradients of `Σ y ⊙ dy` with respect to the inputs, from the inputs and `dy`, in plain f64 loops.
pub type OracleGradients = Box<dyn Fn(&[Array], &Array) -> Vec<Array>>;

/// One op with one setting.
pub struct Case {
    /// The op's name, a slash, and the setting.
    pub name: String,
    /// Inputs; differentiable where there are gradients.
    pub inputs: Vec<Array>,
    /// The op.
    pub run: Run,
    /// Its oracle.
    pub result: Oracle,
    /// The oracle of its gradients; none where the op has no derivative.
    pub gradients: Option<OracleGradients>,
    /// Largest error in f32 and in bf16, relative to the largest element of the exact result; bf16 keeps 8 bits, so
    /// one rounding of the result alone costs 2⁻⁹.
    pub tolerance: (f64, f64),
}

/// One op: its cases.
pub struct Row {
    /// The name of its file in `ops/`.
    pub op: &'static str,
    /// The kernel families it computes with.
    pub kernels: &'static [&'static str],
    /// The settings that are checked.
    pub cases: Vec<Case>,
}
