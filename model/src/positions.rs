//! Fixed 2-D positions of patches.

use engine::{Graph, Result, Tensor, Var};
use std::sync::{Arc, OnceLock};

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
        GridPositions {
            table: Arc::default(),
            leading,
            side,
            dim,
        }
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
