//! Products of every layout, type, epilogue and instruction set against a plain triple loop in doubles.

use half::bf16;

use kernels::activation::Activation;
use kernels::cpu::simd::{Isa, isa, set_isa};
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use kernels::{Buffer, DType, Device, Error, View, ViewMut};

const LAYOUTS: [Layout; 3] = [Layout::Nn, Layout::Nt, Layout::Tn];

/// Numbers that fill a buffer, kept in doubles too.
struct Array {
    buffer: Buffer,
    dtype: DType,
    exact: Vec<f64>,
}

impl Array {
    fn new(dtype: DType, exact: &[f64]) -> Array {
        let mut buffer = Device::cpu().allocate(exact.len() * dtype.size()).unwrap();
        let mut view = ViewMut::new(&mut buffer, dtype, 0, exact.len());
        match dtype {
            DType::F64 => view.slice_mut::<f64>().copy_from_slice(exact),
            DType::F32 => view.slice_mut::<f32>().iter_mut().zip(exact).for_each(|(y, x)| *y = *x as f32),
            DType::BF16 => view.slice_mut::<bf16>().iter_mut().zip(exact).for_each(|(y, x)| *y = bf16::from_f64(*x)),
            other => panic!("{other}"),
        }
        let mut array = Array { buffer, dtype, exact: exact.to_vec() };
        array.exact = array.values();
        array
    }

    fn random(dtype: DType, len: usize, seed: u64) -> Array {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let exact: Vec<f64> = (0..len)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
            })
            .collect();
        Array::new(dtype, &exact)
    }

    fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, 0, self.exact.len())
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, 0, self.exact.len())
    }

    fn values(&self) -> Vec<f64> {
        match self.dtype {
            DType::F64 => self.view().slice::<f64>().to_vec(),
            DType::F32 => self.view().slice::<f32>().iter().map(|x| *x as f64).collect(),
            DType::BF16 => self.view().slice::<bf16>().iter().map(|x| x.to_f64()).collect(),
            other => panic!("{other}"),
        }
    }
}

fn activate(x: f64, act: Activation) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match act {
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
    }
}

/// `a·b` for every matrix of the batch.
fn triple_loop(p: Gemm, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mut c = vec![0.0; p.batch * p.m * p.n];
    for batch in 0..p.batch {
        let (a, b) = (&a[batch * p.m * p.k..], &b[batch * p.k * p.n..]);
        for i in 0..p.m {
            for l in 0..p.k {
                let x = if p.layout == Layout::Tn { a[l * p.m + i] } else { a[i * p.k + l] };
                for j in 0..p.n {
                    let y = if p.layout == Layout::Nt { b[j * p.k + l] } else { b[l * p.n + j] };
                    c[(batch * p.m + i) * p.n + j] += x * y;
                }
            }
        }
    }
    c
}

/// Fails unless ‖found − expected‖ ≤ tolerance · ‖expected‖.
fn close(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let norm = |x: f64| if x.is_finite() { x * x } else { f64::INFINITY };
    let error: f64 = found.iter().zip(expected).map(|(x, y)| norm(x - y)).sum();
    let size: f64 = expected.iter().map(|y| y * y).sum();
    assert!(error.sqrt() <= tolerance * size.sqrt(), "{what}: relative error {}", (error / size).sqrt());
}

/// Singles round each product and sum to 2⁻²⁴, bf16 results to 2⁻⁹.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => 1e-12,
        DType::F32 => 1e-5,
        _ => 1e-2,
    }
}

#[derive(Clone, Copy, Default)]
struct Fused {
    alpha: Option<f64>,
    accumulate: bool,
    bias: bool,
    activation: Option<Activation>,
    pre: bool,
    residual: bool,
}

/// Runs one product and compares `c` and `pre`; returns the bytes of `c`.
fn check(p: Gemm, dtype: DType, c_type: DType, fused: Fused) -> Vec<u8> {
    let size = p.batch * p.m * p.n;
    let a = Array::random(dtype, p.batch * p.m * p.k, 1);
    let b = Array::random(dtype, p.batch * p.k * p.n, 2);
    let bias = Array::random(dtype, p.n, 3);
    let residual = Array::random(dtype, size, 5);
    let mut pre = Array::random(dtype, size, 6);
    let mut c = Array::random(c_type, size, 7);
    let mut expected_pre = triple_loop(p, &a.exact, &b.exact);
    let mut expected = c.exact.clone();
    for i in 0..size {
        let mut y = expected_pre[i] * fused.alpha.unwrap_or(1.0) + if fused.bias { bias.exact[i % p.n] } else { 0.0 };
        expected_pre[i] = y;
        y = fused.activation.map_or(y, |act| activate(y, act));
        y += if fused.residual { residual.exact[i] } else { 0.0 };
        expected[i] = y + if fused.accumulate { expected[i] } else { 0.0 };
    }
    let epilogue = Epilogue {
        alpha: fused.alpha,
        accumulate: fused.accumulate,
        bias: fused.bias.then(|| bias.view()),
        activation: fused.activation,
        pre: fused.pre.then(|| pre.view_mut()),
        residual: fused.residual.then(|| residual.view()),
    };
    gemm(p, a.view(), b.view(), &mut c.view_mut(), epilogue).unwrap();
    let what = format!("{p:?} {dtype} -> {c_type} {:?} {:?}", fused.activation, isa());
    close(&what, &c.values(), &expected, tolerance(dtype));
    if fused.pre {
        close(&what, &pre.values(), &expected_pre, tolerance(dtype));
    }
    c.buffer.bytes()[..size * c_type.size()].to_vec()
}

fn shapes() -> Vec<(usize, usize, usize)> {
    let mut shapes = vec![
        (64, 96, 4100),
        (40, 40, 2049),
        (300, 100, 64),
        (2100, 49, 33),
        (7, 1000, 256),
        (1, 700, 300),
        (4, 500, 700),
        (30, 528, 700),
        (6, 90, 1500),
    ];
    for size in [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 63, 65, 97, 129, 130] {
        shapes.extend([(size, size, size), (size, 33, 18), (19, size, 21), (18, 50, size)]);
    }
    shapes.extend([(130, 130, 255), (20, 50, 256), (20, 50, 257), (20, 50, 513)]);
    shapes
}

fn every_shape(dtype: DType) {
    for (m, n, k) in shapes() {
        for layout in LAYOUTS {
            check(Gemm::new(layout, m, n, k), dtype, dtype, Fused::default());
        }
    }
}

fn every_epilogue(dtype: DType, c_type: DType) {
    use Activation::{Gelu, GeluTanh, QuickGelu, Silu};
    let base = Fused { alpha: Some(-0.3), ..Fused::default() };
    let mut all = vec![
        base,
        Fused { accumulate: true, ..base },
        Fused { bias: true, ..base },
        Fused { residual: true, accumulate: true, ..base },
    ];
    for act in [Gelu, GeluTanh, QuickGelu, Silu] {
        all.push(Fused { activation: Some(act), ..base });
        let full =
            Fused { accumulate: true, bias: true, activation: Some(act), pre: true, residual: true, alpha: Some(0.7) };
        all.push(full);
    }
    for fused in all {
        for (m, n, k) in [(1, 50, 20), (7, 40, 33), (9, 50, 20), (70, 64, 300), (33, 17, 1), (20, 30, 2048)] {
            for batch in [1, 3] {
                for layout in LAYOUTS {
                    check(Gemm { batch, ..Gemm::new(layout, m, n, k) }, dtype, c_type, fused);
                }
            }
        }
    }
}

fn empty_sizes(dtype: DType) {
    for layout in LAYOUTS {
        for (m, n, k) in [(0, 5, 5), (5, 0, 5), (0, 0, 0), (5, 50, 0)] {
            check(Gemm::new(layout, m, n, k), dtype, dtype, Fused { bias: true, residual: true, ..Fused::default() });
        }
    }
}

fn same_for_any_threads(dtype: DType, c_type: DType) {
    let fused = Fused { bias: true, ..Fused::default() };
    for (m, n, k, batch) in [
        (700, 300, 100, 1),
        (96, 130, 4000, 1),
        (70, 64, 50, 9),
        (40, 2000, 300, 1),
        (1, 3000, 300, 1),
        (6, 1000, 500, 2),
    ] {
        for layout in LAYOUTS {
            let run = |threads| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                pool.install(|| check(Gemm { batch, ..Gemm::new(layout, m, n, k) }, dtype, c_type, fused))
            };
            let one = run(1);
            assert!(one == run(2) && one == run(3), "{m}×{n}×{k}×{batch} {layout:?} {dtype}");
        }
    }
}

/// One test for everything that depends on the instruction set, which is global.
#[test]
fn products_follow_the_triple_loop_on_every_instruction_set() {
    for isa in Isa::ALL {
        if set_isa(isa) != isa {
            continue;
        }
        for dtype in [DType::F32, DType::BF16, DType::F64] {
            every_shape(dtype);
            every_epilogue(dtype, dtype);
            empty_sizes(dtype);
            same_for_any_threads(dtype, dtype.accumulator());
        }
        every_epilogue(DType::BF16, DType::F32);
    }
}

#[test]
fn wrong_arguments_are_errors() {
    let p = Gemm::new(Layout::Nt, 4, 3, 5);
    let (a, b) = (Array::random(DType::F32, 20, 1), Array::random(DType::F32, 15, 2));
    let short = Array::random(DType::F32, 14, 2);
    let half = Array::random(DType::BF16, 15, 2);
    let mut c = Array::random(DType::F32, 12, 3);
    let mut low = Array::random(DType::BF16, 12, 3);
    let plain = Epilogue::default;
    let length =
        |result, name| assert!(matches!(result, Err(Error::Length { what, .. }) if what == name), "{result:?}");
    let kind = |result, name| assert!(matches!(result, Err(Error::Type { what, .. }) if what == name), "{result:?}");
    length(gemm(p, a.view(), short.view(), &mut c.view_mut(), plain()), "b");
    length(gemm(p, b.view(), b.view(), &mut c.view_mut(), plain()), "a");
    length(gemm(Gemm { batch: 2, ..p }, a.view(), b.view(), &mut c.view_mut(), plain()), "a");
    kind(gemm(p, a.view(), half.view(), &mut c.view_mut(), plain()), "b");
    kind(gemm(p, a.view(), b.view(), &mut low.view_mut(), plain()), "c");
    let bias = || Epilogue { bias: Some(b.view()), ..Epilogue::default() };
    length(gemm(p, a.view(), b.view(), &mut c.view_mut(), bias()), "bias");
    let residual = || Epilogue { residual: Some(low.view()), ..Epilogue::default() };
    kind(gemm(p, a.view(), b.view(), &mut c.view_mut(), residual()), "residual");
}
