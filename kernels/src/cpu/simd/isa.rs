//! Which instruction set the kernels use.

use crate::{Error, Result};
use std::ffi::OsString;
use std::sync::atomic::{AtomicU8, Ordering};

/// Names the instruction set to use.
const VARIABLE: &str = "LENSLET_ISA";

/// An instruction set the kernels are compiled for; each has all that those before it have.
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
    /// The same, and products of bf16 in AMX tiles.
    Avx512Amx = 5,
}

impl Isa {
    /// Every one, the plainest first.
    pub const ALL: [Isa; 5] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16, Isa::Avx512Amx];

    /// The name that `LENSLET_ISA` takes and reports give.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
            Isa::Avx512Amx => "avx512amx",
        }
    }

    /// Those that this processor has.
    pub fn available() -> &'static [Isa] {
        &Isa::ALL[..best() as usize]
    }
}

static CURRENT: AtomicU8 = AtomicU8::new(0);

/// The instruction set in use, see [`chosen`].
///
/// # Panics
/// Where [`chosen`] is an error; allocating on the CPU returns that error before any kernel runs.
pub fn isa() -> Isa {
    chosen().unwrap_or_else(|error| panic!("{error}"))
}

/// The instruction set in use: the best this processor has, or the one that `LENSLET_ISA` names or [`set_isa`] chose.
///
/// # Errors
/// [`Error::Variable`] if `LENSLET_ISA` names none that is known, or one that this processor lacks.
pub fn chosen() -> Result<Isa> {
    match CURRENT.load(Ordering::Relaxed) {
        0 => Ok(set_isa(wanted(std::env::var_os(VARIABLE), best())?)),
        number => Ok(Isa::ALL[usize::from(number) - 1]),
    }
}

/// What the variable's value asks for on a processor that has everything up to `best`.
fn wanted(value: Option<OsString>, best: Isa) -> Result<Isa> {
    let Some(value) = value.filter(|value| !value.is_empty()) else {
        return Ok(best);
    };
    let names = |all: &[Isa]| all.iter().map(|isa| isa.name()).collect::<Vec<_>>().join(", ");
    let refused =
        |reason: String| Error::Variable { name: VARIABLE, value: value.to_string_lossy().into_owned(), reason };
    let Some(&known) = Isa::ALL.iter().find(|isa| value == isa.name()) else {
        return Err(refused(format!("not known; expected one of {}", names(&Isa::ALL))));
    };
    if known > best {
        let has = names(&Isa::ALL[..best as usize]);
        return Err(refused(format!("this processor lacks it; it has {has}")));
    }
    Ok(known)
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
        (true, true, true) if crate::gemm::cpu::has_amx() => Isa::Avx512Amx,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_names_one_of_those_there_are() {
        for isa in Isa::ALL {
            assert_eq!(wanted(Some(isa.name().into()), Isa::Avx512Amx), Ok(isa));
        }
        for absent in [None, Some(OsString::new())] {
            assert_eq!(wanted(absent, Isa::Avx2), Ok(Isa::Avx2));
        }
    }

    #[test]
    fn other_names_and_what_the_processor_lacks_are_refused() {
        for (name, best, reason) in [
            (
                "avx3",
                Isa::Avx512Amx,
                "LENSLET_ISA=avx3: not known; expected one of portable, avx2, avx512, avx512bf16, avx512amx",
            ),
            (
                "AVX2",
                Isa::Avx2,
                "LENSLET_ISA=AVX2: not known; expected one of portable, avx2, avx512, avx512bf16, avx512amx",
            ),
            (
                "amx",
                Isa::Avx512Amx,
                "LENSLET_ISA=amx: not known; expected one of portable, avx2, avx512, avx512bf16, avx512amx",
            ),
            (
                "avx512amx",
                Isa::Avx512Bf16,
                "LENSLET_ISA=avx512amx: this processor lacks it; it has portable, avx2, avx512, avx512bf16",
            ),
            ("avx2", Isa::Portable, "LENSLET_ISA=avx2: this processor lacks it; it has portable"),
        ] {
            assert_eq!(wanted(Some(name.into()), best).unwrap_err().to_string(), reason);
        }
    }
}
