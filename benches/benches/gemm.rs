//! Matrix products in singles and bf16 beside the `gemm` crate in singles, on squares and on the shapes of training
//! steps, with one thread and with two. Each shape's three candidates run one after another, so compare within a shape.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::bf16;
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use kernels::{Buffer, DType, Device, View, ViewMut};
use std::time::Duration;

/// Rows, output and input width of linear layers: forward Nt, input gradient Nn, weight gradient Tn. Of `bench step`: S's
/// encoder and decoder, M's encoder, L's encoder, decoder, Q-Former and head; then narrow ones.
const LINEAR: [(usize, usize, usize); 10] = [
    (2080, 512, 128),
    (2080, 128, 128),
    (1280, 344, 128),
    (2320, 1024, 256),
    (197, 3072, 768),
    (160, 1536, 576),
    (32, 768, 768),
    (127, 49152, 576),
    (4000, 96, 384),
    (1000, 64, 64),
];

fn shapes() -> Vec<Gemm> {
    let squares = [256, 1024, 2048];
    let all = [Layout::Nn, Layout::Nt, Layout::Tn];
    let squares = squares.iter().flat_map(|&n| all.map(|layout| Gemm::new(layout, n, n, n)));
    let linear = LINEAR.iter().flat_map(|&(rows, output, input)| {
        [
            Gemm::new(Layout::Nt, rows, output, input),
            Gemm::new(Layout::Nn, rows, input, output),
            Gemm::new(Layout::Tn, output, input, rows),
        ]
    });
    squares.chain(linear).collect()
}

/// A buffer of numbers in -1..1.
fn random(dtype: DType, len: usize) -> Buffer {
    let mut buffer = Device::cpu().allocate(len * dtype.size()).expect("memory for a bench");
    let mut view = ViewMut::new(&mut buffer, dtype, 0, len);
    let mut state = len as u64 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    if dtype == DType::F32 {
        view.slice_mut::<f32>().iter_mut().for_each(|x| *x = next());
    } else {
        view.slice_mut::<bf16>().iter_mut().for_each(|x| *x = bf16::from_f32(next()));
    }
    buffer
}

fn ours(p: Gemm, dtype: DType, a: &Buffer, b: &Buffer, c: &mut Buffer) {
    let view = |buffer, len| View::new(buffer, dtype, 0, len);
    let mut c = ViewMut::new(c, dtype, 0, p.m * p.n);
    gemm(p, view(a, p.m * p.k), view(b, p.k * p.n), &mut c, Epilogue::default()).expect("matching lengths");
}

fn theirs(p: Gemm, threads: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    let (m, n, k) = (p.m as isize, p.n as isize, p.k as isize);
    let (a_col, a_row) = if p.layout == Layout::Tn { (m, 1) } else { (1, k) };
    let (b_col, b_row) = if p.layout == Layout::Nt { (k, 1) } else { (1, n) };
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        _ => gemm::Parallelism::Rayon(threads),
    };
    let (a, b, c) = (a.as_ptr(), b.as_ptr(), c.as_mut_ptr());
    // SAFETY: the slices hold whole matrices with the strides given.
    unsafe {
        gemm::gemm(
            p.m,
            p.n,
            p.k,
            c,
            1,
            n,
            false,
            a,
            a_col,
            a_row,
            b,
            b_col,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

fn bench(criterion: &mut Criterion) {
    for threads in [1, 2] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
        for p in shapes() {
            let mut group = criterion.benchmark_group(format!("gemm/{threads} threads"));
            group.throughput(Throughput::Elements(2 * (p.m * p.n * p.k) as u64));
            let id = |what: &str| BenchmarkId::new(format!("{:?} {}x{}x{}", p.layout, p.m, p.n, p.k), what);
            for dtype in [DType::F32, DType::BF16] {
                let [a, b, mut c] = [p.m * p.k, p.k * p.n, p.m * p.n].map(|len| random(dtype, len));
                group.bench_function(id(dtype.name()), |bencher| {
                    pool.install(|| bencher.iter(|| ours(p, dtype, &a, &b, &mut c)));
                });
            }
            let [a, b] = [p.m * p.k, p.k * p.n].map(|len| random(DType::F32, len));
            let slice = |buffer, len| View::new(buffer, DType::F32, 0, len).slice::<f32>().to_vec();
            let (a, b, mut c) = (slice(&a, p.m * p.k), slice(&b, p.k * p.n), vec![0.0; p.m * p.n]);
            group.bench_function(id("gemm crate"), |bencher| {
                pool.install(|| bencher.iter(|| theirs(p, threads, &a, &b, &mut c)));
            });
            group.finish();
        }
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(500));
    targets = bench
}
criterion_main!(benches);
