//! Launches of `copy.cu`.

use crate::copy::Blocks;
use crate::gpu::{Grid, Module, args, launch, width};
use crate::{DType, Result, View, ViewMut};

fn specialise(t: DType, w: usize) -> Module {
    Module::new("copy").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    let chosen = [(F32, 4), (F32, 1), (BF16, 8), (BF16, 1)];
    chosen.map(|(t, w)| (specialise(t, w), 256)).to_vec()
}

/// Copies the blocks, or adds them.
pub(crate) fn copy_blocks(blocks: &Blocks, src: View, dst: &mut ViewMut, accumulate: bool) -> Result<()> {
    if accumulate {
        crate::gpu::refuse_f64("copy_blocks", src.dtype())?;
    }
    let Blocks { outer, block, src_stride, src_offset, dst_stride, dst_offset } = *blocks;
    // What is only moved is moved as a type of the same size, which spares modules.
    let t = match src.dtype() {
        DType::I32 => DType::F32,
        DType::F16 => DType::BF16,
        other => other,
    };
    let lengths = [block, src_stride, src_offset, dst_stride, dst_offset];
    let w = width(t.size(), &lengths, args![src, &*dst]);
    let len = outer * block;
    let [block, src_stride, src_offset, dst_stride, dst_offset] = lengths.map(|length| length as i64);
    let args = args![src, &*dst, len as i64, block, src_stride, src_offset, dst_stride, dst_offset];
    let kernel = if accumulate { "add_blocks" } else { "copy_blocks" };
    launch(src.device(), &specialise(t, w), kernel, Grid::over(len, w), args)
}
