//! Which instruction set the kernels use.

use std::sync::atomic::{AtomicU8, Ordering};

/// An instruction set the kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Isa {
    /// Plain Rust in groups of eight, vectorised by the compiler: any processor.
    Portable = 1,
    /// x86-64 with AVX2 and FMA.
    Avx2 = 2,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512 = 3,
    /// AVX-512 with bf16 dot products.
    Avx512Bf16 = 4,
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The instruction set in use: the best this processor has, or what `LENSLET_ISA` (portable, avx2, avx512,
/// avx512bf16) or [`set_isa`] lowered it to.
pub fn isa() -> Isa {
    match CURRENT.load(Ordering::Relaxed) {
        1 => Isa::Portable,
        2 => Isa::Avx2,
        3 => Isa::Avx512,
        4 => Isa::Avx512Bf16,
        _ => {
            let wanted = match std::env::var("LENSLET_ISA").as_deref() {
                Ok("portable") => Isa::Portable,
                Ok("avx2") => Isa::Avx2,
                Ok("avx512") => Isa::Avx512,
                _ => Isa::Avx512Bf16,
            };
            set_isa(wanted)
        }
    }
}

/// Uses `wanted`, or the best this processor has below it; returns what is in use from now on, in every thread.
/// Meant for tests and benches that compare the paths.
pub fn set_isa(wanted: Isa) -> Isa {
    let chosen = wanted.min(best());
    CURRENT.store(chosen as u8, Ordering::Relaxed);
    chosen
}

#[cfg(target_arch = "x86_64")]
fn best() -> Isa {
    let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
    let avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (avx2, avx512, is_x86_feature_detected!("avx512bf16")) {
        (true, true, true) => Isa::Avx512Bf16,
        (true, true, false) => Isa::Avx512,
        (true, false, _) => Isa::Avx2,
        _ => Isa::Portable,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn best() -> Isa {
    Isa::Portable
}
