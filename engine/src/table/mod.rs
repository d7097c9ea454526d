//! The table of ops: every op with sample inputs and a plain oracle.
//!
//! It drives three checks, on every device: the derivative against finite differences in f64, the op in each type
//! against the oracle in f64, and that no op is missing. To add an op: one file in `ops/`, one kernel, one row here.

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

/// One op with one setting.
pub struct Case {
    /// The op's name, a slash, and the setting.
    pub name: String,
    /// Differentiable inputs.
    pub inputs: Vec<Array>,
    /// The op.
    pub run: Run,
    /// Its oracle.
    pub oracle: Oracle,
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
