//! Patches on the processor: copies of rows of pixels.

use crate::Element;
use crate::patch::Patches;
use num_traits::Zero;
use rayon::prelude::*;

/// See [`crate::patch::unfold`].
pub(crate) fn unfold<T: Element>(p: Patches, image: &[T], patches: &mut [T]) {
    let (rows, columns, side) = (p.height / p.patch, p.width / p.patch, p.patch);
    if patches.is_empty() {
        return;
    }
    let strips = patches.par_chunks_mut(columns * p.channels * side * side).enumerate();
    strips.for_each(|(strip, out)| {
        let (picture, row) = (strip / rows, strip % rows);
        for (i, out) in out.chunks_exact_mut(side).enumerate() {
            let (column, channel, y) = (i / side / p.channels, i / side % p.channels, i % side);
            let line = (picture * p.channels + channel) * p.height + row * side + y;
            out.copy_from_slice(&image[line * p.width + column * side..][..side]);
        }
    });
}

/// See [`crate::patch::fold`].
pub(crate) fn fold<T: Element>(p: Patches, dpatches: &[T], dimage: &mut [T]) {
    let (rows, columns, side) = (p.height / p.patch, p.width / p.patch, p.patch);
    let planes = dimage.par_chunks_mut((p.height * p.width).max(1)).enumerate();
    planes.for_each(|(plane, out)| {
        let (picture, channel) = (plane / p.channels, plane % p.channels);
        for (line, out) in out.chunks_exact_mut(p.width).enumerate() {
            let (row, y) = (line / side, line % side);
            let filled = if row < rows { columns * side } else { 0 };
            for (column, out) in out[..filled].chunks_exact_mut(side).enumerate() {
                let patch = (picture * rows + row) * columns + column;
                out.copy_from_slice(&dpatches[((patch * p.channels + channel) * side + y) * side..][..side]);
            }
            out[filled..].fill(T::narrow(T::Acc::zero()));
        }
    });
}
