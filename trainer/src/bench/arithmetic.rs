//! What a kernel is timed in.

use engine::{DType, Device, Kind};

/// An element type and, for products of f32, whether they are exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// IEEE single, exact products.
    F32,
    /// IEEE single, products of operands rounded to tf32.
    Tf32,
    /// Brain float.
    Bf16,
}

impl Arithmetic {
    /// Every one, exact f32 first.
    pub const ALL: [Arithmetic; 3] = [Arithmetic::F32, Arithmetic::Tf32, Arithmetic::Bf16];

    /// The one called `name`.
    pub fn named(name: &str) -> Option<Arithmetic> {
        Arithmetic::ALL.into_iter().find(|one| one.name() == name)
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Arithmetic::Tf32 => "tf32",
            other => other.dtype().name(),
        }
    }

    /// The elements' type.
    pub fn dtype(self) -> DType {
        match self {
            Arithmetic::F32 | Arithmetic::Tf32 => DType::F32,
            Arithmetic::Bf16 => DType::BF16,
        }
    }

    /// Whether a family computes in it on a device: tf32 is for products on GPUs, the peak is known of the CPU.
    pub fn is_for(self, family: &str, device: &Device) -> bool {
        if family == "peak" && device.kind() != Kind::Cpu {
            return false;
        }
        let everywhere = matches!(self, Arithmetic::F32 | Arithmetic::Bf16);
        everywhere || (family == "gemm" && matches!(device.kind(), Kind::Cuda(_) | Kind::Emulated))
    }
}
