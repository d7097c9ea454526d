//! Patch embedding, forward and backward, beside its products alone on patches already cut: what is left is the price of
//! cutting and of adding up. Elements per second are floating-point operations per second of the products.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::DType;
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use kernels::patch::{Patches, fold, unfold};
use lenslet_benches::Array;
use std::time::Duration;

/// Images, their side, a patch's side and margin, and the width of a token: a small encoder with overlapping windows,
/// ViT-B/16 and ViT-L/14.
const SHAPES: [(usize, usize, usize, usize, usize); 3] =
    [(32, 48, 6, 3, 128), (8, 224, 16, 0, 768), (4, 224, 14, 0, 1024)];

/// The arrays of one patch embedding, and its product.
struct Embedding {
    cut: Patches,
    product: Gemm,
    image: Array,
    patches: Array,
    w: Array,
    b: Array,
    y: Array,
    dw: Array,
}

impl Embedding {
    fn new((batch, side, patch, margin, dim): (usize, usize, usize, usize, usize), dtype: DType) -> Embedding {
        let cut = Patches { batch, channels: 3, height: side, width: side, patch, margin };
        let (rows, inputs) = (batch * (side / patch) * (side / patch), 3 * cut.window() * cut.window());
        Embedding {
            cut,
            product: Gemm::new(Layout::Nt, rows, dim, inputs),
            image: Array::random(dtype, batch * 3 * side * side, 1.0),
            patches: Array::random(dtype, rows * inputs, 1.0),
            w: Array::random(dtype, dim * inputs, 1.0),
            b: Array::random(dtype, dim, 1.0),
            y: Array::random(dtype, rows * dim, 1.0),
            dw: Array::new(dtype.accumulator(), dim * inputs),
        }
    }

    fn project(&mut self) {
        let epilogue = Epilogue { bias: Some(self.b.view()), ..Epilogue::default() };
        let (patches, w, y) = (self.patches.view(), self.w.view(), &mut self.y.view_mut());
        gemm(self.product, patches, w, y, epilogue).expect("the sizes fit");
    }

    fn forward(&mut self) {
        unfold(self.cut, self.image.view(), &mut self.patches.view_mut()).expect("the sizes fit");
        self.project();
    }

    /// The gradients of the weights and of the patches, the result standing in for its gradient.
    fn differentiate(&mut self) {
        let Gemm { m, n, k, .. } = self.product;
        let (dy, none) = (self.y.view(), Epilogue::default());
        let dw = Gemm::new(Layout::Tn, n, k, m);
        gemm(dw, dy, self.patches.view(), &mut self.dw.view_mut(), none).expect("the sizes fit");
        let (dpatches, none) = (Gemm::new(Layout::Nn, m, k, n), Epilogue::default());
        gemm(dpatches, dy, self.w.view(), &mut self.patches.view_mut(), none).expect("the sizes fit");
    }

    fn backward(&mut self) {
        self.differentiate();
        fold(self.cut, self.patches.view(), &mut self.image.view_mut()).expect("the sizes fit");
    }
}

/// Its name, floating-point operations per multiplication of the forward product, and what to run.
type Step = (&'static str, u64, fn(&mut Embedding));

fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("patch_embedding");
    let steps: [Step; 4] = [
        ("forward", 2, Embedding::forward),
        ("forward, product alone", 2, Embedding::project),
        ("backward", 4, Embedding::backward),
        ("backward, products alone", 4, Embedding::differentiate),
    ];
    for shape in SHAPES {
        for dtype in [DType::F32, DType::BF16] {
            let (batch, side, patch, margin, dim) = shape;
            let name = format!("{dtype} {batch}x3x{side}x{side} by {patch}+{margin} to {dim}");
            let mut embedding = Embedding::new(shape, dtype);
            let Gemm { m, n, k, .. } = embedding.product;
            for (step, flops, run) in steps {
                group.throughput(Throughput::Elements(flops * (m * n * k) as u64));
                group.bench_function(BenchmarkId::new(step, &name), |b| b.iter(|| run(&mut embedding)));
            }
        }
    }
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = bench
}
criterion_main!(benches);
