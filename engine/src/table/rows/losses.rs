//! Cases of the losses.

use super::{LOSS, case, ints, normal, unit};
use crate::table::{Array, Case, oracle};
use crate::{Device, Var, ops};

pub(super) fn cross_entropy() -> Vec<Case> {
    const TARGETS: [i32; 5] = [2, 0, -100, 8, 3];
    [0.0, 0.1]
        .map(|smoothing| {
            case(
                format!("cross_entropy/smoothing {smoothing}"),
                normal([&[5, 7], &[9, 7]]),
                LOSS,
                move |device, v| {
                    Ok(ops::linear_cross_entropy(&v[0], &v[1], &ints(device, &TARGETS, &[5])?, smoothing)?.loss)
                },
                move |a| oracle::cross_entropy(&a[0], &a[1], &TARGETS, smoothing),
                move |a, dy| oracle::cross_entropy_backward(&a[0], &a[1], &TARGETS, smoothing, dy),
            )
        })
        .into()
}

pub(super) fn clip_loss() -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::clip_loss(&v[0], &v[1], &v[2]);
    let scale = || Array::new([1], vec![14.3f64.ln()]);
    // In bf16 a score of size 1 errs by 2⁻⁹, times the scale of 14: the loss by 0.03.
    let tolerance = (2e-5, 5e-2);
    vec![
        case(
            "clip_loss/one query",
            vec![unit(&[6, 8], 1), unit(&[6, 8], 2), scale()],
            tolerance,
            run,
            |a| oracle::clip_loss(&a[0], &a[1], &a[2]),
            |a, dy| oracle::clip_loss_backward(&a[0], &a[1], &a[2], dy),
        ),
        case(
            "clip_loss/best of three queries",
            vec![unit(&[5, 3, 8], 1), unit(&[5, 8], 2), scale()],
            tolerance,
            run,
            |a| oracle::clip_loss(&a[0], &a[1], &a[2]),
            |a, dy| oracle::clip_loss_backward(&a[0], &a[1], &a[2], dy),
        ),
    ]
}

pub(super) fn siglip_loss() -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::siglip_loss(&v[0], &v[1], &v[2], &v[3]);
    let inputs = vec![
        unit(&[6, 8], 1),
        unit(&[6, 8], 2),
        Array::new([1], vec![10f64.ln()]),
        Array::new([1], vec![-10.0]),
    ];
    vec![case(
        "siglip_loss",
        inputs,
        (2e-5, 5e-2),
        run,
        |a| oracle::siglip_loss(&a[0], &a[1], &a[2], &a[3]),
        |a, dy| oracle::siglip_loss_backward([&a[0], &a[1], &a[2], &a[3]], dy),
    )]
}

/// As (rows, hidden size, vocabulary); every seventh row is ignored.
pub(super) fn cross_entropy_grid() -> Vec<Case> {
    const SHAPES: [(usize, usize, usize); 5] = [
        (188, 31, 123),
        (1024, 1024, 4096),
        (47, 64, 32_000),
        (33, 40, 50_257),
        (16, 64, 128_256),
    ];
    let one = |(rows, hidden, vocab): (usize, usize, usize)| {
        [0.0, 0.1].map(|smoothing| {
            let target = |row: usize| {
                if row % 7 == 3 {
                    -100
                } else {
                    (row * 7919 % vocab) as i32
                }
            };
            let targets: Vec<i32> = (0..rows).map(target).collect();
            let (run, result) = (targets.clone(), targets.clone());
            case(
                format!("cross_entropy/{rows} rows of {hidden}, vocabulary {vocab}, smoothing {smoothing}"),
                vec![
                    Array::random([rows, hidden], 1.0, 1),
                    // Logits of size one, as a model starts with.
                    Array::random([vocab, hidden], 1.0 / (hidden as f64).sqrt(), 2),
                ],
                LOSS,
                move |device, v| {
                    let targets = ints(device, &run, &[rows])?;
                    Ok(ops::linear_cross_entropy(&v[0], &v[1], &targets, smoothing)?.loss)
                },
                move |a| oracle::cross_entropy(&a[0], &a[1], &result, smoothing),
                move |a, dy| oracle::cross_entropy_backward(&a[0], &a[1], &targets, smoothing, dy),
            )
        })
    };
    SHAPES.into_iter().flat_map(one).collect()
}

/// Pairs, features and the scale of scores, the largest just below 100, where CLIP holds it.
const PAIRS: [(usize, usize, f64); 6] = [
    (1, 64, 14.3),
    (7, 512, 99.0),
    (127, 768, 1.0),
    (129, 1000, 14.3),
    (1000, 512, 99.0),
    (4097, 64, 14.3),
];

/// Scores err by 2⁻²⁴ or 2⁻⁹ of the scale.
fn tolerance(scale: f64) -> (f64, f64) {
    (2e-6 * scale.max(10.0), 3.5e-3 * scale.max(10.0))
}

/// Features of images and texts; of more than one pair the last is the first again.
fn features(pairs: usize, dim: usize) -> [Array; 2] {
    [1, 2].map(|seed| {
        let mut rows = unit(&[pairs, dim], seed);
        rows.data.copy_within(..dim, (pairs - 1) * dim);
        rows
    })
}

pub(super) fn clip_grid() -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::clip_loss(&v[0], &v[1], &v[2]);
    let one = |(pairs, dim, scale): (usize, usize, f64)| {
        let [images, texts] = features(pairs, dim);
        let inputs = vec![images, texts, Array::new([1], vec![scale.ln()])];
        let name = format!("clip_loss/{pairs} pairs of {dim}, scale {scale}");
        case(
            name,
            inputs,
            tolerance(scale),
            run,
            |a| oracle::clip_loss(&a[0], &a[1], &a[2]),
            |a, dy| oracle::clip_loss_backward(&a[0], &a[1], &a[2], dy),
        )
    };
    PAIRS.map(one).into()
}

pub(super) fn siglip_grid() -> Vec<Case> {
    let run = |_: &Device, v: &[Var]| ops::siglip_loss(&v[0], &v[1], &v[2], &v[3]);
    let one = |(pairs, dim, scale): (usize, usize, f64)| {
        let [images, texts] = features(pairs, dim);
        let inputs = vec![
            images,
            texts,
            Array::new([1], vec![scale.ln()]),
            Array::new([1], vec![-10.0]),
        ];
        let name = format!("siglip_loss/{pairs} pairs of {dim}, scale {scale}");
        case(
            name,
            inputs,
            tolerance(scale),
            run,
            |a| oracle::siglip_loss(&a[0], &a[1], &a[2], &a[3]),
            |a, dy| oracle::siglip_loss_backward([&a[0], &a[1], &a[2], &a[3]], dy),
        )
    };
    PAIRS.map(one).into()
}
