//! Element-wise kernels against plain loops in f64.

mod common;

use common::*;
use kernels::elementwise::*;
use kernels::{DType, Device, Error};

/// Small odd sizes, sizes around a register, and one that is cut into chunks with a ragged end.
const SIZES: [usize; 9] = [0, 1, 7, 8, 17, 41, 123, 200, 40_001];

fn check_two_arguments(dtype: DType, n: usize) {
    let (x, y) = (Array::new(dtype, &numbers(n, 1)), Array::new(dtype, &numbers(n, 2)));
    // One rounding, to T.
    let compare = |what: &str, out: &Array, f: fn(f64, f64) -> f64| {
        let expected: Vec<f64> = x.values().iter().zip(y.values()).map(|(x, y)| f(*x, y)).collect();
        close(&format!("{what} {dtype} {n}"), &out.values(), &expected, 0.51 * spacing(dtype), 0.0);
    };
    let mut out = Array::out(dtype, n);
    mul(x.view(), y.view(), &mut out.view_mut()).unwrap();
    compare("mul", &out, |x, y| x * y);
    scale(x.view(), &mut out.view_mut(), -0.75).unwrap();
    compare("scale", &out, |x, _| -0.75 * x);
    add(x.view(), y.view(), &mut out.view_mut()).unwrap();
    let expected: Vec<f64> = x.values().iter().zip(y.values()).map(|(x, y)| x + y).collect();
    close("add", &out.values(), &expected, 0.51 * spacing(dtype), 0.0);
}

fn check_scalars(x_type: DType, y_type: DType, n: usize) {
    let x = Array::new(x_type, &numbers(n, 3));
    let mut y = Array::new(y_type, &numbers(n, 4));
    let what = format!("{x_type} {y_type} {n}");
    let expected: Vec<f64> = x.values().iter().zip(y.values()).map(|(x, y)| y + 0.3 * x).collect();
    axpy(x.view(), &mut y.view_mut(), 0.3).unwrap();
    // The product is rounded before the sum where there is no fused multiplication.
    let steps = 2.0 * spacing(x_type.accumulator());
    let tolerance = steps + 0.51 * spacing(y_type);
    close(&format!("axpy {what}"), &y.values(), &expected, tolerance, steps);

    let scalar = Array::new(x_type.accumulator(), &[1.7]);
    scale_by(x.view(), scalar.view(), &mut y.view_mut(), 0.5).unwrap();
    let expected: Vec<f64> = x.values().iter().map(|x| x * 1.7 * 0.5).collect();
    close(&format!("scale_by {what}"), &y.values(), &expected, tolerance, 0.0);

    let mut clamped = Array::new(y_type, &[-2.0, 0.25, 2.0, f64::NAN]);
    clamp(&mut clamped.view_mut(), 0.0, 0.5).unwrap();
    let values = clamped.values();
    assert_eq!(values[..3], [0.0, 0.25, 0.5], "clamp {what}");
    assert!(values[3].is_nan(), "clamp {what}");

    let before = y.values();
    let nan = Array::new(x_type.accumulator(), &[f64::NAN]);
    cast_unless_nan(x.view(), nan.view(), &mut y.view_mut()).unwrap();
    assert_eq!(y.values(), before, "cast_unless_nan {what}");
    cast_unless_nan(x.view(), scalar.view(), &mut y.view_mut()).unwrap();
    close(&format!("cast_unless_nan {what}"), &y.values(), &x.values(), 0.51 * spacing(y_type), 0.0);

    let expected: Vec<f64> = y.values().iter().zip(x.values()).map(|(y, x)| y + 1.7 * 0.5 * x).collect();
    axpy_by(x.view(), scalar.view(), &mut y.view_mut(), 0.5).unwrap();
    close(&format!("axpy_by {what}"), &y.values(), &expected, tolerance, steps);
}

fn check_broadcast(dtype: DType, outer: usize, inner: usize) {
    let (x, b) = (Array::new(dtype, &numbers(outer * inner, 5)), Array::new(dtype, &numbers(inner, 6)));
    let mut out = Array::out(dtype, outer * inner);
    add_broadcast(x.view(), b.view(), &mut out.view_mut()).unwrap();
    let b = b.values();
    let expected: Vec<f64> = x.values().iter().enumerate().map(|(i, x)| x + b[i % inner]).collect();
    close(&format!("add_broadcast {dtype} {outer} {inner}"), &out.values(), &expected, 0.51 * spacing(dtype), 0.0);
}

fn check_casts(n: usize) {
    const FLOATS: [DType; 4] = [DType::F64, DType::F32, DType::BF16, DType::F16];
    // Beyond f16's range, subnormal in f16, and not numbers at all.
    let mut values = numbers(n, 7);
    for (v, special) in values.iter_mut().zip([1e5, -3e-6, f64::INFINITY, f64::NAN, -0.0, 1.0 + 1.0 / 512.0]) {
        *v = special;
    }
    for (from, to) in FLOATS.iter().flat_map(|&from| FLOATS.map(|to| (from, to))) {
        let x = Array::new(from, &values);
        let mut out = Array::out(to, n);
        cast(x.view(), &mut out.view_mut()).unwrap();
        // Exactly what the library's conversions give.
        close(&format!("cast {from} {to} {n}"), &out.values(), &rounded(to, &x.values()), 0.0, 0.0);
        fill(&mut out.view_mut(), -1.3).unwrap();
        assert_eq!(out.values(), rounded(to, &vec![-1.3; n]));
    }
}

#[test]
fn every_instruction_set_follows_the_plain_loops() {
    for_each_isa(|| {
        for n in SIZES {
            TYPES.iter().for_each(|&dtype| check_two_arguments(dtype, n));
            check_scalars(DType::BF16, DType::F32, n);
            TYPES.iter().for_each(|&dtype| check_scalars(dtype, dtype, n));
            check_casts(n);
        }
        for (outer, inner) in [(1, 1), (3, 41), (5, 123), (7, 192), (40, 1023), (0, 8), (2, 20_000)] {
            TYPES.iter().for_each(|&dtype| check_broadcast(dtype, outer, inner));
        }
        same_for_any_threads("axpy", || {
            let (x, mut y) = (Array::new(DType::F32, &numbers(70_001, 1)), Array::new(DType::F32, &numbers(70_001, 2)));
            axpy(x.view(), &mut y.view_mut(), 0.1).unwrap();
            y.bytes().to_vec()
        });
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    let (x, y) = (Array::new(DType::F32, &[1.0; 6]), Array::new(DType::F32, &[1.0; 5]));
    let mut out = Array::out(DType::F32, 6);
    let length = add(x.view(), y.view(), &mut out.view_mut()).unwrap_err();
    assert_eq!(length.to_string(), "add: y has 5 elements, expected 6");
    let error = add_broadcast(x.view(), y.view(), &mut out.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "add_broadcast: x has 6 elements, expected 5");

    let ids = Array::ids(&[1; 6]);
    for error in [
        mul(x.view(), ids.view(), &mut out.view_mut()),
        scale(ids.view(), &mut out.view_mut(), 1.0),
        cast(ids.view(), &mut out.view_mut()),
        axpy(x.view(), &mut Array::out(DType::BF16, 6).view_mut(), 1.0),
        axpy(x.view(), &mut Array::out(DType::F64, 6).view_mut(), 1.0),
        fill(&mut Array::ids(&[1]).view_mut(), 0.0),
    ] {
        assert!(matches!(error, Err(Error::Type { .. })), "{error:?}");
    }
    let elsewhere = Array::on(&Device::trace(), DType::F32, 6);
    let error = add(x.view(), elsewhere.view(), &mut out.view_mut());
    assert!(matches!(error, Err(Error::Device { what: "y", .. })), "{error:?}");
}

#[test]
fn the_trace_device_checks_and_computes_nothing() {
    let device = Device::trace();
    let (x, y) = (Array::on(&device, DType::BF16, 6), Array::on(&device, DType::BF16, 5));
    let mut out = Array::on(&device, DType::BF16, 6);
    add(x.view(), x.view(), &mut out.view_mut()).unwrap();
    cast(x.view(), &mut out.view_mut()).unwrap();
    fill(&mut out.view_mut(), 1.0).unwrap();
    assert!(add(x.view(), y.view(), &mut out.view_mut()).is_err());
}
