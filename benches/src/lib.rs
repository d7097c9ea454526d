//! What the benches share: arrays on the CPU.

use kernels::elementwise::fill;
use kernels::{Buffer, DType, Device, View, ViewMut};

/// A buffer with its elements' type and number.
#[derive(Debug)]
pub struct Array {
    buffer: Buffer,
    dtype: DType,
    len: usize,
}

impl Array {
    /// 0.5 everywhere; integers are left for the caller to set.
    pub fn new(dtype: DType, len: usize) -> Array {
        let buffer = Device::cpu().allocate(len * dtype.size()).expect("the bench fits in memory");
        let mut array = Array { buffer, dtype, len };
        if dtype != DType::I32 {
            fill(&mut array.view_mut(), 0.5).expect("a floating-point type");
        }
        array
    }

    /// Numbers in −size..size, in F32 or BF16, without a pattern that a cache or a branch predictor could learn.
    pub fn random(dtype: DType, len: usize, size: f32) -> Array {
        assert!(matches!(dtype, DType::F32 | DType::BF16), "random numbers in {dtype} are not made here");
        let mut array = Array::new(dtype, len);
        let mut state = len as u32 | 1;
        for bytes in array.bytes_mut().chunks_exact_mut(dtype.size()) {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            let value = ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * size;
            bytes.copy_from_slice(&value.to_ne_bytes()[4 - dtype.size()..]);
        }
        array
    }

    /// Integers.
    pub fn integers(values: impl ExactSizeIterator<Item = i32>) -> Array {
        let mut array = Array::new(DType::I32, values.len());
        let mut view = array.view_mut();
        view.slice_mut().iter_mut().zip(values).for_each(|(x, value)| *x = value);
        array
    }

    /// All elements.
    pub fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, 0, self.len)
    }

    /// All elements, to be written.
    pub fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, 0, self.len)
    }

    /// The elements' bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.buffer.bytes()[..self.len * self.dtype.size()]
    }

    /// The elements' bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer.bytes_mut()[..self.len * self.dtype.size()]
    }
}
