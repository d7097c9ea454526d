//! Kernels that move memory: bytes read and written per second, beside plain copies as the ceiling.

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::copy::{Blocks, copy_blocks};
use kernels::dropout::dropout;
use kernels::elementwise::{add, fill};
use kernels::embedding::{embedding, embedding_backward};
use kernels::norm::{layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use kernels::optimizer::{AdamW, adamw, sum_squares};
use kernels::{Buffer, DType, Device, View, ViewMut};
use std::hint::black_box;
use std::time::Duration;

/// Tokens of a batch, width of the model, size of the vocabulary.
const ROWS: usize = 8192;
const DIM: usize = 768;
const VOCAB: usize = 8000;

/// A buffer with its elements' type and number.
struct Array {
    buffer: Buffer,
    dtype: DType,
    len: usize,
}

impl Array {
    fn new(dtype: DType, len: usize) -> Array {
        let buffer = Device::cpu()
            .allocate(len * dtype.size())
            .expect("the bench fits in memory");
        let mut array = Array { buffer, dtype, len };
        if dtype != DType::I32 {
            fill(&mut array.view_mut(), 0.5).expect("a floating-point type");
        }
        array
    }

    fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, 0, self.len)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, 0, self.len)
    }
}

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
        black_box(&mut y).buffer.bytes_mut()[..n * size].copy_from_slice(&black_box(&x).buffer.bytes()[..n * size]);
    });
    let blocks = Blocks {
        outer: 1,
        block: n,
        src_stride: 0,
        src_offset: 0,
        dst_stride: 0,
        dst_offset: 0,
    };
    measure(group, "copy", dtype, 2 * n * size, || {
        copy_blocks(blocks, x.view(), &mut y.view_mut(), false).unwrap()
    });
}

fn elementwise(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let n = ROWS * DIM;
    let (x, y, mut out) = (Array::new(dtype, n), Array::new(dtype, n), Array::new(dtype, n));
    let bytes = n * dtype.size();
    measure(group, "add", dtype, 3 * bytes, || {
        add(x.view(), y.view(), &mut out.view_mut()).unwrap()
    });
    measure(group, "dropout", dtype, 2 * bytes, || {
        dropout(x.view(), &mut out.view_mut(), 0.1, 1).unwrap()
    });
    let mut sum = Array::new(DType::F64, 1);
    measure(group, "sum_squares", dtype, bytes, || {
        sum_squares(x.view(), &mut sum.view_mut()).unwrap()
    });
}

fn norms(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let (n, acc) = (ROWS * DIM, dtype.accumulator());
    let (x, w, b) = (Array::new(dtype, n), Array::new(dtype, DIM), Array::new(dtype, DIM));
    let (mut y, dy, mut dx) = (Array::new(dtype, n), Array::new(dtype, n), Array::new(dtype, n));
    let (mut mean, mut rstd) = (Array::new(acc, ROWS), Array::new(acc, ROWS));
    let (mut dw, mut db) = (Array::new(acc, DIM), Array::new(acc, DIM));
    let bytes = n * dtype.size();
    measure(group, "layer_norm", dtype, 2 * bytes, || {
        let (y, mean, rstd) = (&mut y.view_mut(), &mut mean.view_mut(), &mut rstd.view_mut());
        layer_norm(x.view(), w.view(), b.view(), y, mean, rstd, 1e-5).unwrap();
    });
    measure(group, "layer_norm_backward", dtype, 3 * bytes, || {
        let (dx, dw, db) = (&mut dx.view_mut(), &mut dw.view_mut(), &mut db.view_mut());
        layer_norm_backward(x.view(), w.view(), mean.view(), rstd.view(), dy.view(), dx, dw, db).unwrap();
    });
    measure(group, "rms_norm", dtype, 2 * bytes, || {
        rms_norm(x.view(), w.view(), &mut y.view_mut(), &mut rstd.view_mut(), 1e-5).unwrap();
    });
    measure(group, "rms_norm_backward", dtype, 3 * bytes, || {
        let (dx, dw) = (&mut dx.view_mut(), &mut dw.view_mut());
        rms_norm_backward(x.view(), w.view(), rstd.view(), dy.view(), dx, dw).unwrap();
    });
}

fn embeddings(group: &mut BenchmarkGroup<'_, WallTime>, dtype: DType) {
    let (table, mut out) = (Array::new(dtype, VOCAB * DIM), Array::new(dtype, ROWS * DIM));
    let mut dtable = Array::new(dtype.accumulator(), VOCAB * DIM);
    let mut ids = Array::new(DType::I32, ROWS);
    for (i, id) in ids.view_mut().slice_mut::<i32>().iter_mut().enumerate() {
        *id = (i * 7919 % VOCAB) as i32;
    }
    let bytes = ROWS * DIM * dtype.size();
    measure(group, "embedding", dtype, 2 * bytes, || {
        embedding(table.view(), ids.view(), &mut out.view_mut(), VOCAB, DIM).unwrap();
    });
    // The gradient of the table is zeroed, then read and written where ids point.
    let dtable_bytes = (VOCAB + 2 * ROWS) * DIM * dtype.accumulator().size();
    measure(group, "embedding_backward", dtype, bytes + dtable_bytes, || {
        embedding_backward(ids.view(), out.view(), &mut dtable.view_mut(), VOCAB, DIM).unwrap();
    });
}

fn optimizer(group: &mut BenchmarkGroup<'_, WallTime>) {
    let n = ROWS * DIM;
    let array = || Array::new(DType::F32, n);
    let (mut w, g, mut m, mut v, mut low) = (array(), array(), array(), array(), Array::new(DType::BF16, n));
    let p = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        step: 10,
        grad_scale: 1.0,
    };
    measure(group, "adamw", DType::F32, 7 * 4 * n, || {
        adamw(
            &p,
            &mut w.view_mut(),
            g.view(),
            &mut m.view_mut(),
            &mut v.view_mut(),
            None,
        )
        .unwrap();
    });
    measure(group, "adamw_with_bf16_copy", DType::F32, (7 * 4 + 2) * n, || {
        let low = Some(&mut low.view_mut());
        adamw(
            &p,
            &mut w.view_mut(),
            g.view(),
            &mut m.view_mut(),
            &mut v.view_mut(),
            low,
        )
        .unwrap();
    });
}

fn memory_bound(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory_bound");
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    for dtype in [DType::F32, DType::BF16] {
        copies(&mut group, dtype);
        elementwise(&mut group, dtype);
        norms(&mut group, dtype);
        embeddings(&mut group, dtype);
    }
    optimizer(&mut group);
    group.finish();
}

criterion_group!(benches, memory_bound);
criterion_main!(benches);
