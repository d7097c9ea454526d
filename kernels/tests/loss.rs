//! Linear + cross-entropy against a plain reference in f64, and its gradients against finite differences.

mod common;

use common::{Array, close, for_each_isa, numbers, rounded, same_for_any_threads, spacing};
use kernels::loss::{CrossEntropy, Outputs, linear_cross_entropy};
use kernels::{DType, Device, Error, Result};

const IGNORE: i32 = -100;

/// One problem: sizes, and values as `dtype` stores them.
#[derive(Clone)]
struct Case {
    p: CrossEntropy,
    dtype: DType,
    x: Vec<f64>,
    w: Vec<f64>,
    targets: Vec<i32>,
}

/// What the kernel writes, or should.
#[derive(Default)]
struct Answer {
    loss: f64,
    losses: Vec<f64>,
    predictions: Vec<f64>,
    dx: Vec<f64>,
    dw: Vec<f64>,
}

/// Logits of a few units; every `skip`-th row is ignored (0: none).
fn case(dtype: DType, rows: usize, dim: usize, vocab: usize, skip: usize) -> Case {
    let p = CrossEntropy { rows, dim, vocab, ignore_index: IGNORE };
    let scaled = |n, seed| -> Vec<f64> {
        let unit = (dim as f64).powf(-0.25) * 1.5;
        rounded(dtype, &numbers(n, seed).iter().map(|v| v * unit).collect::<Vec<_>>())
    };
    let target = |row: usize| match skip {
        s if s > 0 && row % s == s - 1 => IGNORE,
        _ => (row * 7919 % vocab) as i32,
    };
    Case { p, dtype, x: scaled(rows * dim, 1), w: scaled(vocab * dim, 2), targets: (0..rows).map(target).collect() }
}

fn reference(c: &Case) -> Answer {
    let CrossEntropy { rows, dim, vocab, .. } = c.p;
    let count = c.targets.iter().filter(|&&t| t != IGNORE).count().max(1) as f64;
    let mut answer = Answer {
        losses: vec![0.0; rows],
        predictions: vec![-1.0; rows],
        dx: vec![0.0; rows * dim],
        dw: vec![0.0; vocab * dim],
        ..Answer::default()
    };
    for row in (0..rows).filter(|&row| c.targets[row] != IGNORE) {
        let (x, target) = (&c.x[row * dim..][..dim], c.targets[row] as usize);
        let z: Vec<f64> = c.w.chunks_exact(dim).map(|w| x.iter().zip(w).map(|(x, w)| x * w).sum()).collect();
        let max = z.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = z.iter().map(|z| (z - max).exp()).sum();
        let lse = max + sum.ln();
        answer.losses[row] = lse - z[target];
        answer.loss += answer.losses[row] / count;
        answer.predictions[row] = z.iter().position(|&z| z == max).unwrap() as f64;
        for j in 0..vocab {
            let dz = ((z[j] - lse).exp() - f64::from(j == target)) / count;
            for d in 0..dim {
                answer.dx[row * dim + d] += dz * c.w[j * dim + d];
                answer.dw[j * dim + d] += dz * x[d];
            }
        }
    }
    answer
}

/// Outputs as bytes, in the order of [`Answer`].
fn run(c: &Case, gradients: (bool, bool)) -> Result<[Array; 5]> {
    let acc = c.dtype.accumulator();
    let CrossEntropy { rows, dim, vocab, .. } = c.p;
    let (x, w, targets) = (Array::new(c.dtype, &c.x), Array::new(c.dtype, &c.w), Array::ids(&c.targets));
    let mut out = [
        Array::out(acc, 1),
        Array::out(acc, rows),
        Array::out(DType::I32, rows),
        Array::out(c.dtype, rows * dim),
        Array::out(acc, vocab * dim),
    ];
    let [loss, losses, predictions, dx, dw] = &mut out;
    let outputs = Outputs {
        loss: loss.view_mut(),
        losses: losses.view_mut(),
        predictions: predictions.view_mut(),
        dx: gradients.0.then(|| dx.view_mut()),
        dw: gradients.1.then(|| dw.view_mut()),
    };
    linear_cross_entropy(&c.p, x.view(), w.view(), targets.view(), outputs)?;
    Ok(out)
}

fn kernel(c: &Case) -> Answer {
    let [loss, losses, predictions, dx, dw] = run(c, (true, true)).unwrap().map(|array| array.values());
    Answer { loss: loss[0], losses, predictions, dx, dw }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| v.abs().max(m))
}

/// Each value to `tolerance` of itself, or of the largest in its array (1e-4 when a single class leaves no gradient):
/// single entries are sums that may cancel.
fn compare(c: &Case) {
    let (found, expected) = (kernel(c), reference(c));
    let what = format!("{:?} {}", c.p, c.dtype);
    // Logits, losses and sums are in A; a product of length `dim` adds up about √dim roundings of it.
    let tolerance = if c.dtype == DType::F64 { 1e-12 } else { 1e-5 };
    close(&format!("{what}: loss"), &[found.loss], &[expected.loss], tolerance, 1.0);
    close(&format!("{what}: losses"), &found.losses, &expected.losses, tolerance, 1.0);
    // The gradient of bf16 logits is rounded to bf16 (half of 2⁻⁷), and dx once more.
    let tolerance = if c.dtype == DType::BF16 { 5e-3 } else { tolerance };
    close(&format!("{what}: dx"), &found.dx, &expected.dx, tolerance, largest(&expected.dx).max(1e-4));
    close(&format!("{what}: dw"), &found.dw, &expected.dw, tolerance, largest(&expected.dw).max(1e-4));
    for (row, (&f, &e)) in found.predictions.iter().zip(&expected.predictions).enumerate() {
        assert!(f == e || nearly_best(c, row, f), "{what}: row {row} predicted {f}, expected {e}");
    }
}

/// Whether class `found` has the largest logit of the row but for rounding in the accumulator.
fn nearly_best(c: &Case, row: usize, found: f64) -> bool {
    if found < 0.0 || c.targets[row] == IGNORE {
        return false;
    }
    let x = &c.x[row * c.p.dim..][..c.p.dim];
    let logit = |w: &[f64]| x.iter().zip(w).map(|(x, w)| x * w).sum::<f64>();
    let best = c.w.chunks_exact(c.p.dim).map(logit).fold(f64::NEG_INFINITY, f64::max);
    best - logit(&c.w[found as usize * c.p.dim..][..c.p.dim]) < 1e-5
}

/// Instruction sets are chosen globally: only one test loops over them, and no other may compare bits.
#[test]
fn every_instruction_set_is_right_and_repeatable() {
    for_each_isa(|| {
        bits_do_not_depend_on_the_number_of_threads();
        gradients_are_optional_and_change_nothing_else();
        ignored_rows_may_hold_anything();
        for dtype in common::TYPES {
            for (rows, dim, vocab, skip) in
                [(1, 8, 2, 0), (7, 64, 61, 0), (33, 17, 517, 3), (1025, 16, 61, 0), (2050, 8, 517, 5), (7, 5, 1, 2)]
            {
                compare(&case(dtype, rows, dim, vocab, skip));
            }
        }
    });
}

#[test]
fn a_large_vocabulary_takes_several_chunks() {
    for dtype in [DType::F32, DType::BF16] {
        compare(&case(dtype, 70, 8, 32000, 4));
    }
}

#[test]
fn all_rows_ignored_give_zeros() {
    for dtype in common::TYPES {
        let c = case(dtype, 33, 16, 61, 1);
        let found = kernel(&c);
        assert_eq!(found.loss, 0.0);
        for zeros in [&found.losses, &found.dx, &found.dw] {
            assert!(zeros.iter().all(|&v| v == 0.0));
        }
        assert!(found.predictions.iter().all(|&v| v == -1.0));
    }
}

fn ignored_rows_may_hold_anything() {
    let clean = case(DType::F32, 33, 16, 61, 3);
    let mut dirty = clean.clone();
    for row in (0..33).filter(|row| clean.targets[*row] == IGNORE) {
        dirty.x[row * 16..][..16].fill(f64::NAN);
    }
    let (clean, dirty) = (run(&clean, (true, true)).unwrap(), run(&dirty, (true, true)).unwrap());
    for (clean, dirty) in clean.iter().zip(&dirty) {
        assert_eq!(clean.bytes(), dirty.bytes());
    }
}

#[test]
fn a_broken_weight_shows_in_the_loss() {
    for dtype in common::TYPES {
        let mut c = case(dtype, 7, 16, 61, 0);
        let unused = (0..61).find(|id| !c.targets.contains(id)).unwrap() as usize;
        c.w[unused * 16] = f64::NAN;
        assert!(kernel(&c).loss.is_nan(), "{dtype}");
    }
}

#[test]
fn large_logits_stay_finite() {
    for dtype in common::TYPES {
        let mut c = case(dtype, 33, 16, 61, 0);
        c.x.iter_mut().for_each(|x| *x *= 1024.0);
        let (found, expected) = (kernel(&c), reference(&c));
        // Logits of several thousand are rounded to 2⁻¹¹ in f32: an absolute error of the loss, not of the kernel's making.
        let tolerance = spacing(dtype.accumulator()) * 16.0 * largest(&c.x) * largest(&c.w);
        close("loss", &[found.loss], &[expected.loss], tolerance, 1.0);
        assert!(found.dx.iter().chain(&found.dw).all(|v| v.is_finite()));
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let c = case(DType::F64, 9, 5, 13, 4);
    let answer = kernel(&c);
    // Central differences: the error is the third derivative times step², and rounding over step.
    let step = 1e-5;
    let slope = |change: &dyn Fn(&mut Case, f64), loss: &dyn Fn(&Case) -> f64| {
        let moved = |by: f64| {
            let mut c = c.clone();
            change(&mut c, by);
            loss(&c)
        };
        (moved(step) - moved(-step)) / (2.0 * step)
    };
    let losses: [&dyn Fn(&Case) -> f64; 2] = [&|c| reference(c).loss, &|c| kernel(c).loss];
    for loss in losses {
        let dx: Vec<f64> = (0..c.x.len()).map(|i| slope(&|c, by| c.x[i] += by, loss)).collect();
        let dw: Vec<f64> = (0..c.w.len()).map(|i| slope(&|c, by| c.w[i] += by, loss)).collect();
        close("dx", &answer.dx, &dx, 1e-8, 1.0);
        close("dw", &answer.dw, &dw, 1e-8, 1.0);
    }
}

fn gradients_are_optional_and_change_nothing_else() {
    let c = case(DType::F32, 33, 16, 61, 3);
    let whole = run(&c, (true, true)).unwrap();
    for wanted in [(false, false), (true, false), (false, true)] {
        let part = run(&c, wanted).unwrap();
        let present = [true, true, true, wanted.0, wanted.1];
        for ((whole, part), present) in whole.iter().zip(&part).zip(present) {
            assert_eq!(whole.bytes() == part.bytes(), present);
        }
    }
}

fn bits_do_not_depend_on_the_number_of_threads() {
    for (rows, vocab) in [(1025, 517), (70, 32000)] {
        for dtype in common::TYPES {
            let c = case(dtype, rows, 16, vocab, 7);
            same_for_any_threads("linear_cross_entropy", || {
                run(&c, (true, true)).unwrap().iter().flat_map(|array| array.bytes().to_vec()).collect()
            });
        }
    }
}

#[test]
fn ties_go_to_the_first_class() {
    let mut c = case(DType::F32, 33, 16, 517, 0);
    let best = kernel(&c).predictions;
    let copy = c.w[..100 * 16].to_vec();
    c.w[300 * 16..400 * 16].copy_from_slice(&copy);
    let again = kernel(&c).predictions;
    for (before, after) in best.iter().zip(again).filter(|(before, _)| **before < 100.0) {
        assert_eq!(*before, after);
    }
    assert!(best.iter().any(|&b| b < 100.0), "the copied classes win some row");
}

#[test]
fn a_target_outside_the_vocabulary_is_an_error() {
    for bad in [61, -1, i32::MIN] {
        let mut c = case(DType::F32, 7, 16, 61, 0);
        c.targets[5] = bad;
        match run(&c, (true, true)) {
            Err(Error::Value { message, .. }) => {
                assert!(message.contains(&bad.to_string()) && message.contains("row 5"), "{message}");
            }
            other => panic!("expected an error, got {other:?}"),
        }
    }
}

#[test]
fn wrong_lengths_are_errors_and_the_trace_device_takes_no_memory() {
    let mut c = case(DType::F32, 7, 16, 61, 0);
    c.x.pop();
    assert!(matches!(run(&c, (true, true)), Err(Error::Length { what: "x", .. })));
    let (device, n) = (Device::trace(), 1 << 20);
    let on = |dtype, len| Array::on(&device, dtype, len);
    let p = CrossEntropy { rows: n, dim: 4096, vocab: 128256, ignore_index: IGNORE };
    let (x, w, targets) = (on(DType::BF16, n * 4096), on(DType::BF16, 128256 * 4096), on(DType::I32, n));
    let (mut loss, mut losses, mut predictions) = (on(DType::F32, 1), on(DType::F32, n), on(DType::I32, n));
    let (loss, losses, predictions) = (loss.view_mut(), losses.view_mut(), predictions.view_mut());
    let out = Outputs { loss, losses, predictions, dx: None, dw: None };
    linear_cross_entropy(&p, x.view(), w.view(), targets.view(), out).unwrap();
}
