//! Launches of `patch.cu`.

use crate::gpu::{Arg, Grid, Module, args, launch, width};
use crate::patch::Patches;
use crate::{DType, Device, Result, View, ViewMut};

fn specialise(t: DType, w: usize) -> Module {
    Module::new("patch").stored_as("TYPE_T", t).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    [(F32, 4), (BF16, 8), (BF16, 1)].map(|(t, w)| (specialise(t, w), 256)).to_vec()
}

/// Runs a kernel from `from` to the `len` elements of `to`.
fn rearrange(
    p: Patches,
    device: &Device,
    kernel: &'static str,
    t: DType,
    [from, to]: [Arg; 2],
    len: usize,
) -> Result<()> {
    crate::gpu::refuse_f64(kernel, t)?;
    let w = match p.margin {
        0 => width(t.size(), &[p.patch, p.width], &[from, to]),
        _ => 1,
    };
    let [channels, height, line, patch, margin] =
        [p.channels, p.height, p.width, p.patch, p.margin].map(|size| size as i32);
    let args = args![from, to, len as i64, channels, height, line, patch, margin];
    launch(device, &specialise(t, w), kernel, Grid::over(len, w), args)
}

pub(crate) fn unfold(p: Patches, image: View, patches: &mut ViewMut) -> Result<()> {
    let (t, len) = (image.dtype(), patches.len());
    let arguments = [Arg::from(image), Arg::from(patches)];
    rearrange(p, image.device(), "unfold", t, arguments, len)
}

pub(crate) fn fold(p: Patches, dpatches: View, dimage: &mut ViewMut) -> Result<()> {
    let (t, len) = (dpatches.dtype(), dimage.len());
    let arguments = [Arg::from(dpatches), Arg::from(dimage)];
    rearrange(p, dpatches.device(), "fold", t, arguments, len)
}
