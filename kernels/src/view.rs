//! Typed views on untyped buffers: what kernels take.

use crate::device::{Buffer, Device, Kind};
use crate::dtype::{DType, Stored};
use crate::gpu::Range;
use crate::{Error, Result};

/// `len` elements of `dtype`, read only. Always contiguous; shapes are the kernel's own arguments.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    buffer: &'a Buffer,
    dtype: DType,
    offset: usize,
    len: usize,
}

/// `len` elements of `dtype`, to be written.
#[derive(Debug)]
pub struct ViewMut<'a> {
    buffer: &'a mut Buffer,
    dtype: DType,
    offset: usize,
    len: usize,
}

macro_rules! common {
    ($view:ident) => {
        impl $view<'_> {
            /// The element type.
            pub fn dtype(&self) -> DType {
                self.dtype
            }
            /// Number of elements.
            pub fn len(&self) -> usize {
                self.len
            }
            /// Whether there are none.
            pub fn is_empty(&self) -> bool {
                self.len == 0
            }
            /// Where the elements live.
            pub fn device(&self) -> &Device {
                self.buffer.device()
            }
            /// What computes there.
            pub fn kind(&self) -> Kind {
                self.buffer.device().kind()
            }
            /// Fails unless the view's elements are of type `expected`.
            pub(crate) fn expect_dtype(&self, op: &'static str, what: &'static str, expected: DType) -> Result<()> {
                if self.dtype == expected {
                    return Ok(());
                }
                Err(Error::Type { op, what, found: self.dtype, expected: expected.name() })
            }
            /// Where the elements lie for CUDA kernels.
            pub(crate) fn device_range(&self, writable: bool) -> Range {
                let bytes = self.range();
                Range { address: self.buffer.address() + bytes.start as u64, bytes: bytes.len(), writable }
            }
            fn range(&self) -> std::ops::Range<usize> {
                let size = self.dtype.size();
                self.offset * size..(self.offset + self.len) * size
            }
        }
    };
}
common!(View);
common!(ViewMut);

impl View<'_> {
    /// The elements, copied to the host; zeros from the trace device.
    ///
    /// # Errors
    /// [`Error::Type`] when `T` is not the view's type; a device that fails.
    pub fn download<T: Stored>(&self) -> Result<Vec<T>> {
        self.expect_dtype("download", "view", T::DTYPE)?;
        let mut data = vec![T::zeroed(); self.len];
        self.read(bytemuck::cast_slice_mut(&mut data))?;
        Ok(data)
    }

    /// The elements' bytes, copied to the host; zeros from the trace device.
    pub fn download_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len * self.dtype.size()];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn read(&self, bytes: &mut [u8]) -> Result<()> {
        if self.kind() == Kind::Cpu {
            bytes.copy_from_slice(&self.buffer.bytes()[self.range()]);
        } else if let Some(gpu) = self.device().gpu() {
            self.device().count_download();
            gpu.download(self.device_range(false).address, bytes)?;
        }
        Ok(())
    }
}

impl ViewMut<'_> {
    /// Overwrites the elements with `data` from the host.
    ///
    /// # Errors
    /// Another type or length than the view's; a device that fails.
    pub fn upload<T: Stored>(&mut self, data: &[T]) -> Result<()> {
        self.expect_dtype("upload", "view", T::DTYPE)?;
        self.upload_bytes(bytemuck::cast_slice(data))
    }

    /// Overwrites the elements with their bytes from the host.
    ///
    /// # Errors
    /// Another number of bytes than the elements have; a device that fails.
    pub fn upload_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        let expected = bytes.len() / self.dtype.size();
        if self.len != expected {
            return Err(Error::Length { op: "upload", what: "bytes", found: self.len, expected });
        }
        match self.device().gpu() {
            Some(gpu) => gpu.upload(self.device_range(true).address, bytes)?,
            None if self.kind() == Kind::Cpu => {
                let range = self.range();
                self.buffer.bytes_mut()[range].copy_from_slice(bytes);
            }
            None => {}
        }
        Ok(())
    }
}

impl<'a> View<'a> {
    /// The elements as a slice on the CPU.
    ///
    /// # Panics
    /// When `T` is not the view's type: the dispatch macros make that impossible.
    pub fn slice<T: Stored>(&self) -> &'a [T] {
        assert_eq!(T::DTYPE, self.dtype, "view read as another type");
        bytemuck::cast_slice(&self.buffer.bytes()[self.range()])
    }

    /// The elements `offset .. offset + len` of `buffer` read as `dtype`.
    pub fn new(buffer: &'a Buffer, dtype: DType, offset: usize, len: usize) -> View<'a> {
        View { buffer, dtype, offset, len }
    }

    /// `len` elements from `start` on.
    pub(crate) fn part(&self, start: usize, len: usize) -> View<'a> {
        View::new(self.buffer, self.dtype, self.offset + start, len)
    }
}

impl<'a> ViewMut<'a> {
    /// The elements `offset .. offset + len` of `buffer` written as `dtype`.
    pub fn new(buffer: &'a mut Buffer, dtype: DType, offset: usize, len: usize) -> ViewMut<'a> {
        ViewMut { buffer, dtype, offset, len }
    }

    /// `len` elements from `start` on, to be written.
    pub(crate) fn part(&mut self, start: usize, len: usize) -> ViewMut<'_> {
        ViewMut::new(self.buffer, self.dtype, self.offset + start, len)
    }

    /// The elements, to be read.
    pub(crate) fn read(&self) -> View<'_> {
        View::new(self.buffer, self.dtype, self.offset, self.len)
    }

    /// The elements as a slice on the CPU, to be written.
    ///
    /// # Panics
    /// When `T` is not the view's type: the dispatch macros make that impossible.
    pub fn slice_mut<T: Stored>(&mut self) -> &mut [T] {
        assert_eq!(T::DTYPE, self.dtype, "view written as another type");
        let range = self.range();
        bytemuck::cast_slice_mut(&mut self.buffer.bytes_mut()[range])
    }
}

/// Runs `$body` with `$t` bound to the Rust type of `$dtype`, on the CPU, or `$launch` where CUDA kernels run; on the trace
/// device does nothing. `on_device!("scale", x, T => cpu::elementwise::scale::<T>(…), gpu => gpu::elementwise::scale(…))`
macro_rules! on_device {
    ($op:literal, $view:expr, $t:ident => $body:expr, gpu => $launch:expr) => {
        match ($view.kind(), $view.dtype()) {
            ($crate::device::Kind::Trace, _) => Ok(()),
            ($crate::device::Kind::Cuda(_) | $crate::device::Kind::Emulated, _) => $launch,
            ($crate::device::Kind::Cpu, $crate::DType::F32) => {
                type $t = f32;
                let _span = $crate::profile::span($op);
                $body;
                Ok(())
            }
            ($crate::device::Kind::Cpu, $crate::DType::BF16) => {
                type $t = half::bf16;
                let _span = $crate::profile::span($op);
                $body;
                Ok(())
            }
            ($crate::device::Kind::Cpu, $crate::DType::F64) => {
                type $t = f64;
                let _span = $crate::profile::span($op);
                $body;
                Ok(())
            }
            ($crate::device::Kind::Cpu, found) => {
                Err($crate::Error::Type { op: $op, what: stringify!($view), found, expected: "f32, bf16 or f64" })
            }
        }
    };
}
pub(crate) use on_device;
