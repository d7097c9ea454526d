//! The task functions compiled for each instruction set.

use super::block::{Job, Panels, Part, merge_part, multiply_part, pack_columns};
use super::pack::Operand;
use crate::Element;
use crate::cpu::simd::{Isa, Lanes, Real, isa};
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
type Multiply<T, C> = unsafe fn(&Job<T, C>, Part, Option<Panels<Acc<T>>>, Option<&mut [Acc<T>]>);
type Merge<T, C> = unsafe fn(&Job<T, C>, Range<usize>, Range<usize>, &mut [Acc<T>], usize);

/// The functions of one instruction set. Chosen once per product, so that all its tasks agree on the panels.
#[derive(Clone, Copy)]
pub(super) struct Code<T: Element, C> {
    pub(super) tile: Tile,
    /// Values of `k` per step.
    pub(super) per_step: usize,
    /// [`pack_columns`]
    pub(super) pack: Pack<T>,
    /// [`multiply_part`]
    pub(super) multiply: Multiply<T, C>,
    /// [`merge_part`]
    pub(super) merge: Merge<T, C>,
}

macro_rules! code {
    ($(#[$attribute:meta])* $register:ident, $rows:literal x $vectors:literal, $pairs:literal) => {{
        $(#[$attribute])*
        fn pack<T: Element>(b: Operand<T>, cols: Range<usize>, ks: Range<usize>, panels: &mut [T::Acc]) {
            pack_columns::<<T::Acc as Real>::$register, T, $vectors, $pairs>(b, cols, ks, panels)
        }
        $(#[$attribute])*
        unsafe fn multiply<T: Element, C: Element<Acc = T::Acc>>(
            job: &Job<T, C>,
            part: Part,
            panels: Option<Panels<T::Acc>>,
            sums: Option<&mut [T::Acc]>,
        ) {
            // SAFETY: the caller's promise is the same.
            unsafe {
                multiply_part::<<T::Acc as Real>::$register, T, C, $rows, $vectors, $pairs>(job, part, panels, sums)
            }
        }
        $(#[$attribute])*
        unsafe fn merge<T: Element, C: Element<Acc = T::Acc>>(
            job: &Job<T, C>,
            rows: Range<usize>,
            cols: Range<usize>,
            sums: &mut [T::Acc],
            ranges: usize,
        ) {
            // SAFETY: the caller's promise is the same.
            unsafe { merge_part::<<T::Acc as Real>::$register, T, C, $rows, $vectors>(job, rows, cols, sums, ranges) }
        }
        let lanes = <<T::Acc as Real>::$register as Lanes<T::Acc>>::N;
        Code {
            tile: Tile { rows: $rows, cols: $vectors * lanes, lanes },
            per_step: if $pairs { 2 } else { 1 },
            pack: pack::<T>,
            multiply: multiply::<T, C>,
            merge: merge::<T, C>,
        }
    }};
}

impl<T: Element, C: Element<Acc = T::Acc>> Code<T, C> {
    /// The functions for the instruction set in use.
    pub(super) fn current() -> Code<T, C> {
        match isa() {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 if T::DTYPE == crate::DType::BF16 => code!(
                #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                Avx512, 8 x 3, true
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => code!(
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                Avx512, 8 x 3, false
            ),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => code!(
                #[target_feature(enable = "avx2,fma")]
                Avx2, 6 x 2, false
            ),
            _ => code!(Portable, 4 x 1, false),
        }
    }
}
