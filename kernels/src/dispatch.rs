//! Checks that all families share, and the dispatch over pairs of types.

use crate::device::Kind;
use crate::{DType, Error, Result, View, ViewMut, profile};

/// What a check asks of an argument.
pub(crate) trait Argument {
    /// Element type, number of elements and device.
    fn describe(&self) -> (DType, usize, Kind);
}

impl Argument for View<'_> {
    fn describe(&self) -> (DType, usize, Kind) {
        (self.dtype(), self.len(), self.kind())
    }
}

impl Argument for ViewMut<'_> {
    fn describe(&self) -> (DType, usize, Kind) {
        (self.dtype(), self.len(), self.kind())
    }
}

/// One call of a kernel: its name, its device and its element type `T`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    op: &'static str,
    /// The argument that `T` is the type of, if it has a name.
    leader: &'static str,
    kind: Kind,
    dtype: DType,
}

impl Call {
    /// A call whose `T` is the type of `leader`, which must be one the kernels compute in.
    pub(crate) fn new(op: &'static str, what: &'static str, leader: &impl Argument) -> Result<Call> {
        let call = Call { leader: what, ..Call::of_any(op, leader) };
        match call.dtype {
            DType::F32 | DType::BF16 | DType::F64 => Ok(call),
            found => Err(call.wrong_type(what, found, "f32, bf16 or f64")),
        }
    }

    /// A call that accepts a leader of any type.
    pub(crate) fn of_any(op: &'static str, leader: &impl Argument) -> Call {
        let (dtype, len, kind) = leader.describe();
        profile::prepare();
        profile::touches(len * dtype.size());
        Call { op, leader: "", kind, dtype }
    }

    /// Requires `len` elements of type `T`.
    pub(crate) fn same(&self, what: &'static str, argument: &impl Argument, len: usize) -> Result<()> {
        self.typed(what, argument, self.dtype, len)
    }

    /// Requires `len` elements of `T`'s accumulator.
    pub(crate) fn accumulator(&self, what: &'static str, argument: &impl Argument, len: usize) -> Result<()> {
        self.typed(what, argument, self.dtype.accumulator(), len)
    }

    /// Requires `len` elements of `T` or of its accumulator.
    pub(crate) fn same_or_accumulator(&self, what: &'static str, argument: &impl Argument, len: usize) -> Result<()> {
        match argument.describe().0 {
            dtype if dtype == self.dtype => self.typed(what, argument, dtype, len),
            _ => self.accumulator(what, argument, len),
        }
    }

    /// Requires `len` elements of type `dtype`.
    pub(crate) fn typed(&self, what: &'static str, argument: &impl Argument, dtype: DType, len: usize) -> Result<()> {
        let (found, found_len, kind) = argument.describe();
        if found != dtype {
            return Err(self.wrong_type(what, found, dtype.name()));
        }
        if kind != self.kind {
            return Err(Error::Device { op: self.op, what, found: kind.name(), expected: self.kind.name() });
        }
        if what != self.leader {
            profile::touches(len * dtype.size());
        }
        self.sized(what, found_len, len)
    }

    /// Requires a length.
    pub(crate) fn sized(&self, what: &'static str, found: usize, expected: usize) -> Result<()> {
        if found == expected {
            return Ok(());
        }
        Err(Error::Length { op: self.op, what, found, expected })
    }

    /// The number of elements of a shape.
    pub(crate) fn elements(&self, shape: &[usize]) -> Result<usize> {
        let product = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
        product.ok_or_else(|| self.refuse(format!("shape {shape:?} has more elements than can be counted")))
    }

    /// A value outside the kernel's domain.
    pub(crate) fn refuse(&self, message: String) -> Error {
        Error::Value { op: self.op, message }
    }

    fn wrong_type(&self, what: &'static str, found: DType, expected: &'static str) -> Error {
        Error::Type { op: self.op, what, found, expected }
    }
}

/// Runs `$body` with `$t` and `$u` bound to the types of `$x` and `$y`, which share an accumulator, on the CPU, or
/// `$launch` where CUDA kernels run; on the trace device does nothing.
macro_rules! on_pair {
    ($op:literal, $x:expr, $y:expr, ($t:ident, $u:ident) => $body:expr, gpu => $launch:expr) => {
        $crate::dispatch::on_pair!(@arms $op, $x, $y, ($t, $u) => $body, $launch,
            (F32, F32, f32, f32) (F32, BF16, f32, half::bf16) (BF16, F32, half::bf16, f32)
            (BF16, BF16, half::bf16, half::bf16) (F64, F64, f64, f64))
    };
    (@arms $op:literal, $x:expr, $y:expr, ($t:ident, $u:ident) => $body:expr, $launch:expr, $(($a:ident, $b:ident, $ta:ty, $tb:ty))*) => {
        match ($x.kind(), $x.dtype(), $y.dtype()) {
            ($crate::device::Kind::Trace, _, _) => Ok(()),
            ($crate::device::Kind::Cuda(_) | $crate::device::Kind::Emulated, _, _) => $launch,
            $(($crate::device::Kind::Cpu, $crate::DType::$a, $crate::DType::$b) => {
                type $t = $ta;
                type $u = $tb;
                let _span = $crate::profile::span($op);
                $body;
                Ok(())
            })*
            ($crate::device::Kind::Cpu, _, found) => Err($crate::Error::Type {
                op: $op,
                what: stringify!($y),
                found,
                expected: "a type with the other argument's accumulator",
            }),
        }
    };
}
pub(crate) use on_pair;
