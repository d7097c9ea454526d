//! Dropout: what is kept, what it is scaled by, and what the mask depends on.

mod common;

use common::*;
use kernels::dropout::*;
use kernels::{DType, Error};

fn run(x: &Array, dtype: DType, p: f64, seed: u64) -> Array {
    let mut y = Array::out(dtype, x.view().len());
    dropout(x.view(), &mut y.view_mut(), p, seed).unwrap();
    y
}

fn mask(y: &Array) -> Vec<bool> {
    y.values().iter().map(|&y| y != 0.0).collect()
}

#[test]
fn every_instruction_set_keeps_the_same_elements() {
    let n = 40_001;
    let reference = mask(&run(&Array::new(DType::F64, &vec![1.0; n]), DType::F64, 0.3, 7));
    for_each_isa(|| {
        for dtype in TYPES {
            for n in [0, 1, 7, 16, 41, 123, 200, n] {
                let x = Array::new(dtype, &numbers(n, 1));
                let y = run(&x, dtype, 0.3, 7);
                let kept = x
                    .values()
                    .iter()
                    .zip(&reference)
                    .map(|(x, &kept)| if kept { x / 0.7 } else { 0.0 })
                    .collect::<Vec<_>>();
                // The scale is rounded in A, the product in A and to T.
                let relative = 1.5 * spacing(dtype.accumulator()) + 0.51 * spacing(dtype);
                close(&format!("{dtype} {n}"), &y.values(), &kept, relative, 0.0);
                assert_eq!(run(&x, dtype, 0.0, 7).values(), x.values(), "p = 0 keeps everything");
            }
        }
        same_for_any_threads("dropout", || {
            run(&Array::new(DType::BF16, &numbers(70_001, 2)), DType::BF16, 0.1, 3).bytes().to_vec()
        });
    });
}

#[test]
fn the_share_kept_is_right_and_seeds_differ() {
    let n = 100_000;
    let x = Array::new(DType::F32, &vec![1.0; n]);
    let masks: Vec<_> = (0..4).map(|seed| mask(&run(&x, DType::F32, 0.25, seed))).collect();
    for m in &masks {
        let share = m.iter().filter(|&&kept| kept).count() as f64 / n as f64;
        // Four standard deviations of a share: 4·√(p(1 − p)/n) = 0.0055.
        assert!((share - 0.75).abs() < 0.0055, "{share}");
    }
    for pair in masks.windows(2) {
        let both = pair[0].iter().zip(&pair[1]).filter(|(a, b)| **a && **b).count() as f64 / n as f64;
        // Independent masks agree on 0.75² of the elements; four standard deviations are 0.0063.
        assert!((both - 0.5625).abs() < 0.0063, "{both}");
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let x = Array::new(DType::F32, &[1.0; 5]);
    let mut y = Array::out(DType::F32, 5);
    for p in [1.0, -0.1, f64::NAN] {
        let error = dropout(x.view(), &mut y.view_mut(), p, 0).unwrap_err();
        assert!(matches!(error, Error::Value { .. }), "{error}");
    }
    let error = dropout(x.view(), &mut Array::out(DType::F32, 4).view_mut(), 0.5, 0).unwrap_err();
    assert_eq!(error.to_string(), "dropout: y has 4 elements, expected 5");
}
