//! Copies of strided blocks on the CPU.

use crate::copy::Blocks;
use crate::cpu::parallel::{CHUNK, chunk_rows, for_chunks};
use crate::elementwise::cpu::axpy_chunk;
use crate::{Element, Stored};
use num_traits::One;

pub(crate) fn copy_blocks<T: Stored>(blocks: &Blocks, src: &[T], dst: &mut [T]) {
    for_blocks(blocks, src, dst, |src, dst| dst.copy_from_slice(src));
}

pub(crate) fn add_blocks<T: Element>(blocks: &Blocks, src: &[T], dst: &mut [T]) {
    for_blocks(blocks, src, dst, |src, dst| axpy_chunk(src, dst, T::Acc::one()));
}

/// Calls `f` on each block's source and destination. Blocks that touch on both sides are one run, cut where convenient.
fn for_blocks<T: Stored>(blocks: &Blocks, src: &[T], dst: &mut [T], f: impl Fn(&[T], &mut [T]) + Sync) {
    let Blocks { outer, block, .. } = *blocks;
    let (src, dst) = (&src[blocks.src_offset..], &mut dst[blocks.dst_offset..]);
    let touching = blocks.src_stride == block && blocks.dst_stride == block;
    if outer == 1 || touching {
        let len = outer * block;
        let parts = ((&src[..len], CHUNK), (&mut dst[..len], CHUNK));
        return for_chunks(len.div_ceil(CHUNK), parts, |_, (src, dst)| f(src, dst));
    }
    let per = chunk_rows(block);
    let dst = &mut dst[..(outer - 1) * blocks.dst_stride + block];
    let parts = ((dst, per * blocks.dst_stride),);
    for_chunks(outer.div_ceil(per), parts, |chunk, (dst,)| {
        for (i, dst) in dst.chunks_mut(blocks.dst_stride).enumerate() {
            let start = (chunk * per + i) * blocks.src_stride;
            f(&src[start..start + block], &mut dst[..block]);
        }
    });
}
