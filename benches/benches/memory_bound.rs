//! Kernels that move memory: bytes read and written per second, beside plain copies as the ceiling.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::DType;
use kernels::activation::{Activation, activate, activate_backward, silu_mul, silu_mul_backward};
use kernels::copy::{Blocks, copy_blocks};
use kernels::dropout::dropout;
use kernels::elementwise::{add, axpy, cast, mul, scale};
use kernels::embedding::{embedding, embedding_backward};
use kernels::norm::{LayerNorm, LayerNormBackward, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use kernels::norm::{l2_normalize, l2_normalize_backward};
use kernels::optimizer::{AdamW, Segment, State, adamw, sum_squares};
use kernels::patch::{Patches, fold, unfold};
use kernels::reduce::{broadcast_axis, sum_axis};
use kernels::rotary::rotary;
use lenslet_benches::Array;
use std::hint::black_box;
use std::time::Duration;

/// Tokens of a batch, width of the model, size of the vocabulary.
const ROWS: usize = 8192;
const DIM: usize = 768;
const VOCAB: usize = 8000;

/// One measurement of `f`, which moves `bytes`.
fn measure(group: &mut BenchmarkGroup<'_, WallTime>, name: &str, dtype: DType, bytes: usize, mut f: impl FnMut()) {
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(BenchmarkId::new(name, dtype), |b| b.iter(&mut f));
}

fn copies(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let n = ROWS * DIM;
    let (x, mut y) = (Array::new(dtype, n), Array::new(dtype, n));
    let size = dtype.size();
    measure(group, "copy_one_thread", dtype, 2 * n * size, || {
        black_box(&mut y).bytes_mut().copy_from_slice(black_box(&x).bytes());
    });
    let blocks = Blocks { outer: 1, block: n, ..Blocks::default() };
    measure(group, "copy", dtype, 2 * n * size, || copy_blocks(blocks, x.view(), &mut y.view_mut(), false).unwrap());
}

fn elementwise(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let n = ROWS * DIM;
    let (x, y, mut out) = (Array::new(dtype, n), Array::new(dtype, n), Array::new(dtype, n));
    let bytes = n * dtype.size();
    measure(group, "add", dtype, 3 * bytes, || add(x.view(), y.view(), &mut out.view_mut()).unwrap());
    measure(group, "mul", dtype, 3 * bytes, || mul(x.view(), y.view(), &mut out.view_mut()).unwrap());
    measure(group, "scale", dtype, 2 * bytes, || scale(x.view(), &mut out.view_mut(), 0.5).unwrap());
    measure(group, "axpy", dtype, 3 * bytes, || axpy(x.view(), &mut out.view_mut(), 1e-3).unwrap());
    measure(group, "dropout", dtype, 2 * bytes, || dropout(x.view(), &mut out.view_mut(), 0.1, 1).unwrap());
    let other = if dtype == DType::F32 { DType::BF16 } else { DType::F32 };
    let mut converted = Array::new(other, n);
    measure(group, "cast", dtype, bytes + n * other.size(), || cast(x.view(), &mut converted.view_mut()).unwrap());
    let mut sum = Array::new(DType::F64, 1);
    measure(group, "sum_squares", dtype, bytes, || sum_squares(x.view(), &mut sum.view_mut()).unwrap());
}

fn norms(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let (n, acc) = (ROWS * DIM, dtype.accumulator());
    let (x, w, b) = (Array::new(dtype, n), Array::new(dtype, DIM), Array::new(dtype, DIM));
    let (mut y, dy, mut dx) = (Array::new(dtype, n), Array::new(dtype, n), Array::new(dtype, n));
    let (mut mean, mut rstd) = (Array::new(acc, ROWS), Array::new(acc, ROWS));
    let (mut dw, mut db) = (Array::new(acc, DIM), Array::new(acc, DIM));
    let bytes = n * dtype.size();
    measure(group, "layer_norm", dtype, 2 * bytes, || {
        let (y, mean, rstd) = (y.view_mut(), mean.view_mut(), rstd.view_mut());
        layer_norm(LayerNorm { x: x.view(), w: w.view(), b: b.view(), y, mean, rstd, eps: 1e-5 }).unwrap();
    });
    measure(group, "layer_norm_backward", dtype, 3 * bytes, || {
        let (x, w, mean, rstd, dy) = (x.view(), w.view(), mean.view(), rstd.view(), dy.view());
        let (dx, dw, db) = (dx.view_mut(), dw.view_mut(), db.view_mut());
        layer_norm_backward(LayerNormBackward { x, w, mean, rstd, dy, dx, dw, db }).unwrap();
    });
    measure(group, "rms_norm", dtype, 2 * bytes, || {
        rms_norm(x.view(), w.view(), &mut y.view_mut(), &mut rstd.view_mut(), 1e-5).unwrap();
    });
    measure(group, "rms_norm_backward", dtype, 3 * bytes, || {
        let (dx, dw) = (&mut dx.view_mut(), &mut dw.view_mut());
        rms_norm_backward(x.view(), w.view(), rstd.view(), dy.view(), dx, dw).unwrap();
    });
    measure(group, "l2_normalize", dtype, 2 * bytes, || {
        l2_normalize(x.view(), &mut y.view_mut(), &mut rstd.view_mut(), DIM, 1e-12).unwrap();
    });
    measure(group, "l2_normalize_backward", dtype, 3 * bytes, || {
        l2_normalize_backward(y.view(), rstd.view(), dy.view(), &mut dx.view_mut(), DIM).unwrap();
    });
}

/// Each non-linearity and its derivative, and the gate.
fn activations(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let n = ROWS * DIM;
    let (x, up, dy) = (Array::new(dtype, n), Array::new(dtype, n), Array::new(dtype, n));
    let (mut y, mut dup) = (Array::new(dtype, n), Array::new(dtype, n));
    let bytes = n * dtype.size();
    for (name, act) in [
        ("gelu", Activation::Gelu),
        ("gelu_tanh", Activation::GeluTanh),
        ("quick_gelu", Activation::QuickGelu),
        ("silu", Activation::Silu),
    ] {
        measure(group, name, dtype, 2 * bytes, || activate(x.view(), &mut y.view_mut(), act).unwrap());
        measure(group, &format!("{name}_backward"), dtype, 3 * bytes, || {
            activate_backward(x.view(), dy.view(), &mut y.view_mut(), act).unwrap()
        });
    }
    measure(group, "silu_mul", dtype, 3 * bytes, || silu_mul(x.view(), up.view(), &mut y.view_mut()).unwrap());
    measure(group, "silu_mul_backward", dtype, 5 * bytes, || {
        let (dx, dup) = (&mut y.view_mut(), &mut dup.view_mut());
        silu_mul_backward(x.view(), up.view(), dy.view(), dx, dup).unwrap()
    });
}

fn rotations(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    const HEAD: usize = 64;
    const LENGTH: usize = 512;
    let n = ROWS * DIM;
    let (x, mut y) = (Array::new(dtype, n), Array::new(dtype, n));
    let inv_freq = Array::new(dtype.accumulator(), HEAD / 2);
    let mut turn = |name: &str, positions: &Array, inverse: bool| {
        measure(group, name, dtype, 2 * n * dtype.size(), || {
            let (inv_freq, y) = (inv_freq.view(), &mut y.view_mut());
            rotary(x.view(), positions.view(), inv_freq, y, DIM / HEAD, inverse).unwrap()
        });
    };
    let dense = Array::integers((0..ROWS).map(|i| (i % LENGTH) as i32));
    turn("rotary", &dense, false);
    turn("rotary_backward", &dense, true);
    // Positions too far apart to share a table of angles.
    let sparse = Array::integers((0..ROWS).map(|i| 2 * i as i32));
    turn("rotary_sparse", &sparse, false);
}

/// The gradients of a bias and of repeated queries: sums down columns and along rows, and their derivatives.
fn reductions(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let mut x = Array::new(dtype, ROWS * DIM);
    let bytes = ROWS * DIM * dtype.size();
    for (name, [outer, axis, inner]) in [("columns", [1, ROWS, DIM]), ("rows", [ROWS, DIM, 1])] {
        let mut sums = Array::new(dtype.accumulator(), outer * inner);
        measure(group, &format!("sum_axis_{name}"), dtype, bytes, || {
            sum_axis(x.view(), &mut sums.view_mut(), outer, axis, inner, 1.0).unwrap()
        });
        measure(group, &format!("broadcast_axis_{name}"), dtype, bytes, || {
            broadcast_axis(sums.view(), &mut x.view_mut(), outer, axis, inner, 1.0).unwrap()
        });
    }
}

/// Cutting images into patches and adding patches up to images, with windows that tile and windows that overlap.
fn patches(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    for (name, margin) in [("", 0), ("_overlapping", 8)] {
        let cut = Patches { batch: 32, channels: 3, height: 224, width: 224, patch: 16, margin };
        let pixels = cut.batch * cut.channels * cut.height * cut.width;
        let cut_pixels = pixels / (cut.patch * cut.patch) * cut.window() * cut.window();
        let (mut image, mut patches) = (Array::new(dtype, pixels), Array::new(dtype, cut_pixels));
        let bytes = (pixels + cut_pixels) * dtype.size();
        measure(group, &format!("unfold{name}"), dtype, bytes, || {
            unfold(cut, image.view(), &mut patches.view_mut()).unwrap()
        });
        measure(group, &format!("fold{name}"), dtype, bytes, || {
            fold(cut, patches.view(), &mut image.view_mut()).unwrap()
        });
    }
}

fn embeddings(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let (table, mut out) = (Array::new(dtype, VOCAB * DIM), Array::new(dtype, ROWS * DIM));
    let mut dtable = Array::new(dtype.accumulator(), VOCAB * DIM);
    let ids = Array::integers((0..ROWS).map(|i| (i * 7919 % VOCAB) as i32));
    let bytes = ROWS * DIM * dtype.size();
    measure(group, "embedding", dtype, 2 * bytes, || {
        embedding(table.view(), ids.view(), &mut out.view_mut(), VOCAB, DIM).unwrap();
    });
    // The gradient of the table is zeroed, then read and written where ids point.
    let dtable_bytes = (VOCAB + 2 * ROWS) * DIM * dtype.accumulator().size();
    measure(group, "embedding_backward", dtype, bytes + dtable_bytes, || {
        embedding_backward(ids.view(), out.view(), &mut dtable.view_mut(), VOCAB, DIM, false).unwrap();
    });
}

fn optimizer(group: &mut BenchmarkGroup<'_, WallTime>) {
    let n = ROWS * DIM;
    let array = || Array::new(DType::F32, n);
    let (mut w, g, mut m, mut v, mut low) = (array(), array(), array(), array(), Array::new(DType::BF16, n));
    let p = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, step: 10, stochastic: None };
    let all = Segment { range: 0..n, lr: 1e-4, weight_decay: 0.1 };
    let all = std::slice::from_ref(&all);
    measure(group, "adamw", DType::F32, 7 * 4 * n, || {
        let (weights, m, v) = (w.view_mut(), m.view_mut(), v.view_mut());
        adamw(&p, all, State { weights, grads: g.view(), m, v, low: None }, None).unwrap();
    });
    measure(group, "adamw_with_bf16_copy", DType::F32, (7 * 4 + 2) * n, || {
        let (weights, m, v) = (w.view_mut(), m.view_mut(), v.view_mut());
        adamw(&p, all, State { weights, grads: g.view(), m, v, low: Some(low.view_mut()) }, None).unwrap();
    });
}

fn memory_bound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory_bound");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    for dtype in [DType::F32, DType::BF16] {
        copies(&mut group, dtype);
        elementwise(&mut group, dtype);
        norms(&mut group, dtype);
        activations(&mut group, dtype);
        rotations(&mut group, dtype);
        reductions(&mut group, dtype);
        patches(&mut group, dtype);
        embeddings(&mut group, dtype);
    }
    optimizer(&mut group);
    group.finish();
}

criterion_group!(benches, memory_bound);
criterion_main!(benches);
