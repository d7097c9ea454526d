//! What the losses over score matrices share: workspace for some rows of scores at a time, and how these are walked.
//!
//! The products that make gradients take a chunk of rows: the more rows, the less often the gradient of a weight is read
//! and written. Scores are held in F32 for a slice of the chunk, and their gradient in T for all of it; where T is F32 the
//! gradient takes the scores' place.

use super::{Arg, Module};
use crate::{Buffer, DType, Device, Result, View, ViewMut};
use std::ops::Range;

/// Bytes of scores and their gradient at most.
const BYTES: usize = 288 << 20;
/// Rows of a chunk at most.
const ROWS: usize = 1024;
/// Slices of a chunk.
const SLICES: usize = 4;
/// Rows of a chunk are a multiple of this where there are so many: whole tiles of a product, in every slice.
const TILE: usize = 64 * SLICES;

/// Threads of a block that walks rows of `width` elements.
pub(crate) fn threads(width: usize) -> usize {
    const EACH: usize = 8;
    width.div_ceil(EACH).next_multiple_of(32).clamp(32, MOST_THREADS)
}

/// The largest answer of [`threads`].
pub(crate) const MOST_THREADS: usize = 1024;

/// The specialisations of a family for each T.
pub(crate) fn typed(family: &'static str) -> [Module; 2] {
    [DType::F32, DType::BF16].map(|dtype| Module::new(family).stored_as("TYPE_T", dtype))
}

/// Where the gradient of the scores goes.
#[derive(Debug)]
enum Gradient {
    Absent,
    InPlace,
    Rounded(Buffer),
}

/// Memory for a chunk. Its unit is an image, with a row of scores for each of its queries, or a token, with one.
#[derive(Debug)]
pub(crate) struct Space {
    dtype: DType,
    /// Units of a chunk and of a slice, at most.
    chunk: usize,
    slice: usize,
    /// Scores of a unit.
    unit: usize,
    scores: Buffer,
    gradient: Gradient,
}

/// Units of a chunk.
fn chunk(dtype: DType, units: usize, rows: usize, width: usize) -> usize {
    let scores = if dtype == DType::F32 { 0 } else { size_of::<f32>() };
    let slices = rows * width.max(1) * (SLICES * dtype.size() + scores);
    let most = (BYTES * SLICES / slices).min(ROWS / rows).max(1);
    let whole = if most > TILE { most / TILE * TILE } else { most };
    whole.min(units.max(1))
}

impl Space {
    /// For `units` units of `rows` rows of `width` scores, with or without their gradient in T.
    pub(crate) fn new(
        device: &Device,
        dtype: DType,
        units: usize,
        rows: usize,
        width: usize,
        gradient: bool,
    ) -> Result<Space> {
        let (unit, chunk) = (rows * width, chunk(dtype, units, rows, width));
        let in_place = gradient && dtype == DType::F32;
        let slice = if in_place { chunk } else { chunk.div_ceil(SLICES) };
        Ok(Space {
            dtype,
            chunk,
            slice,
            unit,
            scores: device.allocate(slice * unit * size_of::<f32>())?,
            gradient: match gradient {
                false => Gradient::Absent,
                true if in_place => Gradient::InPlace,
                true => Gradient::Rounded(device.allocate(chunk * unit * dtype.size())?),
            },
        })
    }

    /// Units of a chunk, at most.
    pub(crate) fn chunk(&self) -> usize {
        self.chunk
    }

    /// All units by chunks.
    pub(crate) fn chunks(&self, units: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        parts(0..units, self.chunk)
    }

    /// The units of a chunk by slices.
    pub(crate) fn slices(&self, chunk: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
        parts(chunk.clone(), self.slice)
    }

    /// Where the scores of a slice of a chunk go, and then their gradient.
    pub(crate) fn of_slice(&mut self, chunk: &Range<usize>, slice: &Range<usize>) -> (ViewMut<'_>, Arg) {
        let (start, len) = ((slice.start - chunk.start) * self.unit, slice.len() * self.unit);
        let first = if matches!(self.gradient, Gradient::InPlace) { start } else { 0 };
        let scores = ViewMut::new(&mut self.scores, DType::F32, first, len);
        let gradient = match &mut self.gradient {
            Gradient::Absent => Arg::from(None::<&View>),
            Gradient::InPlace => Arg::from(&scores),
            Gradient::Rounded(buffer) => Arg::from(&ViewMut::new(buffer, self.dtype, start, len)),
        };
        (scores, gradient)
    }

    /// The gradient of a chunk's scores.
    pub(crate) fn gradient(&self, chunk: &Range<usize>) -> View<'_> {
        let buffer = match &self.gradient {
            Gradient::Rounded(buffer) => buffer,
            Gradient::InPlace | Gradient::Absent => &self.scores,
        };
        View::new(buffer, self.dtype, 0, chunk.len() * self.unit)
    }
}

/// A range in parts of `len`.
fn parts(range: Range<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(len).map(move |start| start..(start + len).min(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workspace_stays_within_its_bytes() {
        for dtype in [DType::F32, DType::BF16] {
            for (units, rows, width) in [(4096, 1, 128_256), (1 << 20, 1, 32000), (65536, 1, 65536), (4096, 32, 4096)] {
                for gradient in [false, true] {
                    let device = Device::trace();
                    let space = Space::new(&device, dtype, units, rows, width, gradient).unwrap();
                    assert!(device.memory().in_use <= BYTES, "{space:?}");
                    assert!(space.chunk * rows <= ROWS && space.chunk * rows >= TILE, "{space:?}");
                }
            }
        }
    }

    #[test]
    fn slices_cover_every_unit_once() {
        for (units, rows, width) in [(0, 1, 10), (1, 1, 1), (5, 40, 7), (2050, 1, 50_257), (300, 2000, 1 << 20)] {
            let space = Space::new(&Device::trace(), DType::BF16, units, rows, width, true).unwrap();
            let all = space.chunks(units).flat_map(|chunk| space.slices(&chunk).flatten());
            assert!(all.eq(0..units));
        }
    }
}
