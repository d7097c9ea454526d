//! Patches on the processor: copies of rows of pixels.

use crate::Element;
use crate::patch::Patches;
use num_traits::Zero;
use rayon::prelude::*;
use std::ops::Range;

/// Line `y` of the window at patch (`row`, `column`): the image's line, the pixels of it, and where they start in the
/// window. None beyond the image.
fn line(p: &Patches, row: usize, column: usize, y: usize) -> Option<(usize, Range<usize>, usize)> {
    let image_line = (row * p.patch + y).checked_sub(p.margin).filter(|line| *line < p.height)?;
    let (left, right) = (column * p.patch, (column * p.patch + p.patch + p.margin).min(p.width));
    let start = left.saturating_sub(p.margin);
    Some((image_line, start..right, start + p.margin - left))
}

/// See [`crate::patch::unfold`].
pub(crate) fn unfold<T: Element>(p: Patches, image: &[T], patches: &mut [T]) {
    let (rows, columns, side) = (p.height / p.patch, p.width / p.patch, p.window());
    if patches.is_empty() {
        return;
    }
    let strips = patches.par_chunks_mut(columns * p.channels * side * side).enumerate();
    strips.for_each(|(strip, out)| {
        let (picture, row) = (strip / rows, strip % rows);
        for (i, out) in out.chunks_exact_mut(side).enumerate() {
            let (column, channel, y) = (i / side / p.channels, i / side % p.channels, i % side);
            let plane = (picture * p.channels + channel) * p.height;
            let zero = T::narrow(T::Acc::zero());
            match line(&p, row, column, y) {
                Some((line, pixels, at)) => {
                    let end = at + pixels.len();
                    out[..at].fill(zero);
                    out[at..end].copy_from_slice(&image[(plane + line) * p.width..][pixels]);
                    out[end..].fill(zero);
                }
                None => out.fill(zero),
            }
        }
    });
}

/// See [`crate::patch::fold`].
pub(crate) fn fold<T: Element>(p: Patches, dpatches: &[T], dimage: &mut [T]) {
    let (rows, columns, side) = (p.height / p.patch, p.width / p.patch, p.window());
    let planes = dimage.par_chunks_mut((p.height * p.width).max(1)).enumerate();
    planes.for_each(|(plane, out)| {
        let (picture, channel) = (plane / p.channels, plane % p.channels);
        let mut sums = vec![T::Acc::zero(); out.len()];
        for i in 0..rows * columns * side {
            let (row, column, y) = (i / side / columns, i / side % columns, i % side);
            if let Some((line, pixels, at)) = line(&p, row, column, y) {
                let patch = (picture * rows + row) * columns + column;
                let from = &dpatches[((patch * p.channels + channel) * side + y) * side..][at..at + pixels.len()];
                let to = &mut sums[line * p.width..][pixels];
                to.iter_mut().zip(from).for_each(|(sum, d)| *sum = *sum + d.widen());
            }
        }
        out.iter_mut().zip(sums).for_each(|(out, sum)| *out = T::narrow(sum));
    });
}
