//! The losses beside the bare products they cannot do without, by the `gemm` crate over the whole matrix: 3 for linear +
//! cross-entropy, 4 for a contrastive loss and its gradient. What is left is the price of the softmax passes, or the gain
//! of not writing the matrix.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use kernels::DType;
use kernels::contrastive::{
    Contrastive, Features, Gradients, clip_loss, clip_loss_backward, siglip_loss, siglip_loss_backward,
};
use kernels::loss::{CrossEntropy, Outputs, linear_cross_entropy};
use lenslet_benches::Array;
use std::time::Duration;

/// `c = a·b` with strides (row, column), on all cores.
fn product(m: usize, n: usize, k: usize, c: &mut [f32], a: (&[f32], isize, isize), b: (&[f32], isize, isize)) {
    assert!(c.len() >= m * n && a.0.len() >= m * k && b.0.len() >= k * n);
    let threads = gemm::Parallelism::Rayon(0);
    let (c, a_len, b_len) = (c.as_mut_ptr(), (a.1, a.2), (b.1, b.2));
    // SAFETY: the slices hold the matrices, as just asserted, and the strides of the callers stay inside them.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            n as isize,
            false,
            a.0.as_ptr(),
            a_len.1,
            a_len.0,
            b.0.as_ptr(),
            b_len.1,
            b_len.0,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
}

/// Scores (m, n), and the gradients of both sides from them.
fn bare_products(id: BenchmarkId, c: &mut Criterion, scores: usize, m: usize, n: usize, dim: usize) {
    let (mut a, mut b) = (vec![0.5f32; m * dim], vec![0.25f32; n * dim]);
    let mut s = vec![0.0f32; m * n];
    let (row, one) = (dim as isize, 1);
    group(c).bench_function(id, |bench| {
        bench.iter(|| {
            for _ in 0..scores {
                product(m, n, dim, &mut s, (&a, row, one), (&b, one, row));
            }
            product(m, dim, n, &mut a, (&s, n as isize, one), (&b, row, one));
            product(n, dim, m, &mut b, (&s, one, n as isize), (&a, row, one));
            a.fill(0.5);
            b.fill(0.25);
        })
    });
}

fn group(c: &mut Criterion) -> criterion::BenchmarkGroup<'_, criterion::measurement::WallTime> {
    let mut group = c.benchmark_group("losses");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    group
}

fn cross_entropy(c: &mut Criterion) {
    for (rows, dim, vocab) in [(512, 64, 64), (6000, 128, 512), (2048, 256, 2000), (512, 512, 32000)] {
        for t in [DType::F32, DType::BF16] {
            let p = CrossEntropy { rows, dim, vocab, ignore_index: -100 };
            let (x, w) = (Array::random(t, rows * dim, 1.0), Array::random(t, vocab * dim, 1.0));
            let targets = Array::integers((0..rows).map(|row| (row * 7919 % vocab) as i32));
            let (mut loss, mut losses) = (Array::new(DType::F32, 1), Array::new(DType::F32, rows));
            let mut predictions = Array::new(DType::I32, rows);
            let (mut dx, mut dw) = (Array::new(t, rows * dim), Array::new(DType::F32, vocab * dim));
            group(c).bench_function(
                BenchmarkId::new(format!("cross_entropy_{t}"), format!("{rows}x{dim}x{vocab}")),
                |b| {
                    b.iter(|| {
                        let out = Outputs {
                            loss: loss.view_mut(),
                            losses: losses.view_mut(),
                            predictions: predictions.view_mut(),
                            dx: Some(dx.view_mut()),
                            dw: Some(dw.view_mut()),
                        };
                        linear_cross_entropy(&p, x.view(), w.view(), targets.view(), out).expect("the sizes fit")
                    })
                },
            );
        }
        bare_products(BenchmarkId::new("three_products", format!("{rows}x{dim}x{vocab}")), c, 1, rows, vocab, dim);
    }
}

fn contrastive(c: &mut Criterion) {
    for (n, dim, groups) in [(64, 256, 1), (512, 512, 1), (4096, 256, 1), (128, 256, 32)] {
        for t in [DType::F32, DType::BF16] {
            for siglip in [false, true] {
                one_contrastive(c, &Contrastive { n, dim, groups }, t, siglip);
            }
        }
        bare_products(BenchmarkId::new("four_products", format!("{n}x{dim}x{groups}")), c, 2, n * groups, n, dim);
    }
}

fn one_contrastive(c: &mut Criterion, p: &Contrastive, t: DType, siglip: bool) {
    let (n, rows) = (p.n, p.n * p.groups);
    let size = (3.0 / p.dim as f32).sqrt();
    let (image, text) = (Array::random(t, rows * p.dim, size), Array::random(t, n * p.dim, size));
    let (scale, bias) = (Array::random(DType::F32, 1, 1.0), Array::random(DType::F32, 1, 1.0));
    let [mut loss, mut dscale, mut dbias] = [1, 1, 1].map(|len| Array::new(DType::F32, len));
    let [mut row_lse, mut col_lse] = [n, n].map(|len| Array::new(DType::F32, len));
    let (mut dimage, mut dtext) = (Array::new(t, rows * p.dim), Array::new(t, n * p.dim));
    let name = format!("{}_{t}", if siglip { "siglip" } else { "clip" });
    group(c).bench_function(BenchmarkId::new(name, format!("{n}x{}x{}", p.dim, p.groups)), |b| {
        b.iter(|| {
            let f = Features { image: image.view(), text: text.view(), log_scale: scale.view() };
            let g = Gradients { dimage: dimage.view_mut(), dtext: dtext.view_mut(), dlog_scale: dscale.view_mut() };
            let (loss, bias) = (&mut loss.view_mut(), bias.view());
            let done = if siglip {
                siglip_loss(p, f, bias, loss).and_then(|()| siglip_loss_backward(p, f, bias, g, &mut dbias.view_mut()))
            } else {
                clip_loss(p, f, loss, &mut row_lse.view_mut(), &mut col_lse.view_mut())
                    .and_then(|()| clip_loss_backward(p, f, row_lse.view(), col_lse.view(), g))
            };
            done.expect("the sizes fit")
        })
    });
}

criterion_group!(benches, cross_entropy, contrastive);
criterion_main!(benches);
