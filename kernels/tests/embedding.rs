//! Table look-up and its derivative against plain loops.

mod common;

use common::*;
use kernels::embedding::*;
use kernels::{DType, Error};

/// `(ids, vocab, dim)`.
const SHAPES: [(usize, usize, usize); 7] =
    [(0, 3, 4), (1, 1, 1), (7, 5, 17), (41, 100, 41), (200, 7, 123), (301, 50, 192), (65, 900, 1023)];

/// Ids of which a third is 0: a hot token.
fn ids(n: usize, vocab: usize) -> Vec<i32> {
    let id = |(i, v): (usize, f64)| {
        if i % 3 == 0 { 0 } else { ((v + 2.0) / 4.0 * vocab as f64) as i32 }
    };
    numbers(n, 9).into_iter().enumerate().map(id).collect()
}

fn check(dtype: DType, n: usize, vocab: usize, dim: usize) {
    let ids = ids(n, vocab);
    let table = Array::new(dtype, &numbers(vocab * dim, 1));
    let mut out = Array::out(dtype, n * dim);
    embedding(table.view(), Array::ids(&ids).view(), &mut out.view_mut(), vocab, dim).unwrap();
    let values = table.values();
    let expected: Vec<f64> = ids.iter().flat_map(|&id| values[id as usize * dim..][..dim].to_vec()).collect();
    assert_eq!(out.values(), expected, "{dtype} ({n}, {vocab}, {dim})");

    let dout = Array::new(dtype, &numbers(n * dim, 2));
    let before = Array::new(dtype.accumulator(), &numbers(vocab * dim, 3));
    for accumulate in [false, true] {
        let mut dtable = Array::new(dtype.accumulator(), &before.values());
        let ids_view = Array::ids(&ids);
        embedding_backward(ids_view.view(), dout.view(), &mut dtable.view_mut(), vocab, dim, accumulate).unwrap();
        let mut expected = match accumulate {
            true => before.values(),
            false => vec![0.0; vocab * dim],
        };
        for (i, d) in dout.values().iter().enumerate() {
            expected[ids[i / dim] as usize * dim + i % dim] += d;
        }
        // Partial sums of up to n/3 terms below 2, each rounded in A.
        let absolute = spacing(dtype.accumulator()) * (n as f64 + 1.0);
        close(
            &format!("dtable {dtype} ({n}, {vocab}, {dim}), accumulate {accumulate}"),
            &dtable.values(),
            &expected,
            0.0,
            absolute,
        );
    }
}

#[test]
fn every_instruction_set_follows_the_plain_loops() {
    for_each_isa(|| {
        for (dtype, (n, vocab, dim)) in TYPES.iter().flat_map(|&dtype| SHAPES.map(|shape| (dtype, shape))) {
            check(dtype, n, vocab, dim);
        }
        let (ids, dout) = (Array::ids(&ids(500, 30)), Array::new(DType::BF16, &numbers(500 * 200, 3)));
        same_for_any_threads("embedding_backward", || {
            let mut dtable = Array::out(DType::F32, 30 * 200);
            embedding_backward(ids.view(), dout.view(), &mut dtable.view_mut(), 30, 200, false).unwrap();
            dtable.bytes().to_vec()
        });
    });
}

#[test]
fn what_does_not_fit_is_an_error() {
    let table = Array::new(DType::F32, &[1.0; 15]);
    let mut out = Array::out(DType::F32, 6);
    for (bad, message) in [
        ([4, 5], "embedding: id 5 at place 1 is outside 0..5"),
        ([-1, 7], "embedding: id -1 at place 0 is outside 0..5"),
    ] {
        let error = embedding(table.view(), Array::ids(&bad).view(), &mut out.view_mut(), 5, 3).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let mut dtable = Array::out(DType::F32, 15);
    let (ids, dout) = (Array::ids(&[0, 6]), Array::new(DType::F32, &[1.0; 6]));
    let error = embedding_backward(ids.view(), dout.view(), &mut dtable.view_mut(), 5, 3, false).unwrap_err();
    assert_eq!(error.to_string(), "embedding_backward: id 6 at place 1 is outside 0..5");
    let error = embedding(table.view(), dout.view(), &mut out.view_mut(), 5, 3).unwrap_err();
    assert!(matches!(error, Error::Type { what: "ids", .. }), "{error}");
    let error = embedding(table.view(), ids.view(), &mut out.view_mut(), 4, 3).unwrap_err();
    assert!(matches!(error, Error::Length { what: "table", expected: 12, .. }), "{error}");
    let error = embedding(table.view(), ids.view(), &mut out.view_mut(), usize::MAX, 3).unwrap_err();
    assert!(matches!(error, Error::Value { .. }), "{error}");
}
