//! Element by element on the CPU.

use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{CHUNK, chunk_rows, for_chunks, with_scratch};
use crate::cpu::simd::{Real, simd};
use crate::{DType, Element, Stored, View, ViewMut};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use num_traits::Zero;

pub(crate) fn add<T: Element>(x: &[T], y: &[T], out: &mut [T]) {
    let parts = ((x, CHUNK), (y, CHUNK), (out, CHUNK));
    for_chunks(x.len().div_ceil(CHUNK), parts, |_, (x, y, out)| add_chunk(x, y, out));
}

pub(crate) fn mul<T: Element>(x: &[T], y: &[T], out: &mut [T]) {
    let parts = ((x, CHUNK), (y, CHUNK), (out, CHUNK));
    for_chunks(x.len().div_ceil(CHUNK), parts, |_, (x, y, out)| mul_chunk(x, y, out));
}

pub(crate) fn scale<T: Element, U: Element<Acc = T::Acc>>(x: &[T], out: &mut [U], factor: f64) {
    let factor = T::Acc::of(factor);
    let parts = ((x, CHUNK), (out, CHUNK));
    for_chunks(x.len().div_ceil(CHUNK), parts, |_, (x, out)| scale_chunk(x, out, factor));
}

pub(crate) fn axpy<T: Element, U: Element<Acc = T::Acc>>(x: &[T], y: &mut [U], factor: f64) {
    let factor = T::Acc::of(factor);
    let parts = ((x, CHUNK), (y, CHUNK));
    for_chunks(x.len().div_ceil(CHUNK), parts, |_, (x, y)| axpy_chunk(x, y, factor));
}

pub(crate) fn add_broadcast<T: Element>(x: &[T], b: &[T], out: &mut [T]) {
    if b.is_empty() {
        return;
    }
    let chunk = chunk_rows(b.len()) * b.len();
    let parts = ((x, chunk), (out, chunk));
    for_chunks(x.len().div_ceil(chunk), parts, |_, (x, out)| {
        for (x, out) in x.chunks_exact(b.len()).zip(out.chunks_exact_mut(b.len())) {
            add_chunk(x, b, out);
        }
    });
}

simd! {
    /// `out = x + y`.
    fn add_chunk<V; T: Element>(x: &[T], y: &[T], out: &mut [T]) {
        lanes!(V, x.len(), at => {
            let (x, y): (V, V) = (at.load(x, T::Acc::zero()), at.load(y, T::Acc::zero()));
            at.store(out, x + y);
        });
    }

    /// `out = x ⊙ y`.
    fn mul_chunk<V; T: Element>(x: &[T], y: &[T], out: &mut [T]) {
        lanes!(V, x.len(), at => {
            let (x, y): (V, V) = (at.load(x, T::Acc::zero()), at.load(y, T::Acc::zero()));
            at.store(out, x * y);
        });
    }

    /// `out = factor · x`.
    pub(crate) fn scale_chunk<V; T: Element, U: Element<Acc = T::Acc>>(x: &[T], out: &mut [U], factor: T::Acc) {
        lanes!(V, x.len(), at => {
            let x: V = at.load(x, T::Acc::zero());
            at.store(out, x * V::splat(factor));
        });
    }

    /// `y = y + factor · x`.
    pub(crate) fn axpy_chunk<V; T: Element, U: Element<Acc = T::Acc>>(x: &[T], y: &mut [U], factor: T::Acc) {
        lanes!(V, x.len(), at => {
            let (x, old): (V, V) = (at.load(x, T::Acc::zero()), at.load(y, T::Acc::zero()));
            at.store(y, x.fma(V::splat(factor), old));
        });
    }

    /// `y = x` in another type with the same accumulator.
    pub(crate) fn convert_chunk<V; T: Element, U: Element<Acc = T::Acc>>(x: &[T], y: &mut [U]) {
        lanes!(V, x.len(), at => {
            let x: V = at.load(x, T::Acc::zero());
            at.store(y, x);
        });
    }
}

/// Calls `f` with `N` slices of equal length widened to the accumulator: once here instead of once per row
/// that needs them.
pub(crate) fn widened<T: Element, const N: usize>(x: [&[T]; N], f: impl FnOnce([&[T::Acc]; N])) {
    if T::DTYPE == T::Acc::DTYPE {
        return f(x.map(bytemuck::cast_slice));
    }
    let len = x[0].len();
    with_scratch::<T::Acc, _>(N * len, |wide| {
        for (x, wide) in x.iter().zip(wide.chunks_exact_mut(len.max(1))) {
            convert_chunk(x, wide);
        }
        f(std::array::from_fn(|i| &wide[i * len..][..len]));
    });
}

/// A floating-point type that converts to and from single precision, many elements at a time.
trait Single: Stored {
    fn to_single(x: &[Self], y: &mut [f32]);
    fn from_single(x: &[f32], y: &mut [Self]);
}

impl Single for f64 {
    fn to_single(x: &[f64], y: &mut [f32]) {
        x.iter().zip(y).for_each(|(x, y)| *y = *x as f32);
    }
    fn from_single(x: &[f32], y: &mut [f64]) {
        x.iter().zip(y).for_each(|(x, y)| *y = *x as f64);
    }
}

impl Single for f32 {
    fn to_single(x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }
    fn from_single(x: &[f32], y: &mut [f32]) {
        y.copy_from_slice(x);
    }
}

impl Single for bf16 {
    fn to_single(x: &[bf16], y: &mut [f32]) {
        convert_chunk(x, y);
    }
    fn from_single(x: &[f32], y: &mut [bf16]) {
        convert_chunk(x, y);
    }
}

impl Single for f16 {
    fn to_single(x: &[f16], y: &mut [f32]) {
        x.convert_to_f32_slice(y);
    }
    fn from_single(x: &[f32], y: &mut [f16]) {
        y.convert_from_f32_slice(x);
    }
}

/// Runs `$body` with `$t` bound to a floating-point type, the half types included.
macro_rules! on_float {
    ($dtype:expr, $t:ident => $body:expr) => {
        match $dtype {
            DType::F64 => {
                type $t = f64;
                $body
            }
            DType::F32 => {
                type $t = f32;
                $body
            }
            DType::BF16 => {
                type $t = bf16;
                $body
            }
            DType::F16 => {
                type $t = f16;
                $body
            }
            DType::I32 | DType::U8 => unreachable!("the contract admits floating-point types only"),
        }
    };
}

pub(crate) fn cast(x: View, out: &mut ViewMut) {
    on_float!(x.dtype(), T => on_float!(out.dtype(), U => cast_slice::<T, U>(x.slice(), out.slice_mut())))
}

pub(crate) fn load(bytes: &[u8], from: DType, out: &mut ViewMut) {
    on_float!(from, T => on_float!(out.dtype(), U => load_slice::<T, U>(bytes, out.slice_mut())))
}

fn load_slice<T: Single, U: Single>(bytes: &[u8], out: &mut [U]) {
    match bytemuck::try_cast_slice::<u8, T>(bytes) {
        Ok(aligned) => cast_slice(aligned, out),
        Err(_) => {
            for (bytes, out) in bytes.chunks(CHUNK * size_of::<T>()).zip(out.chunks_mut(CHUNK)) {
                let mut numbers = vec![T::zeroed(); out.len()];
                bytemuck::cast_slice_mut(&mut numbers).copy_from_slice(bytes);
                cast_slice::<T, U>(&numbers, out);
            }
        }
    }
}

fn cast_slice<T: Single, U: Single>(x: &[T], out: &mut [U]) {
    /// Elements converted at a time: their singles stay in the L1 cache.
    const BLOCK: usize = 1024;
    for_chunks(x.len().div_ceil(CHUNK), ((x, CHUNK), (out, CHUNK)), |_, (x, out)| {
        if T::DTYPE == U::DTYPE {
            return out.copy_from_slice(bytemuck::cast_slice(x));
        }
        let mut singles = [0.0; BLOCK];
        for (x, out) in x.chunks(BLOCK).zip(out.chunks_mut(BLOCK)) {
            let singles = &mut singles[..x.len()];
            T::to_single(x, singles);
            U::from_single(singles, out);
        }
    });
}

pub(crate) fn clamp(x: &mut ViewMut, least: f64, most: f64) {
    on_float!(x.dtype(), T => {
        let mut bounds = [T::default(); 2];
        cast_slice::<f64, T>(&[least, most], &mut bounds);
        let clamped = |x: T| if x < bounds[0] { bounds[0] } else if x > bounds[1] { bounds[1] } else { x };
        x.slice_mut::<T>().iter_mut().for_each(|x| *x = clamped(*x));
    })
}

pub(crate) fn fill(out: &mut ViewMut, value: f64) {
    on_float!(out.dtype(), T => {
        let mut one = [T::default()];
        cast_slice::<f64, T>(&[value], &mut one);
        fill_slice(out.slice_mut(), one[0]);
    })
}

/// `out = value` everywhere.
pub(crate) fn fill_slice<T: Stored>(out: &mut [T], value: T) {
    for_chunks(out.len().div_ceil(CHUNK), ((out, CHUNK),), |_, (out,)| out.fill(value));
}
