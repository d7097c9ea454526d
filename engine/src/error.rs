//! What can go wrong with tensors.

use crate::Shape;

/// An engine error: always names the op or the parameter, and the shapes.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Shapes that do not fit together.
    #[error("{op}: {message}")]
    Shape {
        /// The op's name.
        op: &'static str,
        /// What was given and what fits.
        message: String,
    },
    /// A kernel refused.
    #[error(transparent)]
    Kernel(#[from] kernels::Error),
    /// A gradient reached an op that has no derivative.
    #[error("{op} has no derivative; detach its input if no gradient should flow through it")]
    NoDerivative {
        /// The op's name.
        op: &'static str,
    },
    /// A tensor would be changed while something else still reads it.
    #[error("{what} cannot be changed: {owners} other owners still use it; drop the graph and its variables first")]
    Shared {
        /// What it is.
        what: &'static str,
        /// How many other handles there are.
        owners: usize,
    },
    /// A parameter's name is taken, unknown, or has another shape.
    #[error("parameter `{name}`: {message}")]
    Param {
        /// The parameter's full name.
        name: String,
        /// What is wrong with it.
        message: String,
    },
    /// A gradient that is not a number, or infinite.
    #[error("gradient of `{name}` is not finite; the step was not taken")]
    NotFinite {
        /// The first such parameter.
        name: String,
    },
}

/// The result of everything that computes on tensors.
pub type Result<T> = std::result::Result<T, Error>;

/// A shape error with a formatted message.
pub(crate) fn mismatch<T>(op: &'static str, message: impl Into<String>) -> Result<T> {
    Err(Error::Shape { op, message: message.into() })
}

/// Fails unless `found` equals `expected`.
pub(crate) fn expect_shape(op: &'static str, what: &str, found: Shape, expected: impl Into<Shape>) -> Result<()> {
    let expected = expected.into();
    if found == expected {
        return Ok(());
    }
    mismatch(op, format!("{what} has shape {found}, expected {expected}"))
}
