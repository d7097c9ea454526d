//! Norms and their derivatives against plain loops in f64; those derivatives against finite differences.

mod common;

use common::*;
use kernels::norm::*;
use kernels::{DType, Error};

/// `(rows, dim)`, from one element to several chunks with a ragged end.
const SHAPES: [(usize, usize); 9] =
    [(1, 1), (3, 2), (0, 7), (2, 17), (5, 41), (9, 123), (200, 192), (70, 1023), (1, 20_001)];
const EPS: f64 = 1e-5;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Norm {
    Layer,
    Rms,
}

/// Mean and rstd of a row.
fn statistics(norm: Norm, x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = if norm == Norm::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
    let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    (mean, 1.0 / (variance + EPS).sqrt())
}

fn forward(norm: Norm, x: &[f64], w: &[f64], b: &[f64]) -> Vec<f64> {
    let (mean, rstd) = statistics(norm, x);
    (0..x.len()).map(|i| (x[i] - mean) * rstd * w[i] + b[i]).collect()
}

/// `dx` of one row; adds to `dw` and `db`.
fn backward(norm: Norm, x: &[f64], w: &[f64], dy: &[f64], dw: &mut [f64], db: &mut [f64]) -> Vec<f64> {
    let (n, (mean, rstd)) = (x.len(), statistics(norm, x));
    let normal: Vec<f64> = x.iter().map(|x| (x - mean) * rstd).collect();
    for i in 0..n {
        dw[i] += dy[i] * normal[i];
        db[i] += dy[i];
    }
    let average = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / n as f64;
    let c1 = if norm == Norm::Layer { average(&|i| dy[i] * w[i]) } else { 0.0 };
    let c2 = average(&|i| dy[i] * w[i] * normal[i]);
    (0..n).map(|i| rstd * (dy[i] * w[i] - c1 - normal[i] * c2)).collect()
}

/// Arguments and results of one norm and its derivative.
struct Run {
    x: Array,
    w: Array,
    b: Array,
    dy: Array,
    y: Array,
    mean: Array,
    rstd: Array,
    dx: Array,
    dw: Array,
    db: Array,
}

fn run(norm: Norm, dtype: DType, rows: usize, dim: usize) -> Run {
    let acc = dtype.accumulator();
    let mut r = Run {
        // Off centre, as activations are.
        x: Array::new(dtype, &numbers(rows * dim, 1).iter().map(|x| x + 0.7).collect::<Vec<_>>()),
        w: Array::new(dtype, &numbers(dim, 2)),
        b: Array::new(dtype, &numbers(dim, 3)),
        dy: Array::new(dtype, &numbers(rows * dim, 4)),
        y: Array::out(dtype, rows * dim),
        mean: Array::out(acc, rows),
        rstd: Array::out(acc, rows),
        dx: Array::out(dtype, rows * dim),
        dw: Array::out(acc, dim),
        db: Array::out(acc, dim),
    };
    let (x, w, b, dy) = (r.x.view(), r.w.view(), r.b.view(), r.dy.view());
    let (mut y, mut dx, mut dw, db) = (r.y.view_mut(), r.dx.view_mut(), r.dw.view_mut(), r.db.view_mut());
    match norm {
        Norm::Layer => {
            let (mean, rstd) = (r.mean.view_mut(), r.rstd.view_mut());
            layer_norm(LayerNorm { x, w, b, y, mean, rstd, eps: EPS }).unwrap();
            let (mean, rstd) = (r.mean.view(), r.rstd.view());
            layer_norm_backward(LayerNormBackward { x, w, mean, rstd, dy, dx, dw, db }).unwrap();
        }
        Norm::Rms => {
            rms_norm(x, w, &mut y, &mut r.rstd.view_mut(), EPS).unwrap();
            rms_norm_backward(x, w, r.rstd.view(), dy, &mut dx, &mut dw).unwrap();
        }
    }
    r
}

fn check(norm: Norm, dtype: DType, rows: usize, dim: usize) {
    let r = run(norm, dtype, rows, dim);
    let (x, w, dy) = (r.x.values(), r.w.values(), r.dy.values());
    let b = if norm == Norm::Layer { r.b.values() } else { vec![0.0; dim] };
    let (mut y, mut rstd, mut dx) = (vec![], vec![], vec![]);
    let (mut dw, mut db) = (vec![0.0; dim], vec![0.0; dim]);
    for row in 0..rows {
        let (x, dy) = (&x[row * dim..][..dim], &dy[row * dim..][..dim]);
        y.extend(forward(norm, x, &w, &b));
        rstd.push(statistics(norm, x).1);
        dx.extend(backward(norm, x, &w, dy, &mut dw, &mut db));
    }
    let what = |name: &str| format!("{norm:?} {name} {dtype} ({rows}, {dim})");
    // Statistics and normalised values carry some ten roundings in A (the plain sums in f64 some √dim), relative to terms
    // of size 4 or so; then comes one to T.
    let steps = (10.0 + (dim as f64).sqrt()) * spacing(dtype.accumulator());
    let to_t = 0.51 * spacing(dtype);
    let largest = rstd.iter().copied().fold(1.0, f64::max);
    close(&what("rstd"), &r.rstd.values(), &rstd, steps, 0.0);
    close(&what("y"), &r.y.values(), &y, to_t, 4.0 * steps);
    close(&what("dx"), &r.dx.values(), &dx, to_t, 4.0 * largest * steps);
    let absolute = 4.0 * (rows as f64).sqrt() * steps;
    close(&what("dw"), &r.dw.values(), &dw, 0.0, absolute);
    if norm == Norm::Layer {
        close(&what("db"), &r.db.values(), &db, 0.0, absolute);
    }
}

fn check_unit_length(dtype: DType, rows: usize, dim: usize) {
    let mut values = numbers(rows * dim, 5);
    values.iter_mut().take(dim).for_each(|v| *v = 0.0);
    let (x, dy) = (Array::new(dtype, &values), Array::new(dtype, &numbers(rows * dim, 6)));
    let (mut y, mut dx) = (Array::out(dtype, rows * dim), Array::out(dtype, rows * dim));
    let mut inverse = Array::out(dtype.accumulator(), rows);
    l2_normalize(x.view(), &mut y.view_mut(), &mut inverse.view_mut(), dim, 1e-3).unwrap();
    l2_normalize_backward(y.view(), inverse.view(), dy.view(), &mut dx.view_mut(), dim).unwrap();
    let steps = (10.0 + (dim as f64).sqrt()) * spacing(dtype.accumulator());
    let (y_found, to_t) = (y.values(), 0.51 * spacing(dtype));
    let (mut expected, mut expected_inverse, mut expected_dx) = (vec![], vec![], vec![]);
    for row in 0..rows {
        let at = |v: &[f64]| v[row * dim..][..dim].to_vec();
        let (x, y, dy) = (at(&x.values()), at(&y_found), at(&dy.values()));
        let inverse = 1.0 / x.iter().map(|x| x * x).sum::<f64>().sqrt().max(1e-3);
        expected_inverse.push(inverse);
        expected.extend(x.iter().map(|x| x * inverse));
        let product: f64 = y.iter().zip(&dy).map(|(y, dy)| y * dy).sum();
        expected_dx.extend(y.iter().zip(&dy).map(|(y, dy)| inverse * (dy - y * product)));
    }
    let largest = expected_inverse.iter().copied().fold(1.0, f64::max);
    let what = |name: &str| format!("l2 {name} {dtype} ({rows}, {dim})");
    close(&what("inverse"), &inverse.values(), &expected_inverse, steps, 0.0);
    close(&what("y"), &y_found, &expected, steps + to_t, 0.0);
    close(&what("dx"), &dx.values(), &expected_dx, steps + to_t, 4.0 * steps * largest);
}

#[test]
fn every_instruction_set_follows_the_plain_loops() {
    for_each_isa(|| {
        for ((rows, dim), dtype) in SHAPES.iter().flat_map(|&shape| TYPES.map(|dtype| (shape, dtype))) {
            check(Norm::Layer, dtype, rows, dim);
            check(Norm::Rms, dtype, rows, dim);
            check_unit_length(dtype, rows, dim);
        }
        for norm in [Norm::Layer, Norm::Rms] {
            same_for_any_threads("norm", || {
                let r = run(norm, DType::BF16, 1001, 123);
                [r.y, r.dx, r.dw, r.db].iter().flat_map(|a| a.bytes().to_vec()).collect()
            });
        }
    });
}

#[test]
fn the_plain_derivatives_are_finite_differences() {
    let (n, step) = (7, 1e-5);
    for norm in [Norm::Layer, Norm::Rms] {
        let (x, w, b, dy) = (numbers(n, 1), numbers(n, 2), vec![0.0; n], numbers(n, 3));
        let (mut dw, mut db) = (vec![0.0; n], vec![0.0; n]);
        let dx = backward(norm, &x, &w, &dy, &mut dw, &mut db);
        let loss = |x: &[f64], w: &[f64], b: &[f64]| -> f64 {
            forward(norm, x, w, b).iter().zip(&dy).map(|(y, dy)| y * dy).sum()
        };
        let moved = |v: &[f64], i: usize, by: f64| {
            let mut v = v.to_vec();
            v[i] += by;
            v
        };
        for i in 0..n {
            let slope = |f: &dyn Fn(f64) -> f64| (f(step) - f(-step)) / (2.0 * step);
            // Central differences are off by step² times third derivatives and by rounding over the step.
            close("dx", &[dx[i]], &[slope(&|by| loss(&moved(&x, i, by), &w, &b))], 1e-8, 1.0);
            close("dw", &[dw[i]], &[slope(&|by| loss(&x, &moved(&w, i, by), &b))], 1e-8, 1.0);
            close("db", &[db[i]], &[slope(&|by| loss(&x, &w, &moved(&b, i, by)))], 1e-8, 1.0);
        }
    }
}

#[test]
fn a_far_mean_does_not_drown_the_variance() {
    // 4096 + small: squares would need 30 bits, a single has 24.
    let x: Vec<f64> = numbers(192, 8).iter().map(|x| 4096.0 + x).collect();
    let x = Array::new(DType::F32, &x);
    let (w, b) = (Array::new(DType::F32, &[1.0; 192]), Array::new(DType::F32, &[0.0; 192]));
    let (mut y, mut mean, mut rstd) =
        (Array::out(DType::F32, 192), Array::out(DType::F32, 1), Array::out(DType::F32, 1));
    let (y_out, mean, rstd) = (y.view_mut(), mean.view_mut(), rstd.view_mut());
    layer_norm(LayerNorm { x: x.view(), w: w.view(), b: b.view(), y: y_out, mean, rstd, eps: EPS }).unwrap();
    // The mean itself is rounded to 2⁻¹² or a few of them.
    close("y", &y.values(), &forward(Norm::Layer, &x.values(), &[1.0; 192], &[0.0; 192]), 2e-3, 1.0);
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (x, w) = (Array::new(DType::F32, &[1.0; 12]), Array::new(DType::F32, &[1.0; 4]));
    let wide = Array::new(DType::F32, &[1.0; 5]);
    let none = Array::new(DType::F32, &[]);
    let (mut y, mut rstd, mut short) =
        (Array::out(DType::F32, 12), Array::out(DType::F32, 3), Array::out(DType::F32, 2));
    rms_norm(x.view(), w.view(), &mut y.view_mut(), &mut rstd.view_mut(), EPS).unwrap();
    let error = rms_norm(x.view(), w.view(), &mut y.view_mut(), &mut short.view_mut(), EPS).unwrap_err();
    assert_eq!(error.to_string(), "rms_norm: rstd has 2 elements, expected 3");
    let error = rms_norm(x.view(), wide.view(), &mut y.view_mut(), &mut rstd.view_mut(), EPS).unwrap_err();
    assert_eq!(error.to_string(), "rms_norm: x has 12 elements, expected 10");
    let error = rms_norm(x.view(), none.view(), &mut y.view_mut(), &mut rstd.view_mut(), EPS).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
    let error =
        l2_normalize(x.view(), &mut y.view_mut(), &mut Array::out(DType::BF16, 3).view_mut(), 4, EPS).unwrap_err();
    assert!(matches!(error, Error::Type { what: "inverse", .. }), "{error}");
}
