//! Cases of the losses.

use super::{LOSS, case, ints, unit};
use crate::ops;
use crate::table::{Array, Case, oracle};

/// As (rows, hidden size, vocabulary) with weights of this size; every seventh row is ignored.
fn classify([rows, hidden, vocab]: [usize; 3], weights: f64) -> Case {
    let target = |row: usize| match row % 7 {
        3 => -100,
        _ => (row * 7919 % vocab) as i32,
    };
    let targets: Vec<i32> = (0..rows).map(target).collect();
    let (run, result) = (targets.clone(), targets.clone());
    case(
        format!("cross_entropy/{rows} rows of {hidden}, vocabulary {vocab}"),
        vec![Array::random([rows, hidden], 1.0, 1), Array::random([vocab, hidden], weights, 2)],
        LOSS,
        move |device, v| {
            let targets = ints(device, &run, &[rows])?;
            Ok(ops::linear_cross_entropy(&v[0], &v[1], &targets)?.loss)
        },
        move |a| oracle::cross_entropy(&a[0], &a[1], &result),
        move |a, dy| oracle::cross_entropy_backward(&a[0], &a[1], &targets, dy),
    )
}

/// Small ones; more logits than a block of a GPU takes at a time, in whole vectors and not, some hundred large; more rows than
/// are computed at a time, one of those that are ignored without a number in it.
pub(super) fn cross_entropy() -> Vec<Case> {
    let mut rows = classify([1030, 5, 11], 1.0);
    rows.inputs[0].data[3 * 5] = f64::NAN;
    vec![classify([5, 7, 9], 1.0), classify([40, 7, 523], 1.0), classify([40, 7, 520], 60.0), rows]
}

/// Logits of size one, as a model starts with.
pub(super) fn cross_entropy_grid() -> Vec<Case> {
    const SHAPES: [[usize; 3]; 5] =
        [[188, 31, 123], [1024, 1024, 4096], [47, 64, 32_000], [33, 40, 50_257], [16, 64, 128_256]];
    SHAPES.map(|shape| classify(shape, 1.0 / (shape[1] as f64).sqrt())).into()
}

/// Scores err by 2⁻²⁴ or 2⁻⁹ of the scale.
fn tolerance(scale: f64) -> (f64, f64) {
    (2e-6 * scale.max(10.0), 3.5e-3 * scale.max(10.0))
}

/// Features of images, (pairs, queries, dim) or of one query (pairs, dim), and of texts, and the logarithm of the scale of
/// scores. Of more than one pair the last is the first again.
fn pairs([pairs, queries, dim]: [usize; 3], scale: f64) -> Vec<Array> {
    let features = |shape: &[usize], seed| {
        let mut features = unit(shape, seed);
        let one = features.data.len() / pairs;
        features.data.copy_within(..one, (pairs - 1) * one);
        features
    };
    let images: &[usize] = if queries > 1 { &[pairs, queries, dim] } else { &[pairs, dim] };
    let scale = Array::new([1], vec![scale.ln()]);
    vec![features(images, 1), features(&[pairs, dim], 2), scale]
}

fn clip([n, queries, dim]: [usize; 3], scale: f64) -> Case {
    case(
        format!("clip_loss/{n} pairs of {dim}, queries {queries}, scale {scale}"),
        pairs([n, queries, dim], scale),
        tolerance(scale),
        |_, v| ops::clip_loss(&v[0], &v[1], &v[2]),
        |a| oracle::clip_loss(&a[0], &a[1], &a[2]),
        |a, dy| oracle::clip_loss_backward(&a[0], &a[1], &a[2], dy),
    )
}

fn siglip([n, queries, dim]: [usize; 3], scale: f64) -> Case {
    let mut inputs = pairs([n, queries, dim], scale);
    inputs.push(Array::new([1], vec![-10.0]));
    case(
        format!("siglip_loss/{n} pairs of {dim}, queries {queries}, scale {scale}"),
        inputs,
        tolerance(scale),
        |_, v| ops::siglip_loss(&v[0], &v[1], &v[2], &v[3]),
        |a| oracle::siglip_loss(&a[0], &a[1], &a[2], &a[3]),
        |a, dy| oracle::siglip_loss_backward([&a[0], &a[1], &a[2], &a[3]], dy),
    )
}

/// Pairs, queries, features and the scale of scores: small ones; scores whose exponentials are beyond f32, more of them than a
/// block of a GPU takes at a time; more scores than are computed at a time.
const PAIRS: [([usize; 3], f64); 4] = [([6, 1, 8], 14.3), ([5, 3, 8], 14.3), ([300, 1, 8], 120.0), ([40, 32, 8], 14.3)];

pub(super) fn clip_loss() -> Vec<Case> {
    PAIRS.map(|(shape, scale)| clip(shape, scale)).into()
}

pub(super) fn siglip_loss() -> Vec<Case> {
    PAIRS.map(|(shape, scale)| siglip(shape, scale)).into()
}

/// Of real models; the largest scale is just below 100, where CLIP holds it.
const MORE_PAIRS: [([usize; 3], f64); 6] = [
    ([1, 1, 64], 14.3),
    ([7, 1, 512], 99.0),
    ([127, 1, 768], 1.0),
    ([129, 1, 1000], 14.3),
    ([1000, 1, 512], 99.0),
    ([4097, 1, 64], 14.3),
];

pub(super) fn clip_grid() -> Vec<Case> {
    MORE_PAIRS.map(|(shape, scale)| clip(shape, scale)).into()
}

pub(super) fn siglip_grid() -> Vec<Case> {
    MORE_PAIRS.map(|(shape, scale)| siglip(shape, scale)).into()
}
