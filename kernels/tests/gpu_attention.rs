//! The CUDA attention kernels, run by the emulator, against the processor's in double precision.

use half::bf16;
use kernels::attention::{Attention, Gradients, Mask, Saved, attention, attention_backward, attention_weights};
use kernels::gpu::Emulation;
use kernels::{Buffer, DType, Device, View, ViewMut};

/// A call in plain numbers.
#[derive(Debug, Clone)]
struct Case {
    lengths: (usize, usize),
    heads: (usize, usize),
    dim: usize,
    mask: Mask,
    kv_stride: usize,
    q_lens: Option<[i32; BATCH]>,
    k_lens: Option<[i32; BATCH]>,
    segments: Option<Vec<i32>>,
    dropout: f64,
    /// Elements by which every tensor is moved in its buffer.
    shift: usize,
}

const BATCH: usize = 2;

impl Case {
    fn new(lengths: (usize, usize), heads: (usize, usize), dim: usize, mask: Mask) -> Case {
        Case {
            lengths,
            heads,
            dim,
            mask,
            kv_stride: lengths.1,
            q_lens: None,
            k_lens: None,
            segments: None,
            dropout: 0.0,
            shift: 0,
        }
    }

    fn sizes(&self) -> [usize; 4] {
        let (q, kv) = (self.lengths.0 * self.heads.0, self.kv_stride * self.heads.1);
        [q, kv, kv, q].map(|rows| BATCH * rows * self.dim)
    }

    /// Queries, keys, values and the output's gradient as bf16 holds them; beyond the last key of a cache there is NaN.
    fn inputs(&self) -> [Vec<f64>; 4] {
        let sizes = self.sizes();
        let mut inputs = [0, 1, 2, 3].map(|i| normal(sizes[i], i as u64 + 1));
        if self.kv_stride == self.lengths.1 {
            return inputs;
        }
        let token = self.heads.1 * self.dim;
        for sequence in 0..BATCH {
            let used = self.k_lens.map_or(self.lengths.1, |lens| lens[sequence] as usize);
            let beyond = (sequence * self.kv_stride + used) * token..(sequence + 1) * self.kv_stride * token;
            for x in &mut inputs[1..3] {
                x[beyond.clone()].fill(f64::NAN);
            }
        }
        inputs
    }
}

/// Sums of four uniform numbers, of variance 1: close enough to normal.
fn normal(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    let sum = |_| (0..4).map(|_| uniform()).sum::<f64>() * 3f64.sqrt();
    (0..len).map(sum).map(|x| bf16::from_f64(x).to_f64()).collect()
}

/// A tensor on a device, `shift` elements into its buffer.
struct Tensor {
    buffer: Buffer,
    dtype: DType,
    shift: usize,
    len: usize,
}

impl Tensor {
    fn new(device: &Device, dtype: DType, shift: usize, values: &[f64]) -> Tensor {
        let len = values.len();
        let buffer = device.allocate((shift + len) * dtype.size()).unwrap();
        let mut tensor = Tensor { buffer, dtype, shift, len };
        let mut view = tensor.view_mut();
        match dtype {
            DType::F64 => view.upload(values),
            DType::F32 => view.upload(&values.iter().map(|&x| x as f32).collect::<Vec<_>>()),
            DType::BF16 => view.upload(&values.iter().map(|&x| bf16::from_f64(x)).collect::<Vec<_>>()),
            _ => view.upload(&values.iter().map(|&x| x as i32).collect::<Vec<_>>()),
        }
        .unwrap();
        tensor
    }

    fn poison(device: &Device, dtype: DType, shift: usize, len: usize) -> Tensor {
        Tensor::new(device, dtype, shift, &vec![f64::NAN; len])
    }

    fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, self.shift, self.len)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, self.shift, self.len)
    }

    fn values(&self) -> Vec<f64> {
        let view = self.view();
        match self.dtype {
            DType::F64 => view.download::<f64>().unwrap(),
            DType::F32 => view.download::<f32>().unwrap().iter().map(|&x| x.into()).collect(),
            _ => view.download::<bf16>().unwrap().iter().map(|x| x.to_f64()).collect(),
        }
    }
}

const RESULTS: [&str; 6] = ["out", "lse", "weights", "dq", "dk", "dv"];

/// All that the kernels compute, in the order of [`RESULTS`]; no gradients for a cache.
fn run(device: &Device, dtype: DType, case: &Case) -> Vec<Vec<f64>> {
    let sum_type = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let ints = |values: &[i32]| {
        let values: Vec<f64> = values.iter().map(|&x| x.into()).collect();
        Tensor::new(device, DType::I32, 0, &values)
    };
    let q_lens = case.q_lens.map(|lens| ints(&lens));
    let k_lens = case.k_lens.map(|lens| ints(&lens));
    let segments = case.segments.as_ref().map(|segments| ints(segments));
    let p = Attention {
        batch: BATCH,
        q_len: case.lengths.0,
        k_len: case.lengths.1,
        q_heads: case.heads.0,
        kv_heads: case.heads.1,
        head_dim: case.dim,
        scale: 1.0 / (case.dim as f64).sqrt(),
        mask: case.mask,
        kv_stride: case.kv_stride,
        q_lens: q_lens.as_ref().map(Tensor::view),
        k_lens: k_lens.as_ref().map(Tensor::view),
        segments: segments.as_ref().map(Tensor::view),
        dropout: case.dropout,
        seed: 0xdead_beef_0123,
    };
    let [q, k, v, dout] = case.inputs().map(|x| Tensor::new(device, dtype, case.shift, &x));
    let [q_size, kv_size, ..] = case.sizes();
    let rows = BATCH * p.q_heads * p.q_len;
    let poison = |dtype, len| Tensor::poison(device, dtype, case.shift, len);
    let (mut out, mut lse) = (poison(dtype, q_size), poison(sum_type, rows));
    let mut weights = poison(sum_type, rows * p.k_len);
    attention(&p, q.view(), k.view(), v.view(), &mut out.view_mut(), &mut lse.view_mut()).unwrap();
    attention_weights(&p, q.view(), k.view(), lse.view(), &mut weights.view_mut()).unwrap();
    let mut results = vec![out.values(), lse.values(), weights.values()];
    if p.kv_stride == p.k_len {
        let [mut dq, mut dk, mut dv] = [q_size, kv_size, kv_size].map(|len| poison(dtype, len));
        let [q, k, v, out, lse, dout] = [&q, &k, &v, &out, &lse, &dout].map(Tensor::view);
        let gradients = Gradients { dq: dq.view_mut(), dk: dk.view_mut(), dv: dv.view_mut() };
        attention_backward(&p, Saved { q, k, v, out, lse, dout }, gradients).unwrap();
        results.extend([dq, dk, dv].map(|gradient| gradient.values()));
    }
    results
}

/// The largest difference; infinite where one is NaN or only one is infinite.
fn distance(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let difference = |(x, y): (&f64, &f64)| if x == y { 0.0 } else { (x - y).abs() };
    let largest = |m: f64, d: f64| if d.is_nan() { f64::INFINITY } else { m.max(d) };
    found.iter().zip(expected).map(difference).fold(0.0, largest)
}

fn magnitude(x: &[f64]) -> f64 {
    x.iter().filter(|x| x.is_finite()).fold(0.0, |m, x| m.max(x.abs()))
}

/// Results in f32 are within 1e-5 of the largest, three times that for gradients, whose dP − D cancels. In bf16 the
/// output errs by at most twice what the processor's does, which rounds only what it writes, and gradients by three
/// times: tensor cores read rounded weights. Where the processor's rounding was lucky, 2⁻⁹ of the largest
/// result stands for it. The log-sum-exp and the weights stay in f32 in both.
fn check(device: &Device, dtype: DType, case: &Case) {
    let exact = run(&Device::cpu(), DType::F64, case);
    let reference = run(&Device::cpu(), dtype, case);
    let found = run(device, dtype, case);
    for (i, what) in RESULTS.iter().enumerate().take(found.len()) {
        let (factor, relative) = if i < 3 { (2.0, 1e-5) } else { (3.0, 3e-5) };
        let largest = magnitude(&exact[i]);
        let rounding = distance(&reference[i], &exact[i]).max(0.25 * bf16::EPSILON.to_f64() * largest);
        let narrow = dtype == DType::BF16 && *what != "lse" && *what != "weights";
        let allowed = if narrow { factor * rounding } else { relative * largest.max(1.0) };
        let error = distance(&found[i], &exact[i]);
        assert!(error <= allowed, "{dtype} {what} off by {error:e}, allowed {allowed:e}: {case:?}");
    }
}

fn emulated(seed: u64) -> Device {
    Device::emulated(Emulation { seed, check: false }).unwrap()
}

/// Every width, every pair of lengths and every arrangement of heads, though not every combination.
fn grid() -> Vec<Case> {
    const DIMS: [usize; 9] = [32, 40, 59, 64, 72, 80, 96, 111, 128];
    const LENGTHS: [(usize, usize); 8] =
        [(64, 128), (1, 1), (1, 239), (239, 1), (3, 265), (113, 203), (32, 257), (108, 256)];
    const HEADS: [(usize, usize); 3] = [(2, 2), (4, 2), (3, 1)];
    let case = |(i, &dim): (usize, &usize)| {
        let mask = if i % 2 == 0 { Mask::Causal } else { Mask::Full };
        Case::new(LENGTHS[(i + i / 8) % 8], HEADS[i % 3], dim, mask)
    };
    DIMS.iter().cycle().take(18).enumerate().map(case).collect()
}

/// Lengths, segments, prefixes, caches, dropout and tensors at odd places.
fn options() -> Vec<Case> {
    let base = |lengths, mask| Case::new(lengths, (4, 2), 24, mask);
    let segments = |tokens: usize| {
        let one = |s: usize| (0..tokens).map(move |j| if j + 3 + s > tokens { -1 } else { (j / 9) as i32 });
        Some((0..BATCH).flat_map(one).collect())
    };
    vec![
        Case { q_lens: Some([0, 17]), ..base((73, 40), Mask::Full) },
        Case { k_lens: Some([71, 0]), ..base((33, 90), Mask::Causal) },
        Case { q_lens: Some([33, 5]), k_lens: Some([0, 39]), ..base((33, 40), Mask::Full) },
        base((50, 50), Mask::Window(1)),
        base((150, 150), Mask::Window(17)),
        base((33, 150), Mask::Window(70)),
        base((90, 40), Mask::Window(20)),
        base((50, 50), Mask::PrefixCausal(0)),
        base((150, 150), Mask::PrefixCausal(70)),
        Case { k_lens: Some([50, 30]), ..base((50, 50), Mask::PrefixCausal(36)) },
        Case { segments: segments(75), ..base((75, 75), Mask::Causal) },
        Case { segments: segments(45), ..base((45, 45), Mask::Full) },
        Case { segments: segments(75), k_lens: Some([70, 20]), ..base((12, 75), Mask::Causal) },
        Case { segments: segments(64), ..base((64, 64), Mask::PrefixCausal(10)) },
        Case { kv_stride: 90, k_lens: Some([66, 8]), ..base((3, 71), Mask::Causal) },
        Case { kv_stride: 70, ..base((1, 41), Mask::Full) },
        Case { dropout: 0.3, ..base((67, 75), Mask::Causal) },
        Case { dropout: 0.5, segments: segments(40), q_lens: Some([40, 9]), ..base((40, 40), Mask::Full) },
        base((140, 70), Mask::Causal),
        Case { shift: 3, ..base((20, 30), Mask::Full) },
        base((5, 0), Mask::Full),
        base((0, 5), Mask::Full),
    ]
}

#[test]
fn bf16_is_as_exact_as_rounding_allows() {
    let device = emulated(0);
    grid().iter().chain(&options()).for_each(|case| check(&device, DType::BF16, case));
}

#[test]
fn f32_is_exact() {
    let device = emulated(0);
    let some = grid().into_iter().step_by(2);
    some.chain(options()).for_each(|case| check(&device, DType::F32, &case));
}

#[test]
fn the_order_of_threads_changes_no_bit() {
    let cases = [
        Case { dropout: 0.1, ..Case::new((70, 70), (4, 2), 64, Mask::Causal) },
        Case::new((33, 100), (2, 1), 59, Mask::Full),
        Case::new((65, 65), (2, 2), 128, Mask::PrefixCausal(20)),
    ];
    for case in &cases {
        for dtype in [DType::BF16, DType::F32] {
            let first = run(&emulated(0), dtype, case);
            for seed in [1, 7] {
                let again = run(&emulated(seed), dtype, case);
                let bits = |x: &[Vec<f64>]| x.concat().into_iter().map(f64::to_bits).collect::<Vec<_>>();
                assert_eq!(bits(&first), bits(&again), "seed {seed}: {case:?}");
            }
        }
    }
}

/// The host does not see lengths on the device: what lies outside counts as the nearest that is possible.
#[test]
fn impossible_lengths_are_clamped() {
    let device = emulated(0);
    let lens = |lens| Case { q_lens: Some(lens), k_lens: Some(lens), ..Case::new((20, 20), (2, 1), 32, Mask::Full) };
    let impossible = run(&device, DType::BF16, &lens([-5, i32::MAX]));
    assert!(impossible == run(&device, DType::BF16, &lens([0, 20])));
}

#[test]
fn what_has_no_kernel_is_refused() {
    let device = emulated(0);
    let refusal = |dtype, dim| {
        let q = Tensor::poison(&device, dtype, 0, BATCH * dim);
        let (mut out, lse) = (Tensor::poison(&device, dtype, 0, BATCH * dim), dtype.accumulator());
        let p = Attention {
            batch: BATCH,
            q_len: 1,
            k_len: 1,
            q_heads: 1,
            kv_heads: 1,
            head_dim: dim,
            scale: 1.0,
            mask: Mask::Full,
            kv_stride: 1,
            q_lens: None,
            k_lens: None,
            segments: None,
            dropout: 0.0,
            seed: 0,
        };
        let mut lse = Tensor::poison(&device, lse, 0, BATCH);
        let (x, mut out, mut lse) = (q.view(), out.view_mut(), lse.view_mut());
        attention(&p, x, x, x, &mut out, &mut lse).unwrap_err().to_string()
    };
    let (wide, double) = (refusal(DType::BF16, 129), refusal(DType::F64, 64));
    assert!(wide.contains("at most 128") && double.contains("f64"), "{wide}; {double}");
}
