//! Tensors: a shape and a type over shared memory on a device.

use crate::error::{Error, Result, mismatch};
use crate::{DType, Device, Shape};
use kernels::copy::{Blocks, copy_blocks};
use kernels::embedding::embedding;
use kernels::pixels::{Normalise, normalise};
use kernels::{Buffer, Stored, View, ViewMut, elementwise};
use std::sync::Arc;

/// Contiguous, row-major numbers on a device. Clones share memory; only a tensor that shares with none can be changed.
#[derive(Debug, Clone)]
pub struct Tensor {
    buffer: Arc<Buffer>,
    dtype: DType,
    shape: Shape,
    offset: usize,
}

impl Tensor {
    /// A tensor with arbitrary contents.
    pub fn empty(device: &Device, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        let buffer = Arc::new(device.allocate(shape.elements() * dtype.size())?);
        Ok(Tensor { buffer, dtype, shape, offset: 0 })
    }

    /// A tensor filled with `value`; `dtype` is a floating-point type.
    pub fn full(device: &Device, dtype: DType, shape: impl Into<Shape>, value: f64) -> Result<Tensor> {
        let mut tensor = Tensor::empty(device, dtype, shape)?;
        elementwise::fill(&mut tensor.view_mut()?, value)?;
        Ok(tensor)
    }

    /// A tensor of zeros of a floating-point type.
    pub fn zeros(device: &Device, dtype: DType, shape: impl Into<Shape>) -> Result<Tensor> {
        Tensor::full(device, dtype, shape, 0.0)
    }

    /// A tensor with `data` copied in.
    pub fn from_slice<T: Stored>(device: &Device, data: &[T], shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elements() != data.len() {
            return mismatch("from_slice", format!("{} values for shape {shape}", data.len()));
        }
        let mut tensor = Tensor::empty(device, T::DTYPE, shape)?;
        tensor.view_mut()?.upload(data)?;
        Ok(tensor)
    }

    /// A tensor of the little-endian numbers in `bytes`.
    pub fn from_bytes(device: &Device, dtype: DType, bytes: &[u8], shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elements() * dtype.size() != bytes.len() {
            return mismatch("from_bytes", format!("{} bytes for {dtype} of shape {shape}", bytes.len()));
        }
        let mut tensor = Tensor::empty(device, dtype, shape)?;
        tensor.view_mut()?.upload_bytes(bytes)?;
        Ok(tensor)
    }

    /// The elements' little-endian bytes, row-major.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        Ok(self.view().download_bytes()?)
    }

    /// The elements, row-major. On the trace device, which holds none, zeros.
    pub fn to_vec<T: Stored>(&self) -> Result<Vec<T>> {
        if self.dtype != T::DTYPE {
            return mismatch("to_vec", format!("the tensor is {}, asked for as {}", self.dtype, T::DTYPE));
        }
        Ok(self.view().download()?)
    }

    /// The elements of a floating-point tensor as doubles.
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        self.cast(DType::F64)?.to_vec()
    }

    /// The only element of a floating-point tensor.
    pub fn item(&self) -> Result<f64> {
        if self.shape.elements() != 1 {
            return mismatch(
                "item",
                format!("shape {} has {} elements, expected 1", self.shape, self.shape.elements()),
            );
        }
        Ok(self.to_f64()?[0])
    }

    /// The sizes.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Where it lives.
    pub fn device(&self) -> &Device {
        self.buffer.device()
    }

    /// A view for kernels.
    pub fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, self.offset, self.shape.elements())
    }

    /// A view for kernels to write through.
    ///
    /// # Errors
    /// [`Error::Shared`] when another tensor shares the memory.
    pub fn view_mut(&mut self) -> Result<ViewMut<'_>> {
        self.view_mut_named("a tensor")
    }

    pub(crate) fn view_mut_named(&mut self, what: &'static str) -> Result<ViewMut<'_>> {
        let owners = Arc::strong_count(&self.buffer) - 1;
        let buffer = Arc::get_mut(&mut self.buffer).ok_or(Error::Shared { what, owners })?;
        Ok(ViewMut::new(buffer, self.dtype, self.offset, self.shape.elements()))
    }

    /// Whether no other tensor shares the memory.
    pub(crate) fn is_unique(&mut self) -> bool {
        Arc::get_mut(&mut self.buffer).is_some()
    }

    /// The same memory with another shape.
    pub fn reshape(&self, shape: impl Into<Shape>) -> Result<Tensor> {
        let shape = shape.into();
        if shape.elements() != self.shape.elements() {
            return mismatch("reshape", format!("{} cannot become {shape}", self.shape));
        }
        Ok(Tensor { shape, ..self.clone() })
    }

    /// Elements `start .. start + shape.elements()` of the memory under `shape`: how parameters lie in an arena.
    pub(crate) fn slice_flat(&self, start: usize, shape: Shape) -> Tensor {
        debug_assert!(start + shape.elements() <= self.shape.elements());
        Tensor { shape, offset: self.offset + start, ..self.clone() }
    }

    /// A mutable view of elements `start .. start + len`.
    pub(crate) fn range_mut(&mut self, what: &'static str, start: usize, len: usize) -> Result<ViewMut<'_>> {
        let (dtype, offset) = (self.dtype, self.offset);
        let owners = Arc::strong_count(&self.buffer) - 1;
        let buffer = Arc::get_mut(&mut self.buffer).ok_or(Error::Shared { what, owners })?;
        Ok(ViewMut::new(buffer, dtype, offset + start, len))
    }

    /// A copy in another floating-point type; shares memory when the type is the same.
    pub fn cast(&self, dtype: DType) -> Result<Tensor> {
        if dtype == self.dtype {
            return Ok(self.clone());
        }
        let mut out = Tensor::empty(self.device(), dtype, self.shape)?;
        elementwise::cast(self.view(), &mut out.view_mut()?)?;
        Ok(out)
    }

    /// Entries of `self` (entries, …), of a floating-point type or I32, by their numbers `ids` (…) I32: (…, …).
    ///
    /// # Errors
    /// A scalar; on the CPU a number that is no entry's.
    pub fn select(&self, ids: &Tensor) -> Result<Tensor> {
        let Some((&entries, rest)) = self.shape[..].split_first() else {
            return mismatch("embedding", "the table is a scalar, expected (vocab, dim)");
        };
        let shape = Shape::new(&[&ids.shape[..], rest].concat());
        let mut out = Tensor::empty(self.device(), self.dtype, shape)?;
        let dim = rest.iter().product();
        embedding(self.view(), ids.view(), &mut out.view_mut()?, entries, dim)?;
        Ok(out)
    }

    /// Images' bytes (batch, height, width, 3) as numbers (batch, 3, height, width): `(byte/255 − mean) / deviation`, colour
    /// by colour.
    pub fn normalised(&self, mean: [f64; 3], deviation: [f64; 3], dtype: DType) -> Result<Tensor> {
        let [batch, height, width, 3] = self.shape[..] else {
            return mismatch("normalised", format!("{}, expected (batch, height, width, 3)", self.shape));
        };
        let p = Normalise { area: height * width, mean, deviation };
        let mut out = Tensor::empty(self.device(), dtype, [batch, 3, height, width])?;
        normalise(&p, self.view(), &mut out.view_mut()?)?;
        Ok(out)
    }

    /// A tensor with its own copy of the memory.
    pub fn copy(&self) -> Result<Tensor> {
        let mut out = Tensor::empty(self.device(), self.dtype, self.shape)?;
        out.write(self, Blocks { outer: 1, block: self.shape.elements(), ..Blocks::default() })?;
        Ok(out)
    }

    /// Copies blocks of `src` to this tensor.
    pub fn write(&mut self, src: &Tensor, blocks: Blocks) -> Result<()> {
        Ok(copy_blocks(blocks, src.view(), &mut self.view_mut()?, false)?)
    }

    /// An uninitialised tensor like this one.
    pub(crate) fn like(&self) -> Result<Tensor> {
        Tensor::empty(self.device(), self.dtype, self.shape)
    }
}
