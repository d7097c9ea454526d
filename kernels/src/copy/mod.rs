//! Copies of strided blocks: slices, concatenations, transposed heads, and their derivatives.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::Kind;
use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Error, Result, View, ViewMut};

/// Where the blocks are; all counts in elements. Block `o` of `outer` is
/// `src[o·src_stride + src_offset ..][..block]` and `dst[o·dst_stride + dst_offset ..][..block]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Blocks {
    /// Number of blocks.
    pub outer: usize,
    /// Elements per block.
    pub block: usize,
    /// From one block's start to the next in the source; 0 reads the same block each time.
    pub src_stride: usize,
    /// Start of the first block in the source.
    pub src_offset: usize,
    /// From one block's start to the next in the destination; at least `block` when there are several.
    pub dst_stride: usize,
    /// Start of the first block in the destination.
    pub dst_offset: usize,
}

impl Blocks {
    fn is_empty(&self) -> bool {
        self.outer == 0 || self.block == 0
    }

    /// One past the last element of the last block, `None` beyond `usize`.
    fn end(&self, stride: usize, offset: usize) -> Option<usize> {
        let last = (self.outer - 1).checked_mul(stride)?.checked_add(offset)?;
        last.checked_add(self.block)
    }
}

/// Copies blocks, or adds them to the destination. `src` and `dst` have the same type: any type for a copy, `T` when
/// `accumulate`. What lies between the destination's blocks is left as it is.
///
/// # Errors
/// Types or devices that differ, blocks that reach past the end of a view, blocks that overlap in the destination.
pub fn copy_blocks(blocks: Blocks, src: View, dst: &mut ViewMut, accumulate: bool) -> Result<()> {
    check(&blocks, &src, dst, accumulate)?;
    if blocks.is_empty() {
        return Ok(());
    }
    if accumulate {
        return on_device!("copy_blocks", src, T => cpu::add_blocks::<T>(&blocks, src.slice(), dst.slice_mut()),
            gpu => gpu::copy_blocks(&blocks, src, dst, true));
    }
    match src.kind() {
        Kind::Trace => {}
        Kind::Cuda(_) | Kind::Emulated => gpu::copy_blocks(&blocks, src, dst, false)?,
        Kind::Cpu => match src.dtype() {
            DType::F64 => cpu::copy_blocks::<f64>(&blocks, src.slice(), dst.slice_mut()),
            DType::F32 => cpu::copy_blocks::<f32>(&blocks, src.slice(), dst.slice_mut()),
            DType::BF16 => cpu::copy_blocks::<half::bf16>(&blocks, src.slice(), dst.slice_mut()),
            DType::F16 => cpu::copy_blocks::<half::f16>(&blocks, src.slice(), dst.slice_mut()),
            DType::I32 => cpu::copy_blocks::<i32>(&blocks, src.slice(), dst.slice_mut()),
            DType::U8 => cpu::copy_blocks::<u8>(&blocks, src.slice(), dst.slice_mut()),
        },
    }
    Ok(())
}

fn check(blocks: &Blocks, src: &View, dst: &ViewMut, accumulate: bool) -> Result<()> {
    let call = match accumulate {
        true => Call::new("copy_blocks", "src", src)?,
        false => Call::of_any("copy_blocks", src),
    };
    call.same("dst", dst, dst.len())?;
    if blocks.is_empty() {
        return Ok(());
    }
    for (what, len, stride, offset) in [
        ("src", src.len(), blocks.src_stride, blocks.src_offset),
        ("dst", dst.len(), blocks.dst_stride, blocks.dst_offset),
    ] {
        let end = blocks.end(stride, offset).unwrap_or(usize::MAX);
        if end > len {
            return Err(Error::Length { op: "copy_blocks", what, found: len, expected: end });
        }
    }
    if blocks.outer > 1 && blocks.dst_stride < blocks.block {
        let Blocks { block, dst_stride, .. } = blocks;
        return Err(
            call.refuse(format!("blocks of {block} elements overlap in the destination, whose stride is {dst_stride}"))
        );
    }
    Ok(())
}
