//! The optimiser's step on the CPU.

use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{CHUNK, fold_chunks, for_chunks};
use crate::cpu::random::{bits, spread};
use crate::cpu::simd::{Real, simd};
use crate::optimizer::{AdamW, Segment, State};
use crate::{Element, View};
use half::bf16;
use num_traits::Zero;

pub(crate) fn adamw<A: Element<Acc = A> + Real>(
    p: &AdamW,
    segments: &[Segment],
    mut state: State,
    grad_scale: Option<View>,
) {
    let grad_scale = grad_scale.map_or(A::of(1.0), |scale| scale.slice()[0]);
    let (weights, grads): (&mut [A], &[A]) = (state.weights.slice_mut(), state.grads.slice());
    let (m, v): (&mut [A], &mut [A]) = (state.m.slice_mut(), state.v.slice_mut());
    let mut low: Option<&mut [bf16]> = state.low.as_mut().map(|low| low.slice_mut());
    if grad_scale.f64().is_nan() {
        return;
    }
    for segment in segments {
        let (step, range) = (Step::new(p, segment, grad_scale), segment.range.clone());
        let low = low.as_mut().map(|low| &mut low[range.clone()]);
        let (weights, grads) = (&mut weights[range.clone()], &grads[range.clone()]);
        let (m, v) = (&mut m[range.clone()], &mut v[range.clone()]);
        let parts = ((weights, CHUNK), (grads, CHUNK), (m, CHUNK), (v, CHUNK), (low, CHUNK));
        for_chunks(range.len().div_ceil(CHUNK), parts, |chunk, (weights, grads, m, v, low)| {
            match (low, p.stochastic) {
                (Some(low), Some(seed)) => {
                    adamw_chunk(step, weights, grads, m, v, None);
                    round_at_random(weights, low, seed, (range.start + chunk * CHUNK) as u64);
                }
                (low, _) => adamw_chunk(step, weights, grads, m, v, low),
            }
        });
    }
}

/// The step's coefficients, ready to multiply by: `w = keep·w − rate·m / (root·√v + eps)`.
#[derive(Clone, Copy)]
struct Step<A> {
    keep: A,
    rate: A,
    root: A,
    eps: A,
    beta1: A,
    new1: A,
    beta2: A,
    new2: A,
    grad_scale: A,
}

impl<A: Real> Step<A> {
    fn new(p: &AdamW, segment: &Segment, grad_scale: A) -> Step<A> {
        let correction = |beta: f64| 1.0 - beta.powf(p.step as f64);
        Step {
            keep: A::of(1.0 - segment.lr * segment.weight_decay),
            rate: A::of(segment.lr / correction(p.beta1)),
            root: A::of(1.0 / correction(p.beta2).sqrt()),
            eps: A::of(p.eps),
            beta1: A::of(p.beta1),
            new1: A::of(1.0 - p.beta1),
            beta2: A::of(p.beta2),
            new2: A::of(1.0 - p.beta2),
            grad_scale,
        }
    }
}

simd! {
    fn adamw_chunk<V; A: Element>(
        step: Step<A::Acc>,
        weights: &mut [A],
        grads: &[A],
        m: &mut [A],
        v: &mut [A],
        low: Option<&mut [bf16]>,
    ) {
        let mut low = low;
        let all = |a: A::Acc| V::splat(a);
        lanes!(V, weights.len(), at => {
            let zero = A::Acc::zero();
            let (w, g): (V, V) = (at.load(weights, zero), at.load(grads, zero));
            let (old_m, old_v): (V, V) = (at.load(m, zero), at.load(v, zero));
            let g = g * all(step.grad_scale);
            let new_m = g.fma(all(step.new1), old_m * all(step.beta1));
            let new_v = (g * g).fma(all(step.new2), old_v * all(step.beta2));
            let change = new_m * all(step.rate) / new_v.sqrt().fma(all(step.root), all(step.eps));
            let new_w = w.fma(all(step.keep), -change);
            at.store(m, new_m);
            at.store(v, new_v);
            at.store(weights, new_w);
            if let Some(low) = &mut low {
                at.store_bf16(low, new_w);
            }
        });
    }

    /// `low = weights`, each up or down by a chance of its own: 16 random bits are added to those that rounding drops.
    fn round_at_random<V; A: Element>(weights: &[A], low: &mut [bf16], seed: u64, first: u64) {
        let key = spread(seed);
        for i in 0..weights.len() {
            let x = weights[i].widen().f64() as f32;
            let random = bits(key, first + i as u64) >> 16;
            let rounded = (x.to_bits().wrapping_add(random) >> 16) as u16;
            low[i] = if x.is_finite() { bf16::from_bits(rounded) } else { bf16::from_f32(x) };
        }
    }

    /// `Σ x²` in sixteen sums, whatever the width of the registers.
    fn sum_squares_chunk<V; T: Element>(x: &[T]) -> f64 {
        let mut sums = [0.0; 16];
        let (groups, rest) = x.as_chunks::<16>();
        for group in groups {
            for i in 0..16 {
                let x = group[i].widen().f64();
                sums[i] += x * x;
            }
        }
        for i in 0..rest.len() {
            let x = rest[i].widen().f64();
            sums[i] += x * x;
        }
        sums.iter().sum()
    }
}

/// `Σ x²`.
pub(crate) fn sum_squares<T: Element>(x: &[T]) -> f64 {
    let add = |a: f64, b: f64| a + b;
    fold_chunks(x.len().div_ceil(CHUNK), (x, CHUNK), |_, x| sum_squares_chunk(x), add)
}
