//! The task functions compiled for each instruction set.

use super::block::{Accumulators, Job, Panels, Part, multiply_part};
use super::format::{Amx, Format, Pairs, Singles};
use super::pack::Operand;
use super::side::{pack_columns, reads_in_place};
use crate::cpu::simd::{Isa, Lanes, Real};
use crate::{DType, Element};
use std::ops::Range;

/// The size of a micro-kernel's tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tile {
    pub(super) rows: usize,
    pub(super) cols: usize,
    /// Elements of a register: the last panel of columns is padded to a multiple of this.
    pub(super) lanes: usize,
}

impl Tile {
    /// Sums in the tiles of a rectangle.
    pub(super) fn sums(self, rows: usize, cols: usize) -> usize {
        rows.div_ceil(self.rows) * cols.div_ceil(self.cols) * self.rows * self.cols
    }
}

type Acc<T> = <T as Element>::Acc;
type Pack<T> = unsafe fn(Operand<T>, Range<usize>, Range<usize>, &mut [Acc<T>]);
type Multiply<T, C> = unsafe fn(&Job<T, C>, Part, Option<Panels<Acc<T>>>, Option<Accumulators<Acc<T>>>);

/// The functions of one instruction set. Chosen once per product, so that all its tasks agree on the panels.
#[derive(Clone, Copy)]
pub(super) struct Code<T: Element, C> {
    pub(super) tile: Tile,
    /// Steps that so many values of `k` take.
    pub(super) steps: fn(usize) -> usize,
    /// [`reads_in_place`]
    pub(super) reads_in_place: fn(Operand<T>, usize) -> bool,
    /// [`pack_columns`]
    pub(super) pack: Pack<T>,
    /// [`multiply_part`]
    pub(super) multiply: Multiply<T, C>,
    /// [`Format::saturate`]
    pub(super) saturate: unsafe fn(usize) -> f64,
}

macro_rules! code {
    ($(#[$attribute:meta])* $register:ident, $rows:literal x $vectors:literal, $format:ident) => {{
        $(#[$attribute])*
        fn pack<T: Element>(b: Operand<T>, cols: Range<usize>, ks: Range<usize>, to: &mut [T::Acc]) {
            pack_columns::<<T::Acc as Real>::$register, T, $format, $vectors>(b, cols, ks, to)
        }
        $(#[$attribute])*
        unsafe fn multiply<T: Element, C: Element<Acc = T::Acc>>(
            job: &Job<T, C>,
            part: Part,
            packed: Option<Panels<T::Acc>>,
            kept: Option<Accumulators<T::Acc>>,
        ) {
            // SAFETY: the caller's promise is the same.
            unsafe {
                multiply_part::<<T::Acc as Real>::$register, T, C, $format, $rows, $vectors>(job, part, packed, kept)
            }
        }
        $(#[$attribute])*
        fn saturate<A: Real>(rounds: usize) -> f64 {
            $format::saturate::<A, A::$register>(rounds)
        }
        let lanes = <<T::Acc as Real>::$register as Lanes<T::Acc>>::N;
        Code {
            tile: Tile { rows: $rows, cols: $vectors * lanes, lanes },
            steps: $format::steps,
            reads_in_place: reads_in_place::<<T::Acc as Real>::$register, T, $format>,
            pack: pack::<T>,
            multiply: multiply::<T, C>,
            saturate: saturate::<T::Acc>,
        }
    }};
}

impl<T: Element, C: Element<Acc = T::Acc>> Code<T, C> {
    /// The functions for an instruction set this processor has.
    pub(super) fn new(isa: Isa) -> Code<T, C> {
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Amx if T::DTYPE == DType::BF16 => code!(
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                Avx512, 32 x 2, Amx
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 if T::DTYPE == DType::BF16 => code!(
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                Avx512, 8 x 3, Pairs
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 | Isa::Avx512Amx => code!(
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                Avx512, 8 x 3, Singles
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => code!(
                #[target_feature(enable = "avx2,fma")]
                Avx2, 6 x 2, Singles
            ),
            _ => code!(Portable, 4 x 1, Singles),
        }
    }
}
