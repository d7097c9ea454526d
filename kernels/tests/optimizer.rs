//! AdamW and the sum of squares against plain loops in f64.

mod common;

use common::*;
use kernels::optimizer::*;
use kernels::{DType, Error};

const SIZES: [usize; 8] = [0, 1, 7, 16, 41, 123, 200, 40_001];
const STEP: AdamW = AdamW {
    lr: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
};
const SCALE: f64 = 0.5;

struct State {
    weights: Array,
    m: Array,
    v: Array,
    low: Array,
}

/// Three steps with gradients that change.
fn run(dtype: DType, n: usize) -> State {
    let mut state = State {
        weights: Array::new(dtype, &numbers(n, 1)),
        m: Array::new(dtype, &vec![0.0; n]),
        v: Array::new(dtype, &vec![0.0; n]),
        low: Array::out(DType::BF16, n),
    };
    let scale = Array::new(dtype, &[SCALE]);
    for step in 1..=3 {
        let p = AdamW { step, ..STEP };
        let grads = Array::new(dtype, &numbers(n, 10 + step));
        let (mut w, mut m, mut v) = (state.weights.view_mut(), state.m.view_mut(), state.v.view_mut());
        let mut low = state.low.view_mut();
        adamw(
            &p,
            &mut w,
            grads.view(),
            Some(scale.view()),
            &mut m,
            &mut v,
            (step == 3).then_some(&mut low),
        )
        .unwrap();
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
            w[i] -= STEP.lr * STEP.weight_decay * w[i];
            w[i] -= STEP.lr * m_hat / (v_hat.sqrt() + STEP.eps);
        }
    }
    // Some four roundings a step, relative to terms of the size of the weights, gradients or their squares.
    let steps = 12.0 * spacing(dtype);
    close(&format!("m {dtype} {n}"), &state.m.values(), &m, steps, steps);
    close(&format!("v {dtype} {n}"), &state.v.values(), &v, steps, 0.0);
    close(
        &format!("weights {dtype} {n}"),
        &state.weights.values(),
        &w,
        steps,
        steps,
    );
    assert_eq!(
        state.low.values(),
        rounded(DType::BF16, &state.weights.values()),
        "low {dtype} {n}"
    );
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
            [state.weights, state.m, state.v, state.low]
                .iter()
                .flat_map(|a| a.bytes().to_vec())
                .collect()
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
    let (mut w, mut m, mut v) = (
        Array::out(DType::F32, 5),
        Array::out(DType::F32, 5),
        Array::out(DType::F32, 5),
    );
    let mut short = Array::out(DType::BF16, 4);
    let (mut w, mut m, mut v) = (w.view_mut(), m.view_mut(), v.view_mut());
    let error = adamw(
        &STEP,
        &mut w,
        grads.view(),
        None,
        &mut m,
        &mut v,
        Some(&mut short.view_mut()),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "adamw: low has 4 elements, expected 5");
    let zero = AdamW { step: 0, ..STEP };
    let error = adamw(&zero, &mut w, grads.view(), None, &mut m, &mut v, None).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
    let mut half = Array::out(DType::BF16, 5);
    let error = adamw(&STEP, &mut half.view_mut(), grads.view(), None, &mut m, &mut v, None).unwrap_err();
    assert!(matches!(error, Error::Type { what: "weights", .. }), "{error}");
    let error = sum_squares(grads.view(), &mut Array::out(DType::F32, 1).view_mut()).unwrap_err();
    assert!(matches!(error, Error::Type { what: "out", .. }), "{error}");
}

#[test]
fn a_scale_that_is_not_a_number_changes_nothing() {
    for dtype in [DType::F32, DType::F64] {
        let grads = Array::new(dtype, &numbers(41, 1));
        let [mut w, mut m, mut v] = [2, 3, 4].map(|seed| Array::new(dtype, &numbers(41, seed)));
        let before = [w.values(), m.values(), v.values()];
        let scale = Array::new(dtype, &[f64::NAN]);
        let (weights, scale) = (&mut w.view_mut(), Some(scale.view()));
        adamw(
            &STEP,
            weights,
            grads.view(),
            scale,
            &mut m.view_mut(),
            &mut v.view_mut(),
            None,
        )
        .unwrap();
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
            close(
                &format!("{rule:?} {squares}"),
                &[scale(rule, squares)],
                &[expected],
                spacing,
                0.0,
            );
        }
        for (rule, squares) in [
            (clip, f64::NAN),
            (never, f64::INFINITY),
            (NormScale::Unit, f64::INFINITY),
        ] {
            assert!(scale(rule, squares).is_nan(), "{rule:?} {squares}");
        }
    }
    let squares = Array::new(DType::F32, &[1.0]);
    let error = norm_scale(squares.view(), clip, &mut Array::out(DType::F32, 1).view_mut()).unwrap_err();
    assert!(matches!(error, Error::Type { what: "squares", .. }), "{error}");
}
