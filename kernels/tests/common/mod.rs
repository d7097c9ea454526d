//! What the kernels' tests share: arrays on a device, numbers, comparisons, and loops over instruction sets and threads.
#![allow(dead_code)] // Each test file uses its own share.

use half::{bf16, f16};
use kernels::cpu::simd::{Isa, set_isa};
use kernels::{Buffer, DType, Device, View, ViewMut};

/// The types `T` a kernel is generic over.
pub(crate) const TYPES: [DType; 3] = [DType::F32, DType::BF16, DType::F64];

/// A buffer with the number and type of its elements.
#[derive(Debug)]
pub(crate) struct Array {
    buffer: Buffer,
    dtype: DType,
    len: usize,
}

impl Array {
    /// `values` rounded to `dtype`, on the CPU.
    pub(crate) fn new(dtype: DType, values: &[f64]) -> Array {
        let mut array = Array::on(&Device::cpu(), dtype, values.len());
        let elements = array.buffer.bytes_mut().chunks_exact_mut(dtype.size());
        for (bytes, &v) in elements.zip(values) {
            bytes.copy_from_slice(&encode(dtype, v)[..dtype.size()]);
        }
        array
    }

    /// An output: NaN everywhere, so that whatever is not overwritten shows (the least number for integers).
    pub(crate) fn out(dtype: DType, len: usize) -> Array {
        Array::new(dtype, &vec![f64::NAN; len])
    }

    /// Integers.
    pub(crate) fn ids(values: &[i32]) -> Array {
        Array::new(DType::I32, &values.iter().map(|&v| v as f64).collect::<Vec<_>>())
    }

    /// Arbitrary elements on any device.
    pub(crate) fn on(device: &Device, dtype: DType, len: usize) -> Array {
        let buffer = device.allocate(len * dtype.size()).unwrap();
        Array { buffer, dtype, len }
    }

    pub(crate) fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, 0, self.len)
    }

    pub(crate) fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, 0, self.len)
    }

    /// The elements, widened.
    pub(crate) fn values(&self) -> Vec<f64> {
        let size = self.dtype.size();
        self.bytes().chunks_exact(size).map(|b| decode(self.dtype, b)).collect()
    }

    /// The elements, bit for bit.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.buffer.bytes()[..self.len * self.dtype.size()]
    }
}

/// The bytes of one element, in the first places.
fn encode(dtype: DType, v: f64) -> [u8; 8] {
    let mut bytes = [0; 8];
    match dtype {
        DType::F64 => bytes = v.to_ne_bytes(),
        DType::F32 => bytes[..4].copy_from_slice(&(v as f32).to_ne_bytes()),
        DType::BF16 => bytes[..2].copy_from_slice(&bf16::from_f32(v as f32).to_ne_bytes()),
        DType::F16 => bytes[..2].copy_from_slice(&f16::from_f32(v as f32).to_ne_bytes()),
        DType::I32 if v.is_nan() => bytes[..4].copy_from_slice(&i32::MIN.to_ne_bytes()),
        DType::I32 => bytes[..4].copy_from_slice(&(v as i32).to_ne_bytes()),
        DType::U8 => bytes[0] = v as u8,
    }
    bytes
}

fn decode(dtype: DType, b: &[u8]) -> f64 {
    match dtype {
        DType::F64 => f64::from_ne_bytes(b.try_into().unwrap()),
        DType::F32 => f32::from_ne_bytes(b.try_into().unwrap()) as f64,
        DType::BF16 => bf16::from_ne_bytes(b.try_into().unwrap()).to_f64(),
        DType::F16 => f16::from_ne_bytes(b.try_into().unwrap()).to_f64(),
        DType::I32 => i32::from_ne_bytes(b.try_into().unwrap()) as f64,
        DType::U8 => b[0] as f64,
    }
}

/// `values` as `dtype` stores them.
pub(crate) fn rounded(dtype: DType, values: &[f64]) -> Vec<f64> {
    values.iter().map(|&v| decode(dtype, &encode(dtype, v)[..dtype.size()])).collect()
}

/// The spacing of `dtype`'s numbers between 1 and 2: rounding is off by at most half of it, relatively.
pub(crate) fn spacing(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f32::EPSILON as f64,
        DType::BF16 => bf16::EPSILON.to_f64(),
        DType::F16 => f16::EPSILON.to_f64(),
        DType::I32 | DType::U8 => 0.0,
    }
}

/// `n` numbers between −2 and 2 that look random and depend on `seed`.
pub(crate) fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for _ in 0..4 {
        next();
    }
    (0..n).map(|_| 4.0 * next() - 2.0).collect()
}

/// Fails where `|found − expected| > relative · |expected| + absolute`, or where only one of them is NaN.
pub(crate) fn close(what: &str, found: &[f64], expected: &[f64], relative: f64, absolute: f64) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        let bound = relative * e.abs() + absolute;
        let good = f == e || (f - e).abs() <= bound || (f.is_nan() && e.is_nan());
        assert!(good, "{what}[{i}] = {f}, expected {e} within {bound:e}");
    }
}

/// Runs `f` for every instruction set this processor has. Only one test per file may do so: the choice is global.
pub(crate) fn for_each_isa(f: impl Fn()) {
    for wanted in Isa::ALL {
        if set_isa(wanted) == wanted {
            f();
        }
    }
}

/// Requires `f` to give the same bytes for 1, 2 and 3 rayon threads.
pub(crate) fn same_for_any_threads(what: &str, f: impl Fn() -> Vec<u8> + Sync) {
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(&f)
    };
    let one = run(1);
    for threads in [2, 3] {
        assert!(one == run(threads), "{what}: {threads} threads give other bits than one");
    }
}
