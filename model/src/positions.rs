//! Fixed 2-D positions of patches.

use engine::{Graph, Result, Tensor, Var};
use std::sync::{Arc, OnceLock};

/// Learned positions (`leading` + `side`², `dim`) for another number of patches a side: the grid is interpolated by Keys'
/// cubic with a = -0.75 between the patches' centres, without a low-pass filter, its outermost patches going on beyond the
/// edges, as `interpolate_pos_encoding` of `transformers` does.
pub(crate) fn resize_grid(table: &[f64], leading: usize, side: usize, new: usize, dim: usize) -> Vec<f64> {
    let taps: Vec<[(usize, f64); 4]> = (0..new).map(|i| taps(i, side, new)).collect();
    let (kept, grid) = table.split_at(leading * dim);
    let mut out = kept.to_vec();
    for (row, column) in (0..new * new).map(|place| (&taps[place / new], &taps[place % new])) {
        let start = out.len();
        out.resize(start + dim, 0.0);
        for ((y, a), (x, b)) in row.iter().flat_map(|y| column.iter().map(move |x| (y, x))) {
            let patch = &grid[(y * side + x) * dim..][..dim];
            out[start..].iter_mut().zip(patch).for_each(|(out, value)| *out += a * b * value);
        }
    }
    out
}

/// The four patches of `side` that patch `i` of `new` is made of, and their weights.
fn taps(i: usize, side: usize, new: usize) -> [(usize, f64); 4] {
    const A: f64 = -0.75;
    let centre = (i as f64 + 0.5) * side as f64 / new as f64 - 0.5;
    let (first, t) = (centre.floor(), centre - centre.floor());
    let near = |d: f64| ((A + 2.0) * d - (A + 3.0)) * d * d + 1.0;
    let far = |d: f64| ((A * d - 5.0 * A) * d + 8.0 * A) * d - 4.0 * A;
    let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
    let place = |tap: usize| (first + tap as f64 - 1.0).clamp(0.0, side as f64 - 1.0) as usize;
    std::array::from_fn(|tap| (place(tap), weights[tap]))
}

/// The longest wavelength over the shortest: grids are tens of patches wide, not thousands of words long.
const BASE: f64 = 100.0;

/// Sines and cosines of a patch's column (first half of `dim`) and row (second half), one row of the table per
/// patch, row by row (Vaswani et al. 2017, in two dimensions).
#[derive(Debug, Clone)]
pub struct GridPositions {
    /// Made when first used: a model that is only described has none.
    table: Arc<OnceLock<Vec<f64>>>,
    leading: usize,
    side: usize,
    dim: usize,
}

impl GridPositions {
    /// Positions of `leading` tokens without a place (zeros), then `side·side` patches; `dim` is a multiple of 4.
    pub fn new(leading: usize, side: usize, dim: usize) -> GridPositions {
        GridPositions { table: Arc::default(), leading, side, dim }
    }

    /// The table (tokens, dim) in the model's type.
    pub fn table(&self, g: &Graph<'_>) -> Result<Var> {
        let params = g.params();
        let shape = [self.leading + self.side * self.side, self.dim];
        let table = Tensor::from_slice(params.device(), self.table.get_or_init(|| self.values()), shape)?;
        Ok(g.input(table.cast(params.dtype())?))
    }

    fn values(&self) -> Vec<f64> {
        let (side, dim) = (self.side, self.dim);
        let mut table = vec![0.0; self.leading * dim];
        for token in 0..side * side {
            for place in [token % side, token / side] {
                let angle = |i: usize| (place as f64 + 0.5) * BASE.powf(-(i as f64) / (dim / 4) as f64);
                table.extend((0..dim / 4).map(|i| angle(i).sin()));
                table.extend((0..dim / 4).map(|i| angle(i).cos()));
            }
        }
        table
    }
}

#[cfg(test)]
mod tests {
    use super::resize_grid;

    /// Cubic convolution as Keys (1981) writes it, summed over every patch there is, those beyond the edges included.
    fn oracle(grid: &[f64], side: usize, new: usize, row: usize, column: usize) -> f64 {
        let a = -0.75f64;
        let kernel = |x: f64| match x.abs() {
            x if x <= 1.0 => (a + 2.0) * x.powi(3) - (a + 3.0) * x.powi(2) + 1.0,
            x if x < 2.0 => a * x.powi(3) - 5.0 * a * x.powi(2) + 8.0 * a * x - 4.0 * a,
            _ => 0.0,
        };
        let scale = side as f64 / new as f64;
        let centre = |i: usize| scale * (i as f64 + 0.5) - 0.5;
        let reach = side as i64;
        let mut sum = 0.0;
        for y in -2..reach + 2 {
            for x in -2..reach + 2 {
                let weight = kernel(centre(row) - y as f64) * kernel(centre(column) - x as f64);
                let [y, x] = [y, x].map(|i| i.clamp(0, reach - 1) as usize);
                sum += weight * grid[y * side + x];
            }
        }
        sum
    }

    #[test]
    fn a_grid_of_another_side_is_interpolated_as_the_reference_does() {
        for (leading, side, new) in [(1, 4, 8), (0, 7, 5), (1, 3, 3), (0, 1, 4), (1, 14, 24)] {
            let rows = leading + side * side;
            let table: Vec<f64> = (0..rows * 2).map(|i| (i as f64 * 1.37).sin()).collect();
            let out = resize_grid(&table, leading, side, new, 2);
            assert_eq!((out.len(), &out[..2 * leading]), ((leading + new * new) * 2, &table[..2 * leading]));
            for channel in 0..2 {
                let grid: Vec<f64> = (0..side * side).map(|i| table[(leading + i) * 2 + channel]).collect();
                for place in 0..new * new {
                    let expected = oracle(&grid, side, new, place / new, place % new);
                    let found = out[(leading + place) * 2 + channel];
                    assert!((found - expected).abs() < 1e-12, "{side} to {new}: {found} {expected}");
                }
            }
        }
        // Of ONNX's Resize (cubic_coeff_a = -0.75, half_pixel), which is PyTorch's bicubic: 1 to 16 to twice the side, the first
        // row.
        let table: Vec<f64> = (1..=16).map(f64::from).collect();
        let out = resize_grid(&table, 0, 4, 8, 1);
        let expected = [0.47265625, 0.76953125, 1.24609375, 1.875, 2.28125, 2.91015625, 3.38671875, 3.68359375];
        assert!(out.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-12), "{out:?}");
    }
}
