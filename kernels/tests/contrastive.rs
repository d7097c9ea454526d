//! Contrastive losses against plain references in f64, and their gradients against finite differences.

mod common;

use common::{Array, close, for_each_isa, numbers, rounded, same_for_any_threads};
use kernels::contrastive::*;
use kernels::{DType, Device, Error, Result};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Loss {
    Clip,
    SigLip,
}

/// One problem: sizes, and values as `dtype` stores them.
#[derive(Clone)]
struct Case {
    loss: Loss,
    p: Contrastive,
    dtype: DType,
    image: Vec<f64>,
    text: Vec<f64>,
    log_scale: f64,
    bias: f64,
}

/// What the kernels write, or should.
#[derive(Default)]
struct Answer {
    loss: f64,
    row_lse: Vec<f64>,
    col_lse: Vec<f64>,
    dimage: Vec<f64>,
    dtext: Vec<f64>,
    dlog_scale: f64,
    dbias: f64,
}

/// Rows of length 1; each text is near one query of its image, so that the loss is neither 0 nor ln n.
fn case(loss: Loss, dtype: DType, n: usize, dim: usize, groups: usize, scale: f64) -> Case {
    let unit = |values: Vec<f64>| -> Vec<f64> {
        let norm = |row: &[f64]| row.iter().map(|v| v * v).sum::<f64>().sqrt();
        values.chunks_exact(dim).flat_map(|row| row.iter().map(|v| v / norm(row)).collect::<Vec<_>>()).collect()
    };
    let image = unit(numbers(n * groups * dim, 3));
    let noise = numbers(n * dim, 4);
    let mixed = (0..n * dim).map(|at| {
        let (row, d) = (at / dim, at % dim);
        image[(row * groups + row % groups) * dim + d] + noise[at] * (dim as f64).powf(-0.5)
    });
    let text = unit(mixed.collect());
    Case {
        loss,
        p: Contrastive { n, dim, groups },
        dtype,
        image: rounded(dtype, &image),
        text: rounded(dtype, &text),
        log_scale: rounded(dtype.accumulator(), &[scale.ln()])[0],
        bias: if scale > 50.0 { -40.0 } else { -3.0 },
    }
}

/// The scale as the type rounds it.
fn scale(c: &Case) -> f64 {
    rounded(c.dtype.accumulator(), &[c.log_scale.exp()])[0]
}

/// (n, n) scores and the best queries.
fn scores(c: &Case) -> (Vec<f64>, Vec<usize>) {
    let Contrastive { n, dim, groups } = c.p;
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let best = |at: usize| {
        let text = &c.text[at % n * dim..][..dim];
        let of = |q: usize| dot(&c.image[(at / n * groups + q) * dim..][..dim], text);
        (1..groups).fold((of(0), 0), |best, q| if of(q) > best.0 { (of(q), q) } else { best })
    };
    (0..n * n).map(best).map(|(s, q)| (s * scale(c), q)).unzip()
}

fn log_sum_exp(z: impl Iterator<Item = f64> + Clone) -> f64 {
    let max = z.clone().fold(f64::NEG_INFINITY, f64::max);
    max + z.map(|z| (z - max).exp()).sum::<f64>().ln()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// ln(1 + eˣ)
fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn reference(c: &Case) -> Answer {
    let Contrastive { n, dim, groups } = c.p;
    let (s, best) = scores(c);
    let mut answer = Answer {
        row_lse: (0..n).map(|i| log_sum_exp((0..n).map(|j| s[i * n + j]))).collect(),
        col_lse: (0..n).map(|j| log_sum_exp((0..n).map(|i| s[i * n + j]))).collect(),
        dimage: vec![0.0; n * groups * dim],
        dtext: vec![0.0; n * dim],
        ..Answer::default()
    };
    for at in 0..n * n {
        let (i, j, own) = (at / n, at % n, if at / n == at % n { 1.0 } else { 0.0 });
        let (t, weight) = (s[at] + c.bias, 1.0 / n as f64);
        let (row, col) = (answer.row_lse[i], answer.col_lse[j]);
        let (loss, ds) = match c.loss {
            Loss::Clip => {
                (own * (row + col - 2.0 * s[at]) / 2.0, ((s[at] - row).exp() + (s[at] - col).exp()) / 2.0 - own)
            }
            Loss::SigLip if own == 1.0 => (softplus(-t), -sigmoid(-t)),
            Loss::SigLip => (softplus(t), sigmoid(t)),
        };
        answer.loss += loss * weight;
        answer.dbias += ds * weight;
        answer.dlog_scale += ds * weight * s[at];
        let (query, factor) = (i * groups + best[at], ds * weight * scale(c));
        for d in 0..dim {
            answer.dimage[query * dim + d] += factor * c.text[j * dim + d];
            answer.dtext[j * dim + d] += factor * c.image[query * dim + d];
        }
    }
    answer
}

/// Outputs: loss, row_lse, col_lse, dimage, dtext, dlog_scale, dbias.
fn run(c: &Case) -> Result<[Array; 7]> {
    let (t, acc, p) = (c.dtype, c.dtype.accumulator(), &c.p);
    let (image, text) = (Array::new(t, &c.image), Array::new(t, &c.text));
    let (log_scale, bias) = (Array::new(acc, &[c.log_scale]), Array::new(acc, &[c.bias]));
    let rows = c.p.n * c.p.groups * c.p.dim;
    let mut out = [(acc, 1), (acc, p.n), (acc, p.n), (t, rows), (t, p.n * p.dim), (acc, 1), (acc, 1)]
        .map(|(dtype, len)| Array::out(dtype, len));
    let [loss, row_lse, col_lse, dimage, dtext, dlog_scale, dbias] = &mut out;
    let f = Features { image: image.view(), text: text.view(), log_scale: log_scale.view() };
    let loss = &mut loss.view_mut();
    let g = Gradients { dimage: dimage.view_mut(), dtext: dtext.view_mut(), dlog_scale: dlog_scale.view_mut() };
    if c.loss == Loss::SigLip {
        siglip_loss(p, f, bias.view(), loss)?;
        siglip_loss_backward(p, f, bias.view(), g, &mut dbias.view_mut())?;
    } else {
        clip_loss(p, f, loss, &mut row_lse.view_mut(), &mut col_lse.view_mut())?;
        clip_loss_backward(p, f, row_lse.view(), col_lse.view(), g)?;
    }
    Ok(out)
}

fn kernel(c: &Case) -> Answer {
    let [loss, row_lse, col_lse, dimage, dtext, dlog_scale, dbias] = run(c).unwrap().map(|array| array.values());
    Answer { loss: loss[0], row_lse, col_lse, dimage, dtext, dlog_scale: dlog_scale[0], dbias: dbias[0] }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |m, v| v.abs().max(m))
}

fn compare(c: &Case) {
    let (found, expected) = (kernel(c), reference(c));
    let what = format!("{:?} {:?} {} scale {:.1}", c.loss, c.p, c.dtype, c.log_scale.exp());
    // A score is rounded to about 2⁻²³ of the scale, which is an absolute error of the logarithm of a probability, and
    // so a relative one of the probability: 1e-5 up to a scale of 25, in proportion above.
    let exact = if c.dtype == DType::F64 { 1e-12 } else { 1e-5 } * (scale(c) / 25.0).max(1.0);
    let near = |name: &str, found: &[f64], expected: &[f64], tolerance, scale| {
        close(&format!("{what}: {name}"), found, expected, tolerance, scale)
    };
    near("loss", &[found.loss], &[expected.loss], exact, 1.0);
    if c.loss == Loss::Clip {
        near("row_lse", &found.row_lse, &expected.row_lse, exact, 1.0);
        near("col_lse", &found.col_lse, &expected.col_lse, exact, 1.0);
    } else {
        near("dbias", &[found.dbias], &[expected.dbias], exact, 1.0);
    }
    near("dlog_scale", &[found.dlog_scale], &[expected.dlog_scale], exact, scale(c));
    // bf16 rounds the scores' gradient (by up to 2⁻⁸) and each of the results once more: 2⁻⁷ of an entry that is one
    // product, and less over a whole array.
    let bf16 = c.dtype == DType::BF16;
    let tolerance = if bf16 { 2f64.powi(-7) } else { exact };
    let gradient = largest(&expected.dimage).max(largest(&expected.dtext)).max(scale(c) / c.p.n as f64 * 1e-2);
    near("dimage", &found.dimage, &expected.dimage, tolerance, gradient);
    near("dtext", &found.dtext, &expected.dtext, tolerance, gradient);
    if bf16 {
        for (found, expected) in [(&found.dimage, &expected.dimage), (&found.dtext, &expected.dtext)] {
            let error: f64 = found.iter().zip(expected).map(|(f, e)| (f - e).powi(2)).sum();
            let norm: f64 = expected.iter().map(|e| e.powi(2)).sum();
            assert!(error.sqrt() <= 5e-3 * norm.sqrt() + 1e-6, "{what}: {} of {}", error.sqrt(), norm.sqrt());
        }
    }
}

/// Instruction sets are chosen globally: only one test loops over them, and no other may compare bits.
#[test]
fn every_instruction_set_is_right_and_repeatable() {
    for_each_isa(|| {
        bits_do_not_depend_on_the_number_of_threads();
        for dtype in common::TYPES {
            for loss in [Loss::Clip, Loss::SigLip] {
                for (n, dim, groups, scale) in [
                    (1, 64, 1, 14.3),
                    (1, 17, 8, 1.0),
                    (7, 96, 1, 100.0),
                    (7, 5, 8, 14.3),
                    (127, 64, 1, 14.3),
                    (129, 64, 8, 14.3),
                    (129, 96, 1, 1.0),
                    (300, 64, 1, 100.0),
                ] {
                    compare(&case(loss, dtype, n, dim, groups, scale));
                }
            }
        }
    });
}

#[test]
fn many_blocks_and_wide_rows() {
    for loss in [Loss::Clip, Loss::SigLip] {
        compare(&case(loss, DType::F32, 1000, 64, 1, 14.3));
        compare(&case(loss, DType::F32, 300, 64, 32, 14.3));
        compare(&case(loss, DType::F32, 127, 512, 8, 100.0));
        compare(&case(loss, DType::BF16, 127, 512, 1, 14.3));
    }
}

#[test]
fn duplicate_rows_share_their_probability() {
    for loss in [Loss::Clip, Loss::SigLip] {
        for groups in [1, 8] {
            let mut c = case(loss, DType::F32, 33, 64, groups, 14.3);
            let (image, text) = (c.image[..groups * 64].to_vec(), c.text[..64].to_vec());
            for copy in [5, 32] {
                c.image[copy * groups * 64..][..groups * 64].copy_from_slice(&image);
                c.text[copy * 64..][..64].copy_from_slice(&text);
            }
            compare(&c);
        }
    }
}

#[test]
fn equal_queries_leave_the_gradient_to_the_first() {
    for loss in [Loss::Clip, Loss::SigLip] {
        let mut c = case(loss, DType::F32, 33, 64, 8, 14.3);
        for image in c.image.chunks_exact_mut(8 * 64) {
            let first = image[..64].to_vec();
            image.chunks_exact_mut(64).for_each(|query| query.copy_from_slice(&first));
        }
        compare(&c);
        for queries in kernel(&c).dimage.chunks_exact(8 * 64) {
            assert!(queries[..64].iter().any(|&d| d != 0.0) && queries[64..].iter().all(|&d| d == 0.0));
        }
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    // Central differences: the error is the third derivative times step², and rounding over step.
    let step = 1e-5;
    for (loss, groups) in [(Loss::Clip, 1), (Loss::Clip, 3), (Loss::SigLip, 1), (Loss::SigLip, 3)] {
        let c = case(loss, DType::F64, 6, 5, groups, 4.0);
        let answer = kernel(&c);
        let losses: [&dyn Fn(&Case) -> f64; 2] = [&|c| reference(c).loss, &|c| kernel(c).loss];
        for loss in losses {
            let slope = |change: &dyn Fn(&mut Case, f64)| {
                let moved = |by: f64| {
                    let mut c = c.clone();
                    change(&mut c, by);
                    loss(&c)
                };
                (moved(step) - moved(-step)) / (2.0 * step)
            };
            let dimage: Vec<f64> = (0..c.image.len()).map(|i| slope(&|c, by| c.image[i] += by)).collect();
            let dtext: Vec<f64> = (0..c.text.len()).map(|i| slope(&|c, by| c.text[i] += by)).collect();
            close("dimage", &answer.dimage, &dimage, 1e-8, 1.0);
            close("dtext", &answer.dtext, &dtext, 1e-8, 1.0);
            close("dlog_scale", &[answer.dlog_scale], &[slope(&|c, by| c.log_scale += by)], 1e-8, 1.0);
            if c.loss == Loss::SigLip {
                close("dbias", &[answer.dbias], &[slope(&|c, by| c.bias += by)], 1e-8, 1.0);
            }
        }
    }
}

fn bits_do_not_depend_on_the_number_of_threads() {
    for loss in [Loss::Clip, Loss::SigLip] {
        for groups in [1, 8] {
            for dtype in common::TYPES {
                let c = case(loss, dtype, 300, 96, groups, 14.3);
                same_for_any_threads(&format!("{loss:?}"), || {
                    run(&c).unwrap().iter().flat_map(|array| array.bytes().to_vec()).collect()
                });
            }
        }
    }
}

#[test]
fn a_broken_row_shows_in_the_loss() {
    for loss in [Loss::Clip, Loss::SigLip] {
        for dtype in common::TYPES {
            let c = case(loss, dtype, 33, 64, 4, 14.3);
            let (mut image, mut text) = (c.clone(), c);
            image.image[(7 * 4 + 2) * 64] = f64::NAN;
            text.text[9 * 64] = f64::NAN;
            assert!(kernel(&image).loss.is_nan() && kernel(&text).loss.is_nan(), "{loss:?} {dtype}");
        }
    }
}

#[test]
fn wrong_arguments_are_errors() {
    for loss in [Loss::Clip, Loss::SigLip] {
        let good = case(loss, DType::F32, 7, 64, 1, 1.0);
        let mut c = good.clone();
        c.text.pop();
        assert!(matches!(run(&c), Err(Error::Length { what: "text", .. })));
        let mut c = good.clone();
        (c.p.n, c.image, c.text) = (0, vec![], vec![]);
        assert!(matches!(run(&c), Err(Error::Value { .. })));
    }
}

#[test]
fn the_trace_device_takes_no_memory() {
    let (device, n, dim) = (Device::trace(), 1 << 22, 1024);
    let on = |dtype, len| Array::on(&device, dtype, len);
    let p = Contrastive { n, dim, groups: 1 };
    let (image, text, scale) = (on(DType::BF16, n * dim), on(DType::BF16, n * dim), on(DType::F32, 1));
    let (mut loss, mut rows, mut cols) = (on(DType::F32, 1), on(DType::F32, n), on(DType::F32, n));
    let (loss, rows, cols) = (&mut loss.view_mut(), &mut rows.view_mut(), &mut cols.view_mut());
    clip_loss(&p, Features { image: image.view(), text: text.view(), log_scale: scale.view() }, loss, rows, cols)
        .unwrap();
}
