//! Element types: how numbers are stored, and in which type they are accumulated.

use crate::cpu::simd::{Lanes, Real};
use bytemuck::Pod;
use half::bf16;

/// How an element is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE double: the type of oracles and of finite differences.
    F64,
    /// IEEE single.
    F32,
    /// Brain float: the upper half of a single.
    BF16,
    /// IEEE half; read from and written to files; GPUs multiply matrices of it.
    F16,
    /// Signed 32-bit integers: token ids, positions, lengths.
    I32,
    /// Bytes: colours of images.
    U8,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::I32 => 4,
            DType::BF16 | DType::F16 => 2,
            DType::U8 => 1,
        }
    }

    /// The type in which sums over elements of this type are kept.
    pub const fn accumulator(self) -> DType {
        match self {
            DType::F64 => DType::F64,
            other => match other {
                DType::I32 | DType::U8 => DType::I32,
                _ => DType::F32,
            },
        }
    }

    /// The name used in recipes and messages.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F64 => "f64",
            DType::F32 => "f32",
            DType::BF16 => "bf16",
            DType::F16 => "f16",
            DType::I32 => "i32",
            DType::U8 => "u8",
        }
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// A Rust type that a [`DType`] stores.
pub trait Stored: Pod + Send + Sync + std::fmt::Debug {
    /// The matching tag.
    const DTYPE: DType;
}

/// A stored floating-point type the kernels compute with.
pub trait Element: Stored {
    /// The type of accumulators, statistics and losses.
    type Acc: Real + Element<Acc = Self::Acc>;
    /// Widens one element.
    fn widen(self) -> Self::Acc;
    /// Rounds an accumulator to nearest, ties to even.
    fn narrow(acc: Self::Acc) -> Self;
    /// Loads `V::N` elements, widened.
    ///
    /// # Safety
    /// `p` must be valid for reading `V::N` elements.
    unsafe fn load<V: Lanes<Self::Acc>>(p: *const Self) -> V;
    /// Rounds and stores `V::N` elements.
    ///
    /// # Safety
    /// `p` must be valid for writing `V::N` elements.
    unsafe fn store<V: Lanes<Self::Acc>>(p: *mut Self, v: V);
}

macro_rules! stored {
    ($($t:ty => $tag:ident),*) => {$(
        impl Stored for $t { const DTYPE: DType = DType::$tag; }
    )*};
}
stored!(f64 => F64, f32 => F32, bf16 => BF16, half::f16 => F16, i32 => I32, u8 => U8);

macro_rules! plain_element {
    ($($t:ty),*) => {$(
        impl Element for $t {
            type Acc = $t;
            #[inline(always)]
            fn widen(self) -> $t { self }
            #[inline(always)]
            fn narrow(acc: $t) -> $t { acc }
            #[inline(always)]
            unsafe fn load<V: Lanes<$t>>(p: *const $t) -> V {
                // SAFETY: the caller's promise is the same.
                unsafe { V::load(p) }
            }
            #[inline(always)]
            unsafe fn store<V: Lanes<$t>>(p: *mut $t, v: V) {
                // SAFETY: the caller's promise is the same.
                unsafe { v.store(p) }
            }
        }
    )*};
}
plain_element!(f32, f64);

impl Element for bf16 {
    type Acc = f32;
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }
    #[inline(always)]
    fn narrow(acc: f32) -> bf16 {
        crate::cpu::simd::round_bf16(acc)
    }
    #[inline(always)]
    unsafe fn load<V: Lanes<f32>>(p: *const bf16) -> V {
        // SAFETY: the caller's promise is the same.
        unsafe { V::load_bf16(p) }
    }
    #[inline(always)]
    unsafe fn store<V: Lanes<f32>>(p: *mut bf16, v: V) {
        // SAFETY: the caller's promise is the same.
        unsafe { v.store_bf16(p) }
    }
}
