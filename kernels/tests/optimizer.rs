//! AdamW and the sum of squares against plain loops in f64.

mod common;

use common::*;
use kernels::optimizer::*;
use kernels::{DType, Error, ViewMut};
use std::ops::Range;

const SIZES: [usize; 8] = [0, 1, 7, 16, 41, 123, 200, 40_001];
const STEP: AdamW = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, step: 1, stochastic: None };
const LR: f64 = 1e-2;
const WEIGHT_DECAY: f64 = 0.1;
const SCALE: f64 = 0.5;

fn segment(range: Range<usize>) -> Segment {
    Segment { range, lr: LR, weight_decay: WEIGHT_DECAY }
}

struct Stepped {
    weights: Array,
    m: Array,
    v: Array,
    low: Array,
}

/// Three steps with gradients that change.
fn run(dtype: DType, n: usize) -> Stepped {
    let mut state = Stepped {
        weights: Array::new(dtype, &numbers(n, 1)),
        m: Array::new(dtype, &vec![0.0; n]),
        v: Array::new(dtype, &vec![0.0; n]),
        low: Array::out(DType::BF16, n),
    };
    let scale = Array::new(dtype, &[SCALE]);
    for step in 1..=3 {
        let p = AdamW { step, ..STEP };
        let grads = Array::new(dtype, &numbers(n, 10 + step));
        let low = (step == 3).then(|| state.low.view_mut());
        let (weights, m, v) = (state.weights.view_mut(), state.m.view_mut(), state.v.view_mut());
        let all = State { weights, grads: grads.view(), m, v, low };
        adamw(&p, &[segment(0..n / 3), segment(n / 3..n)], all, Some(scale.view())).unwrap();
    }
    state
}

fn check(dtype: DType, n: usize) {
    let state = run(dtype, n);
    let mut w = rounded(dtype, &numbers(n, 1));
    let (mut m, mut v) = (vec![0.0; n], vec![0.0; n]);
    for step in 1..=3u64 {
        let grads = rounded(dtype, &numbers(n, 10 + step));
        for i in 0..n {
            let g = SCALE * grads[i];
            m[i] = STEP.beta1 * m[i] + (1.0 - STEP.beta1) * g;
            v[i] = STEP.beta2 * v[i] + (1.0 - STEP.beta2) * g * g;
            let m_hat = m[i] / (1.0 - STEP.beta1.powi(step as i32));
            let v_hat = v[i] / (1.0 - STEP.beta2.powi(step as i32));
            w[i] -= LR * WEIGHT_DECAY * w[i];
            w[i] -= LR * m_hat / (v_hat.sqrt() + STEP.eps);
        }
    }
    // Some four roundings a step, relative to terms of the size of the weights, gradients or their squares.
    let steps = 12.0 * spacing(dtype);
    close(&format!("m {dtype} {n}"), &state.m.values(), &m, steps, steps);
    close(&format!("v {dtype} {n}"), &state.v.values(), &v, steps, 0.0);
    close(&format!("weights {dtype} {n}"), &state.weights.values(), &w, steps, steps);
    assert_eq!(state.low.values(), rounded(DType::BF16, &state.weights.values()), "low {dtype} {n}");
}

fn squares(x: &Array) -> f64 {
    let mut out = Array::out(DType::F64, 1);
    sum_squares(x.view(), &mut out.view_mut()).unwrap();
    out.values()[0]
}

#[test]
fn every_instruction_set_follows_the_plain_loops() {
    let x = Array::new(DType::F32, &numbers(100_003, 6));
    let mut sums = std::cell::RefCell::new(vec![]);
    for_each_isa(|| {
        for n in SIZES {
            check(DType::F32, n);
            check(DType::F64, n);
            for dtype in TYPES {
                let x = Array::new(dtype, &numbers(n, 5));
                let expected = x.values().iter().map(|x| x * x).sum();
                // Roundings of f64 only, for every type.
                close(&format!("squares {dtype} {n}"), &[squares(&x)], &[expected], 1e-13, 0.0);
            }
        }
        same_for_any_threads("adamw", || {
            let state = run(DType::F32, 70_001);
            [state.weights, state.m, state.v, state.low].iter().flat_map(|a| a.bytes().to_vec()).collect()
        });
        same_for_any_threads("sum_squares", || squares(&x).to_ne_bytes().to_vec());
        sums.borrow_mut().push(squares(&x));
    });
    sums.get_mut().dedup();
    assert_eq!(sums.get_mut().len(), 1, "instruction sets agree to the last bit");
}

#[test]
fn what_is_not_finite_comes_through() {
    for dtype in TYPES {
        let mut x = numbers(20_000, 1);
        x[19_990] = f64::INFINITY;
        assert_eq!(squares(&Array::new(dtype, &x)), f64::INFINITY);
        x[3] = f64::NAN;
        assert!(squares(&Array::new(dtype, &x)).is_nan());
    }
    // The square of this single overflows a single, not the sum.
    assert_eq!(squares(&Array::new(DType::F32, &[2f64.powi(100); 4])), 2f64.powi(202));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let grads = Array::new(DType::F32, &[1.0; 5]);
    let (mut w, mut m, mut v) = (Array::out(DType::F32, 5), Array::out(DType::F32, 5), Array::out(DType::F32, 5));
    let all = [segment(0..5)];
    let mut short = Array::out(DType::BF16, 4);
    let mut step = |p: &AdamW, segments: &[Segment], weights: Option<ViewMut>, low: Option<ViewMut>| {
        let weights = weights.unwrap_or_else(|| w.view_mut());
        let state = State { weights, grads: grads.view(), m: m.view_mut(), v: v.view_mut(), low };
        adamw(p, segments, state, None).unwrap_err()
    };
    let error = step(&STEP, &all, None, Some(short.view_mut()));
    assert_eq!(error.to_string(), "adamw: low has 4 elements, expected 5");
    let zero = AdamW { step: 0, ..STEP };
    let error = step(&zero, &all, None, None);
    assert!(matches!(error, Error::Value { .. }), "{error}");
    let mut half = Array::out(DType::BF16, 5);
    let error = step(&STEP, &all, Some(half.view_mut()), None);
    assert!(matches!(error, Error::Type { what: "weights", .. }), "{error}");
    for wrong in [[segment(0..3), segment(2..5)], [segment(3..5), segment(0..3)], [segment(0..1), segment(1..6)]] {
        let error = step(&STEP, &wrong, None, None);
        assert!(error.to_string().contains("segment") && matches!(error, Error::Value { .. }), "{error}");
    }
    let error = sum_squares(grads.view(), &mut Array::out(DType::F32, 1).view_mut()).unwrap_err();
    assert!(matches!(error, Error::Type { what: "out", .. }), "{error}");
}

#[test]
fn what_lies_outside_the_segments_stays() {
    let before = numbers(100, 1);
    let [mut w, mut m, mut v] = [(); 3].map(|()| Array::new(DType::F64, &before));
    let grads = Array::new(DType::F64, &numbers(100, 2));
    let other = Segment { lr: 1.0, ..segment(50..71) };
    let state = State { weights: w.view_mut(), grads: grads.view(), m: m.view_mut(), v: v.view_mut(), low: None };
    adamw(&STEP, &[segment(3..40), other], state, None).unwrap();
    for array in [&w, &m, &v] {
        for (i, (old, new)) in before.iter().zip(array.values()).enumerate() {
            let stepped = (3..40).contains(&i) || (50..71).contains(&i);
            assert_eq!(*old != new, stepped, "{i}");
        }
    }
}

#[test]
fn rounding_at_random_keeps_the_mean() {
    // A quarter of the way from 1 to the next bf16, and numbers that rounding leaves alone.
    let quarter = 1.0 + spacing(DType::BF16) / 4.0;
    for (value, expected) in [(quarter, quarter), (1.5, 1.5), (-quarter, -quarter), (0.0, 0.0)] {
        let n = 40_000;
        let [mut w, mut m, mut v] = [value, 0.0, 0.0].map(|value| Array::new(DType::F32, &vec![value; n]));
        let grads = Array::new(DType::F32, &vec![0.0; n]);
        let all = [Segment { lr: 0.0, ..segment(0..n) }];
        let mut low = |seed| {
            let p = AdamW { stochastic: Some(seed), ..STEP };
            let mut low = Array::out(DType::BF16, n);
            let (weights, m, v) = (w.view_mut(), m.view_mut(), v.view_mut());
            let state = State { weights, grads: grads.view(), m, v, low: Some(low.view_mut()) };
            adamw(&p, &all, state, None).unwrap();
            low.values()
        };
        let (first, second) = (low(1), low(2));
        let mean = first.iter().sum::<f64>() / n as f64;
        // Five deviations of the mean of n draws that are one spacing with a chance of a quarter.
        let deviation = spacing(DType::BF16) * (3.0 / 16.0 / n as f64).sqrt();
        assert!((mean - expected).abs() <= 5.0 * deviation, "{value}: mean {mean}");
        assert_eq!(first != second, value.abs() == quarter, "the seed decides");
    }
}

#[test]
fn a_scale_that_is_not_a_number_changes_nothing() {
    for dtype in [DType::F32, DType::F64] {
        let grads = Array::new(dtype, &numbers(41, 1));
        let [mut w, mut m, mut v] = [2, 3, 4].map(|seed| Array::new(dtype, &numbers(41, seed)));
        let before = [w.values(), m.values(), v.values()];
        let scale = Array::new(dtype, &[f64::NAN]);
        let state = State { weights: w.view_mut(), grads: grads.view(), m: m.view_mut(), v: v.view_mut(), low: None };
        adamw(&STEP, &[segment(0..41)], state, Some(scale.view())).unwrap();
        assert_eq!([w.values(), m.values(), v.values()], before);
    }
}

#[test]
fn scales_of_norms() {
    let (clip, never) = (NormScale::Clip(2.0), NormScale::Clip(f64::INFINITY));
    let cases = [
        (clip, 25.0, 0.4),
        (clip, 4.0, 1.0),
        (clip, 0.0, 1.0),
        (never, 1e30, 1.0),
        (never, 0.0, 1.0),
        (NormScale::Unit, 0.0625, 1.0 / (0.25 + 1e-7)),
        (NormScale::Unit, 0.0, 1e7),
    ];
    for dtype in [DType::F32, DType::F64] {
        let scale = |rule, squares: f64| {
            let mut out = Array::out(dtype, 1);
            norm_scale(Array::new(DType::F64, &[squares]).view(), rule, &mut out.view_mut()).unwrap();
            out.values()[0]
        };
        for (rule, squares, expected) in cases {
            let spacing = spacing(dtype);
            close(&format!("{rule:?} {squares}"), &[scale(rule, squares)], &[expected], spacing, 0.0);
        }
        for (rule, squares) in [(clip, f64::NAN), (never, f64::INFINITY), (NormScale::Unit, f64::INFINITY)] {
            assert!(scale(rule, squares).is_nan(), "{rule:?} {squares}");
        }
    }
    let squares = Array::new(DType::F32, &[1.0]);
    let error = norm_scale(squares.view(), clip, &mut Array::out(DType::F32, 1).view_mut()).unwrap_err();
    assert!(matches!(error, Error::Type { what: "squares", .. }), "{error}");
}
