//! What can go wrong when a kernel is called.

use crate::DType;

/// A call that cannot be carried out. Every variant says what was asked and what would have been right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Two sizes that had to agree do not.
    #[error("{op}: {what} has {found} elements, expected {expected}")]
    Length {
        /// The kernel's name.
        op: &'static str,
        /// The argument's name.
        what: &'static str,
        /// Elements given.
        found: usize,
        /// Elements the shapes call for.
        expected: usize,
    },
    /// An argument of another type than the kernel's contract states.
    #[error("{op}: {what} is {found}, expected {expected}")]
    Type {
        /// The kernel's name.
        op: &'static str,
        /// The argument's name.
        what: &'static str,
        /// Type given.
        found: DType,
        /// Type or types accepted.
        expected: &'static str,
    },
    /// Arguments live on different devices.
    #[error("{op}: {what} lives on {found}, the other arguments on {expected}")]
    Device {
        /// The kernel's name.
        op: &'static str,
        /// The argument's name.
        what: &'static str,
        /// Where it is.
        found: &'static str,
        /// Where it should be.
        expected: &'static str,
    },
    /// A value outside the kernel's domain.
    #[error("{op}: {message}")]
    Value {
        /// The kernel's name.
        op: &'static str,
        /// What was given and what is accepted.
        message: String,
    },
    /// The machine has no memory left.
    #[error(
        "out of memory on {device}: {bytes} bytes asked for, {in_use} in use; a smaller batch or recomputation of blocks needs less"
    )]
    OutOfMemory {
        /// The device's name.
        device: &'static str,
        /// Bytes of the request.
        bytes: usize,
        /// Bytes held by live buffers.
        in_use: usize,
    },
    /// A CUDA kernel that does not compile or does not run.
    #[error("kernel {kernel} ({module}): {message}")]
    Kernel {
        /// The kernel's name.
        kernel: &'static str,
        /// Its family and what it was specialised to.
        module: String,
        /// What went wrong.
        message: String,
    },
    /// An environment variable whose value cannot be used.
    #[error("{name}={value}: {reason}")]
    Variable {
        /// The variable.
        name: &'static str,
        /// What it is set to.
        value: String,
        /// Why not, and what is accepted.
        reason: String,
    },
    /// A device name that names nothing here.
    #[error("device `{name}` is not available: {reason}")]
    NoDevice {
        /// The name as written.
        name: String,
        /// Why, and what is available.
        reason: String,
    },
    /// The CUDA driver refused or failed.
    #[error("{device}: {call} failed with {name} ({description}){advice}")]
    Driver {
        /// The device's name, such as `cuda:0`.
        device: String,
        /// The driver function.
        call: &'static str,
        /// CUDA's name of the failure, such as `CUDA_ERROR_OUT_OF_MEMORY`.
        name: String,
        /// CUDA's words for it.
        description: String,
        /// What to do, where that is known: empty, or set off by a semicolon.
        advice: &'static str,
    },
    /// A file of compiled code could not be made or kept.
    #[error("compiled code in {path}: {reason}")]
    Cache {
        /// The file or folder.
        path: String,
        /// What went wrong and what to do.
        reason: String,
    },
}

/// The result of every kernel.
pub type Result<T> = std::result::Result<T, Error>;
