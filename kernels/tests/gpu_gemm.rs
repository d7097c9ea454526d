//! Products on the emulated GPU against a plain triple loop in doubles, over layouts, types, epilogues, sizes and
//! alignments.

mod common;

use common::{Array, numbers, rounded};
use half::bf16;
use kernels::activation::Activation;
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use kernels::gpu::Emulation;
use kernels::{Buffer, DType, Device, View, ViewMut};

const LAYOUTS: [Layout; 3] = [Layout::Nn, Layout::Nt, Layout::Tn];

/// Values on the device, from element `offset` of a buffer on; what surrounds them is NaN.
struct Held {
    buffer: Buffer,
    dtype: DType,
    offset: usize,
    len: usize,
}

impl Held {
    fn new(device: &Device, dtype: DType, offset: usize, values: &[f64]) -> Held {
        let mut padded = vec![f64::NAN; offset];
        padded.extend(values);
        padded.extend([f64::NAN; 3]);
        let mut buffer = device.allocate(padded.len() * dtype.size()).unwrap();
        let source = Array::new(dtype, &padded);
        let mut view = ViewMut::new(&mut buffer, dtype, 0, padded.len());
        match dtype {
            DType::F32 => view.upload(source.view().slice::<f32>()).unwrap(),
            _ => view.upload(source.view().slice::<bf16>()).unwrap(),
        }
        Held { buffer, dtype, offset, len: values.len() }
    }

    fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, self.offset, self.len)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, self.offset, self.len)
    }

    fn values(&self) -> Vec<f64> {
        let view = self.view();
        match self.dtype {
            DType::F32 => view.download::<f32>().unwrap().iter().map(|&v| v as f64).collect(),
            _ => view.download::<bf16>().unwrap().iter().map(|v| v.to_f64()).collect(),
        }
    }
}

/// What a product is computed in.
#[derive(Debug, Clone, Copy)]
struct Kind {
    t: DType,
    c: DType,
    tf32: bool,
}

const fn kind(t: DType, c: DType) -> Kind {
    Kind { t, c, tf32: false }
}

const KINDS: [Kind; 4] = [
    kind(DType::F32, DType::F32),
    Kind { tf32: true, ..kind(DType::F32, DType::F32) },
    kind(DType::BF16, DType::BF16),
    kind(DType::BF16, DType::F32),
];

/// What one product is made of.
#[derive(Debug, Clone, Copy)]
struct Case {
    shape: Gemm,
    kind: Kind,
    alpha: Option<f64>,
    accumulate: bool,
    bias: bool,
    activation: Option<Activation>,
    pre: bool,
    residual: bool,
    /// Elements by which every argument misses the start of its buffer.
    offset: usize,
}

impl Case {
    /// `c = a·b`.
    fn plain(layout: Layout, [m, n, k]: [usize; 3], kind: Kind) -> Case {
        Case {
            shape: Gemm::new(layout, m, n, k),
            kind,
            alpha: None,
            accumulate: false,
            bias: false,
            activation: None,
            pre: false,
            residual: false,
            offset: 0,
        }
    }

    /// Every part of the epilogue at once.
    fn full(self, activation: Activation) -> Case {
        Case {
            alpha: Some(0.37),
            accumulate: true,
            bias: true,
            activation: Some(activation),
            pre: true,
            residual: true,
            ..self
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
    for (place, sum) in c.iter_mut().enumerate() {
        let (batch, i, j) = (place / (p.m * p.n), place / p.n % p.m, place % p.n);
        let (a, b) = (&a[batch * p.m * p.k..], &b[batch * p.k * p.n..]);
        let (a_first, a_step) = if p.layout == Layout::Tn { (i, p.m) } else { (i * p.k, 1) };
        let (b_first, b_step) = if p.layout == Layout::Nt { (j * p.k, 1) } else { (j, p.n) };
        *sum = (0..p.k).map(|l| a[a_first + l * a_step] * b[b_first + l * b_step]).sum();
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

/// Sums of k singles are off by √k·2⁻²⁴ or so, outputs in bf16 by 2⁻⁹ of their size. Operands are rounded
/// beforehand, but not to tf32: both are off by up to 2⁻¹¹.
fn tolerance(dtype: DType, tf32: bool) -> f64 {
    match dtype {
        DType::F32 if tf32 => 1e-3,
        DType::F32 => 1e-5,
        _ => 1e-2,
    }
}

/// Runs a case on the device and compares `c` and `pre`; returns `c`.
fn check(devices: &Devices, case: Case) -> Vec<f64> {
    let (p, Kind { t, c: c_type, .. }) = (case.shape, case.kind);
    let device = devices.of(case.kind);
    let size = p.batch * p.m * p.n;
    let random = |len, seed| rounded(t, &numbers(len, seed));
    let (a, b) = (random(p.batch * p.m * p.k, 1), random(p.batch * p.k * p.n, 2));
    let (bias, residual) = (random(p.n, 3), random(size, 5));
    let mut expected = rounded(c_type, &numbers(size, 6));
    let mut expected_pre = triple_loop(p, &a, &b);

    let hold = |dtype, values: &[f64]| Held::new(device, dtype, case.offset, values);
    let [held_a, held_b, held_bias, held_residual] = [&a, &b, &bias, &residual].map(|v| hold(t, v));
    let unwritten = vec![f64::NAN; size];
    let mut c = hold(c_type, if case.accumulate { &expected } else { &unwritten });
    let mut pre = hold(t, &unwritten);
    let epilogue = Epilogue {
        alpha: case.alpha,
        accumulate: case.accumulate,
        bias: case.bias.then(|| held_bias.view()),
        activation: case.activation,
        pre: case.pre.then(|| pre.view_mut()),
        residual: case.residual.then(|| held_residual.view()),
    };
    gemm(p, held_a.view(), held_b.view(), &mut c.view_mut(), epilogue)
        .unwrap_or_else(|error| panic!("{case:?}: {error}"));

    for i in 0..size {
        let mut y = expected_pre[i] * case.alpha.unwrap_or(1.0) + if case.bias { bias[i % p.n] } else { 0.0 };
        expected_pre[i] = y;
        y = case.activation.map_or(y, |act| activate(y, act));
        y += if case.residual { residual[i] } else { 0.0 };
        expected[i] = y + if case.accumulate { expected[i] } else { 0.0 };
    }
    close(&format!("{case:?}"), &c.values(), &expected, tolerance(c_type, case.kind.tf32));
    if case.pre {
        close(&format!("pre of {case:?}"), &pre.values(), &expected_pre, tolerance(t, case.kind.tf32));
    }
    c.values()
}

/// The same emulated GPU twice: with exact products of f32, and with those of tf32.
struct Devices {
    exact: Device,
    tf32: Device,
}

impl Devices {
    fn new(seed: u64) -> Devices {
        let settings = Emulation { seed, ..Emulation::default() };
        let [exact, tf32] = [0, 1].map(|_| Device::emulated(settings).unwrap());
        tf32.allow_tf32(true);
        Devices { exact, tf32 }
    }

    fn of(&self, kind: Kind) -> &Device {
        if kind.tf32 { &self.tf32 } else { &self.exact }
    }
}

#[test]
fn sizes_of_every_layout_and_type() {
    let devices = Devices::new(0);
    for kind in KINDS {
        for layout in LAYOUTS {
            for size in [1, 2, 5, 8, 17, 33, 64, 127, 130] {
                for shape in [[size, size, size], [size, 33, 18], [24, size, 40], [16, 56, size]] {
                    check(&devices, Case::plain(layout, shape, kind));
                }
            }
            check(&devices, Case::plain(layout, [257 * 2, 64, 96], kind));
        }
    }
}

#[test]
fn large_tiles_and_split_sums() {
    let devices = Devices::new(0);
    for kind in KINDS {
        for layout in LAYOUTS {
            let mut many = Case::plain(layout, [136, 136, 16], kind);
            many.shape.batch = 34;
            check(&devices, many);
            // Sums of more than 1024 are split in two.
            let long = Case::plain(layout, [40, 24, 1050], kind);
            check(&devices, long);
            check(&devices, long.full(Activation::Gelu));
            check(&devices, Case::plain(layout, [3, 5, 1025], kind).full(Activation::Silu));
        }
    }
}

#[test]
fn every_part_of_the_epilogue() {
    let devices = Devices::new(0);
    for kind in KINDS {
        for shape in [[72, 40, 24], [35, 67, 9]] {
            let plain = Case::plain(Layout::Nt, shape, kind);
            let alone = [
                Case { alpha: Some(-1.5), ..plain },
                Case { accumulate: true, ..plain },
                Case { bias: true, ..plain },
                Case { pre: true, ..plain },
                Case { residual: true, ..plain },
            ];
            alone.into_iter().for_each(|case| drop(check(&devices, case)));
            for act in [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu] {
                check(&devices, Case { activation: Some(act), ..plain });
                check(&devices, plain.full(act));
            }
        }
    }
}

#[test]
fn batches_and_views_inside_buffers() {
    let devices = Devices::new(0);
    for kind in KINDS {
        for layout in LAYOUTS {
            for shape in [[40, 24, 16], [9, 21, 13]] {
                for offset in [0, 1, 2, 4, 8] {
                    let mut case = Case::plain(layout, shape, kind).full(Activation::Gelu);
                    case.shape.batch = 3;
                    case.offset = offset;
                    check(&devices, case);
                }
            }
        }
    }
}

#[test]
fn sums_of_nothing() {
    let devices = Devices::new(0);
    for kind in KINDS {
        check(&devices, Case::plain(Layout::Nt, [5, 8, 0], kind).full(Activation::Silu));
        for shape in [[0, 8, 4], [5, 0, 4]] {
            check(&devices, Case::plain(Layout::Nn, shape, kind));
        }
    }
}

#[test]
fn any_order_of_threads_gives_the_same_bits() {
    let orders = [0, 1, 7].map(Devices::new);
    for kind in KINDS {
        for layout in LAYOUTS {
            for shape in [[136, 72, 200], [33, 31, 67], [16, 24, 1100]] {
                let case = Case::plain(layout, shape, kind).full(Activation::GeluTanh);
                let [first, others @ ..] = orders.each_ref().map(|order| check(order, case));
                assert!(others.iter().all(|other| *other == first), "{case:?}");
            }
        }
    }
}

#[test]
fn what_is_not_a_number_comes_through() {
    let devices = Devices::new(0);
    for kind in KINDS {
        let device = devices.of(kind);
        for bad in [f64::NAN, f64::INFINITY] {
            let (m, n, k) = (24, 40, 48);
            let mut a = vec![1.0; m * k];
            a[7 * k + 30] = bad;
            let [a, b] = [a, vec![0.5; k * n]].map(|values| Held::new(device, kind.t, 0, &values));
            let mut c = Held::new(device, kind.c, 0, &vec![0.0; m * n]);
            let shape = Gemm::new(Layout::Nn, m, n, k);
            gemm(shape, a.view(), b.view(), &mut c.view_mut(), Epilogue::default()).unwrap();
            for (i, value) in c.values().into_iter().enumerate() {
                let expected = if i / n == 7 { bad } else { 24.0 };
                assert!(value == expected || (value.is_nan() && expected.is_nan()), "{kind:?} {bad}: c[{i}] = {value}");
            }
        }
    }
}

#[test]
fn tf32_is_used_where_it_is_allowed_and_nowhere_else() {
    // 1 + 2⁻¹² rounds to 1 in tf32.
    let ones = |device: &Device| {
        let a = Held::new(device, DType::F32, 0, &[1.0 + 2f64.powi(-12); 64]);
        let b = Held::new(device, DType::F32, 0, &[1.0; 64]);
        let mut c = Held::new(device, DType::F32, 0, &[0.0; 64]);
        let shape = Gemm::new(Layout::Nn, 8, 8, 8);
        gemm(shape, a.view(), b.view(), &mut c.view_mut(), Epilogue::default()).unwrap();
        c.values()[0]
    };
    let device = Devices::new(0).exact;
    assert_eq!(ones(&device), 8.0 + 2f64.powi(-9));
    device.allow_tf32(true);
    assert_eq!(ones(&device), 8.0);
    device.allow_tf32(false);
    assert_eq!(ones(&device), 8.0 + 2f64.powi(-9));
}

#[test]
fn doubles_are_for_the_cpu() {
    let device = Devices::new(0).exact;
    let buffer = device.allocate(64).unwrap();
    let mut c = device.allocate(64).unwrap();
    let ones = View::new(&buffer, DType::F64, 0, 4);
    let mut c = ViewMut::new(&mut c, DType::F64, 0, 4);
    let error = gemm(Gemm::new(Layout::Nn, 2, 2, 2), ones, ones, &mut c, Epilogue::default()).unwrap_err();
    assert!(error.to_string().contains("CPU only"), "{error}");
}
