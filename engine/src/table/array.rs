//! Plain f64 arrays: what oracles compute on.

use crate::{DType, Device, Result, Shape, Tensor};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A shape and row-major doubles.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// The sizes.
    pub shape: Shape,
    /// The elements.
    pub data: Vec<f64>,
}

impl Array {
    /// An array from its elements.
    pub fn new(shape: impl Into<Shape>, data: Vec<f64>) -> Array {
        let shape = shape.into();
        assert_eq!(shape.elements(), data.len(), "elements for shape {shape}");
        Array { shape, data }
    }

    /// Zeros.
    pub fn zeros(shape: impl Into<Shape>) -> Array {
        let shape = shape.into();
        Array { shape, data: vec![0.0; shape.elements()] }
    }

    /// Roughly normal values from a seed (the sum of twelve uniforms), times `scale`.
    pub fn random(shape: impl Into<Shape>, scale: f64, seed: u64) -> Array {
        let shape = shape.into();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let normal = |_| scale * ((0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0);
        Array { shape, data: (0..shape.elements()).map(normal).collect() }
    }

    /// On a device, rounded to `dtype`.
    pub fn tensor(&self, device: &Device, dtype: DType) -> Result<Tensor> {
        Tensor::from_slice(device, &self.data, self.shape)?.cast(dtype)
    }

    /// What is left after rounding to `dtype`.
    pub fn rounded(&self, dtype: DType) -> Result<Array> {
        let data = self.tensor(&Device::cpu(), dtype)?.to_f64()?;
        Ok(Array { shape: self.shape, data })
    }

    /// The largest magnitude.
    pub fn largest(&self) -> f64 {
        self.data.iter().fold(0.0, |m, x| x.abs().max(m))
    }

    /// Entry `row` of the matrix (rows, last dimension).
    pub(super) fn row(&self, row: usize) -> &[f64] {
        let width = self.shape.last();
        &self.data[row * width..(row + 1) * width]
    }

    /// An array of the same shape, element by element.
    pub(super) fn map(&self, f: impl Fn(f64) -> f64) -> Array {
        Array { shape: self.shape, data: self.data.iter().map(|x| f(*x)).collect() }
    }

    /// Two arrays of one shape, element by element.
    pub(super) fn zip(&self, other: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
        let data = self.data.iter().zip(&other.data).map(|(x, y)| f(*x, *y)).collect();
        Array { shape: self.shape, data }
    }
}
