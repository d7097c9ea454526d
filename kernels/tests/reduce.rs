//! Sums along an axis and their derivative against plain loops in f64.

mod common;

use common::*;
use kernels::reduce::*;
use kernels::{DType, Error};

/// `(outer, axis, inner)`: small odd shapes, then ones that are shared out by rows, by columns and by parts of the axis.
const SHAPES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [3, 5, 1],
    [3, 0, 4],
    [0, 3, 4],
    [4, 3, 0],
    [2, 7, 3],
    [5, 41, 17],
    [2, 123, 192],
    [9, 33, 200],
    [1, 50_001, 1],
    [3, 20_000, 1],
    [1, 900, 192],
    [100, 20, 41],
    [1, 9, 40_001],
    [2, 301, 600],
    [70, 2, 600],
];

fn plain_sum(x: &[f64], [outer, axis, inner]: [usize; 3], f: impl Fn(f64) -> f64) -> Vec<f64> {
    let at = |o: usize, i: usize| (0..axis).map(|a| f(x[(o * axis + a) * inner + i])).sum();
    (0..outer * inner).map(|oi| at(oi / inner, oi % inner)).collect()
}

fn check(from: DType, to: DType, shape: [usize; 3]) {
    let [outer, axis, inner] = shape;
    let x = Array::new(from, &numbers(outer * axis * inner, 1));
    let mut out = Array::out(to, outer * inner);
    sum_axis(x.view(), &mut out.view_mut(), outer, axis, inner, 0.3).unwrap();
    let expected: Vec<f64> = plain_sum(&x.values(), shape, |x| 0.3 * x);
    let sizes = plain_sum(&x.values(), shape, f64::abs);
    // A sum of n terms is off by some √n roundings of partial sums that are some √n times smaller than Σ|x|; then comes
    // one rounding to the output's type.
    let values = out.values();
    for i in 0..expected.len() {
        let bound = 0.51 * spacing(to) * expected[i].abs() + 2.0 * spacing(from.accumulator()) * sizes[i];
        let error = (values[i] - expected[i]).abs();
        assert!(error <= bound, "{from} {to} {shape:?} [{i}]: {} expected {}", values[i], expected[i]);
    }
}

fn check_broadcast(from: DType, to: DType, shape: [usize; 3]) {
    let [outer, axis, inner] = shape;
    let x = Array::new(from, &numbers(outer * inner, 2));
    let mut out = Array::out(to, outer * axis * inner);
    broadcast_axis(x.view(), &mut out.view_mut(), outer, axis, inner, -0.25).unwrap();
    let x = x.values();
    let at = |i: usize| -0.25 * x[i / (axis * inner) * inner + i % inner];
    let expected: Vec<f64> = (0..outer * axis * inner).map(at).collect();
    // A power of two: nothing is rounded but the conversion.
    let what = format!("broadcast {from} {to} {shape:?}");
    close(&what, &out.values(), &rounded(to, &expected), 0.0, 0.0);
}

#[test]
fn every_instruction_set_follows_the_plain_loops() {
    let pairs =
        [(DType::BF16, DType::F32), (DType::F32, DType::F32), (DType::BF16, DType::BF16), (DType::F64, DType::F64)];
    for_each_isa(|| {
        for (shape, (long, short)) in SHAPES.iter().flat_map(|&shape| pairs.map(|pair| (shape, pair))) {
            check(long, short, shape);
            check_broadcast(short, long, shape);
        }
        for [outer, axis, inner] in [[1, 900, 192], [1, 50_001, 1], [3, 20_000, 1]] {
            let x = Array::new(DType::F32, &numbers(outer * axis * inner, 3));
            same_for_any_threads("sum_axis", || {
                let mut out = Array::out(DType::F32, outer * inner);
                sum_axis(x.view(), &mut out.view_mut(), outer, axis, inner, 1.0).unwrap();
                out.bytes().to_vec()
            });
        }
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = Array::new(DType::BF16, &[1.0; 24]);
    let mut out = Array::out(DType::F32, 8);
    let error = sum_axis(x.view(), &mut out.view_mut(), 2, 4, 4, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "sum_axis: x has 24 elements, expected 32");
    let error = sum_axis(x.view(), &mut out.view_mut(), 3, 2, 4, 1.0).unwrap_err();
    assert_eq!(error.to_string(), "sum_axis: out has 8 elements, expected 12");
    let error = sum_axis(x.view(), &mut out.view_mut(), usize::MAX, 2, 4, 1.0).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
    let mut wide = Array::out(DType::F64, 8);
    let error = sum_axis(x.view(), &mut wide.view_mut(), 2, 3, 4, 1.0).unwrap_err();
    assert!(matches!(error, Error::Type { what: "out", .. }), "{error}");
    let error = broadcast_axis(x.view(), &mut wide.view_mut(), 2, 3, 4, 1.0).unwrap_err();
    assert!(matches!(error, Error::Type { what: "x", .. }), "{error}");
}
