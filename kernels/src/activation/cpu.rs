//! Pointwise activations over SIMD registers.

use crate::Element;
use crate::activation::Activation;
use crate::cpu::simd::{Lanes, Real, load_tail, simd, store_tail};
use rayon::prelude::*;

/// Elements per task: large enough to hide the cost of a task, small enough to balance.
const CHUNK: usize = 16 * 1024;

const QUICK_GELU: f64 = 1.702;
const GELU_CUBIC: f64 = 0.044715;

#[inline(always)]
fn of<A: Real, V: Lanes<A>>(x: f64) -> V {
    V::splat(A::of(x))
}

/// `act(x)`.
#[inline(always)]
pub(crate) fn value<A: Real, V: Lanes<A>>(x: V, act: Activation) -> V {
    match act {
        Activation::Gelu => {
            let half = of::<A, V>(0.5);
            x * ((x * of(std::f64::consts::FRAC_1_SQRT_2)).erf().fma(half, half))
        }
        Activation::GeluTanh => x * gelu_tanh_sigmoid::<A, V>(x),
        Activation::QuickGelu => x * (x * of(QUICK_GELU)).sigmoid(),
        Activation::Silu => x * x.sigmoid(),
    }
}

/// `(1 + tanh(u))/2 = σ(2u)` with `u = √(2/π)·(x + 0.044715·x³)`.
#[inline(always)]
fn gelu_tanh_sigmoid<A: Real, V: Lanes<A>>(x: V) -> V {
    let twice = of::<A, V>((8.0 / std::f64::consts::PI).sqrt());
    let cubic = (x * x).fma(of(GELU_CUBIC), of(1.0));
    (twice * x * cubic).sigmoid()
}

/// `act'(x)`.
#[inline(always)]
pub(crate) fn derivative<A: Real, V: Lanes<A>>(x: V, act: Activation) -> V {
    let one = of::<A, V>(1.0);
    match act {
        Activation::Gelu => {
            let half = of::<A, V>(0.5);
            let cdf = (x * of(std::f64::consts::FRAC_1_SQRT_2)).erf().fma(half, half);
            let pdf = (x * x * of(-0.5)).exp() * of((0.5 / std::f64::consts::PI).sqrt());
            x.fma(pdf, cdf)
        }
        Activation::GeluTanh => {
            let s = gelu_tanh_sigmoid::<A, V>(x);
            let slope = of::<A, V>((8.0 / std::f64::consts::PI).sqrt()) * (x * x).fma(of(3.0 * GELU_CUBIC), one);
            (x * slope * s).fma(one - s, s)
        }
        Activation::QuickGelu => {
            let s = (x * of(QUICK_GELU)).sigmoid();
            (x * of(QUICK_GELU) * s).fma(one - s, s)
        }
        Activation::Silu => {
            let s = x.sigmoid();
            (x * s).fma(one - s, s)
        }
    }
}

simd! {
    fn activate_chunk<V; T: Element>(x: &[T], y: &mut [T], act: Activation) {
        for (x, y) in x.chunks(V::N).zip(y.chunks_mut(V::N)) {
            write::<T, V>(y, value::<T::Acc, V>(read(x), act));
        }
    }
    fn activate_backward_chunk<V; T: Element>(x: &[T], dy: &[T], dx: &mut [T], act: Activation) {
        for ((x, dy), dx) in x.chunks(V::N).zip(dy.chunks(V::N)).zip(dx.chunks_mut(V::N)) {
            write::<T, V>(dx, read::<T, V>(dy) * derivative::<T::Acc, V>(read(x), act));
        }
    }
    fn silu_mul_chunk<V; T: Element>(gate: &[T], up: &[T], y: &mut [T]) {
        for ((gate, up), y) in gate.chunks(V::N).zip(up.chunks(V::N)).zip(y.chunks_mut(V::N)) {
            let gate = read::<T, V>(gate);
            write::<T, V>(y, gate * gate.sigmoid() * read(up));
        }
    }
    fn silu_mul_backward_chunk<V; T: Element>(inputs: [&[T]; 3], dgate: &mut [T], dup: &mut [T]) {
        let [gate, up, dy] = inputs.map(|x| x.chunks(V::N));
        for ((((gate, up), dy), dgate), dup) in
            gate.zip(up).zip(dy).zip(dgate.chunks_mut(V::N)).zip(dup.chunks_mut(V::N))
        {
            let (gate, up, dy) = (read::<T, V>(gate), read::<T, V>(up), read::<T, V>(dy));
            write::<T, V>(dgate, dy * up * derivative::<T::Acc, V>(gate, Activation::Silu));
            write::<T, V>(dup, dy * gate * gate.sigmoid());
        }
    }
}

/// Reads up to a register's worth of elements.
#[inline(always)]
fn read<T: Element, V: Lanes<T::Acc>>(x: &[T]) -> V {
    if x.len() >= V::N {
        // SAFETY: the slice holds V::N elements.
        unsafe { T::load::<V>(x.as_ptr()) }
    } else {
        load_tail::<T, V>(x, T::Acc::of(0.0))
    }
}

/// Writes up to a register's worth of elements.
#[inline(always)]
fn write<T: Element, V: Lanes<T::Acc>>(y: &mut [T], v: V) {
    if y.len() >= V::N {
        // SAFETY: the slice holds V::N elements.
        unsafe { T::store::<V>(y.as_mut_ptr(), v) }
    } else {
        store_tail(y, v);
    }
}

pub(crate) fn activate<T: Element>(x: &[T], y: &mut [T], act: Activation) {
    (x.par_chunks(CHUNK), y.par_chunks_mut(CHUNK)).into_par_iter().for_each(|(x, y)| activate_chunk(x, y, act));
}

pub(crate) fn activate_backward<T: Element>(x: &[T], dy: &[T], dx: &mut [T], act: Activation) {
    (x.par_chunks(CHUNK), dy.par_chunks(CHUNK), dx.par_chunks_mut(CHUNK))
        .into_par_iter()
        .for_each(|(x, dy, dx)| activate_backward_chunk(x, dy, dx, act));
}

pub(crate) fn silu_mul<T: Element>(gate: &[T], up: &[T], y: &mut [T]) {
    (gate.par_chunks(CHUNK), up.par_chunks(CHUNK), y.par_chunks_mut(CHUNK))
        .into_par_iter()
        .for_each(|(gate, up, y)| silu_mul_chunk(gate, up, y));
}

pub(crate) fn silu_mul_backward<T: Element>(gate: &[T], up: &[T], dy: &[T], dgate: &mut [T], dup: &mut [T]) {
    (
        gate.par_chunks(CHUNK),
        up.par_chunks(CHUNK),
        dy.par_chunks(CHUNK),
        dgate.par_chunks_mut(CHUNK),
        dup.par_chunks_mut(CHUNK),
    )
        .into_par_iter()
        .for_each(|(gate, up, dy, dgate, dup)| silu_mul_backward_chunk([gate, up, dy], dgate, dup));
}
