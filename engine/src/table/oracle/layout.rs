//! What moves, repeats, adds up or leaves out elements, in plain loops.

use super::Array;
use crate::Shape;

/// Sum over `axis`, times `factor(size)`.
pub(in super::super) fn sum_axis(x: &Array, axis: usize, factor: impl Fn(usize) -> f64) -> Array {
    let (axis_len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
    let mut out = Array::zeros(&[&x.shape[..axis], &x.shape[axis + 1..]].concat()[..]);
    for (place, value) in x.data.iter().enumerate() {
        out.data[place / (axis_len * inner) * inner + place % inner] += value * factor(axis_len);
    }
    out
}

/// Every element of the sum's gradient, for all that went into it.
pub(in super::super) fn sum_axis_backward(
    x: &Array,
    axis: usize,
    factor: impl Fn(usize) -> f64,
    dy: &Array,
) -> Vec<Array> {
    let (axis_len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
    let from = |place: usize| dy.data[place / (axis_len * inner) * inner + place % inner] * factor(axis_len);
    vec![Array::new(x.shape, (0..x.data.len()).map(from).collect())]
}

/// Tokens `start .. start + count` of (batch, tokens, dim).
pub(in super::super) fn slice(x: &Array, start: usize, count: usize) -> Array {
    let [batch, tokens, dim] = x.shape[..] else { unreachable!("rank 3") };
    let data = (0..batch).flat_map(|b| x.data[(b * tokens + start) * dim..][..count * dim].to_vec()).collect();
    Array::new([batch, count, dim], data)
}

/// The gradient of the slice in its place, zeros around it.
pub(in super::super) fn slice_backward(x: &Array, start: usize, dy: &Array) -> Vec<Array> {
    let (tokens, count, dim) = (x.shape[1], dy.shape[1], x.shape[2]);
    let mut dx = Array::zeros(x.shape);
    for (dx, dy) in dx.data.chunks_mut(tokens * dim).zip(dy.data.chunks(count * dim)) {
        dx[start * dim..][..count * dim].copy_from_slice(dy);
    }
    vec![dx]
}

/// Several (batch, tokens, dim) joined along the tokens.
pub(in super::super) fn concat(parts: &[Array]) -> Array {
    let (batch, dim) = (parts[0].shape[0], parts[0].shape[2]);
    let block = |b: usize, p: &Array| p.data[b * p.shape[1] * dim..][..p.shape[1] * dim].to_vec();
    let data = (0..batch).flat_map(|b| parts.iter().flat_map(move |p| block(b, p)).collect::<Vec<_>>()).collect();
    Array::new([batch, parts.iter().map(|p| p.shape[1]).sum(), dim], data)
}

/// Each part's slice of the gradient.
pub(in super::super) fn concat_backward(parts: &[Array], dy: &Array) -> Vec<Array> {
    let mut start = 0;
    let part = |p: &Array| {
        start += p.shape[1];
        slice(dy, start - p.shape[1], p.shape[1])
    };
    parts.iter().map(part).collect()
}

/// Images (batch, channels, height, width) as windows (batch, patches, channels · window²): for every element of the windows
/// the pixel it is, none beyond the image.
fn windows(image: Shape, patch: usize, margin: usize) -> (Shape, Vec<Option<usize>>) {
    let [batch, channels, height, width] = image[..] else { unreachable!("rank 4") };
    let (down, across, side) = (height / patch, width / patch, patch + 2 * margin);
    let shape = Shape::from([batch, down * across, channels * side * side]);
    let pixel = |place: usize| {
        let (column, row, channel) = (place % side, place / side % side, place / (side * side) % channels);
        let tile = place / (side * side * channels);
        let (b, tile_row, tile_column) = (tile / (down * across), tile / across % down, tile % across);
        let (y, x) = (tile_row * patch + row, tile_column * patch + column);
        let inside = y >= margin && y < height + margin && x >= margin && x < width + margin;
        inside.then(|| ((b * channels + channel) * height + y - margin) * width + x - margin)
    };
    (shape, (0..shape.elements()).map(pixel).collect())
}

/// The windows of images, zero beyond the image.
pub(in super::super) fn unfold(x: &Array, patch: usize, margin: usize) -> Array {
    let (shape, pixels) = windows(x.shape, patch, margin);
    let data = pixels.iter().map(|pixel| pixel.map_or(0.0, |pixel| x.data[pixel]));
    Array::new(shape, data.collect())
}

/// Every pixel's sum over the windows that hold it.
pub(in super::super) fn fold(image: Shape, patch: usize, margin: usize, dwindows: &Array) -> Array {
    let mut dimage = Array::zeros(image);
    for (pixel, d) in windows(image, patch, margin).1.iter().zip(&dwindows.data) {
        if let Some(pixel) = pixel {
            dimage.data[*pixel] += d;
        }
    }
    dimage
}

/// Entries of `table` (vocab, …) by number, one after the other.
pub(in super::super) fn gather(table: &Array, ids: &[i32]) -> Vec<f64> {
    let entry = table.data.len() / table.shape[0];
    let one = |id: &i32| &table.data[*id as usize * entry..][..entry];
    ids.iter().flat_map(one).copied().collect()
}

/// The sum of dy over the places of every entry.
pub(in super::super) fn gather_backward(table: &Array, ids: &[i32], dy: &Array) -> Vec<Array> {
    let entry = table.data.len() / table.shape[0];
    let mut dtable = Array::zeros(table.shape);
    for (id, dy) in ids.iter().zip(dy.data.chunks(entry)) {
        let entry = &mut dtable.data[*id as usize * entry..][..entry];
        entry.iter_mut().zip(dy).for_each(|(t, d)| *t += d);
    }
    vec![dtable]
}

/// Dropout's factors for `len` elements: 0 with probability p, else 1/(1 − p), by the generator of kernels/src/cpu/random.rs
/// written once more: `SplitMix64` spreads the seed over two keys, between which the index passes MurmurHash3's finaliser
/// twice.
pub(in super::super) fn dropout_factors(len: usize, p: f64, seed: u64) -> Vec<f64> {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    let key = z ^ (z >> 31);
    let finalise = |x: u32| {
        let x = (x ^ (x >> 16)).wrapping_mul(0x85eb_ca6b);
        let x = (x ^ (x >> 13)).wrapping_mul(0xc2b2_ae35);
        x ^ (x >> 16)
    };
    let factor = |index: usize| {
        let bits = finalise(finalise(index as u32 ^ key as u32).wrapping_add((key >> 32) as u32));
        let uniform = f64::from(bits >> 8) / f64::from(1 << 24);
        if uniform >= p { 1.0 / (1.0 - p) } else { 0.0 }
    };
    (0..len).map(factor).collect()
}
