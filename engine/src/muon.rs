//! Muon (Jordan et al. 2024): momentum whose every matrix is brought near the closest orthogonal one before it is
//! applied, so that all directions of a matrix move equally far. For matrices inside blocks; the rest takes AdamW.

use crate::error::Result;
use crate::{DType, Tensor};
use kernels::elementwise::{axpy_by, scale, scale_by};
use kernels::gemm::{Epilogue, Gemm, Layout, gemm};
use kernels::optimizer::{NormScale, norm_scale, sum_squares};

/// Decay of the momentum.
const MOMENTUM: f64 = 0.95;
/// Rounds of the Newton–Schulz iteration and its polynomial's coefficients, as published.
const ROUNDS: usize = 5;
const COEFFICIENTS: [f64; 3] = [3.4445, -4.7750, 2.0315];
/// Brings the update's size to that of AdamW's, so that learning rates compare (Liu et al. 2025, "Muon is scalable").
const SIZE: f64 = 0.2;

/// Updates `momentum` with `gradient` (times `grad_scale`, one number) and returns what to add to the weights per unit of
/// learning rate: all in the accumulator's type, both matrices (rows, columns).
pub(crate) fn direction(gradient: &Tensor, momentum: &mut Tensor, grad_scale: &Tensor) -> Result<Tensor> {
    let mut decayed = momentum.like()?;
    scale(momentum.view(), &mut decayed.view_mut()?, MOMENTUM)?;
    axpy_by(gradient.view(), grad_scale.view(), &mut decayed.view_mut()?, 1.0)?;
    let mut ahead = momentum.like()?;
    scale(decayed.view(), &mut ahead.view_mut()?, MOMENTUM)?;
    axpy_by(gradient.view(), grad_scale.view(), &mut ahead.view_mut()?, 1.0)?;
    *momentum = decayed;
    let (rows, columns) = (gradient.shape()[0], gradient.shape()[1]);
    let factor = -SIZE * (rows.max(columns) as f64).sqrt();
    let orthogonal = orthogonalize(&ahead)?;
    let mut out = orthogonal.like()?;
    scale(orthogonal.view(), &mut out.view_mut()?, factor)?;
    Ok(out)
}

/// The orthogonal factor of `x` (rows, columns), roughly: singular values end between 0.7 and 1.2.
/// `X ← aX + (bA + cA²)X` with `A = XXᵀ`, taken on the shorter side.
fn orthogonalize(x: &Tensor) -> Result<Tensor> {
    let [a, b, c] = COEFFICIENTS;
    let wide = x.shape()[0] <= x.shape()[1];
    let mut x = normalized(x)?;
    for _ in 0..ROUNDS {
        let gram = match wide {
            true => product(Layout::Nt, &x, &x, Epilogue::default())?,
            false => product(Layout::Tn, &x, &x, Epilogue::default())?,
        };
        let (linear, kept) = (scaled(&gram, b)?, scaled(&x, a)?);
        let square = Epilogue { alpha: Some(c), residual: Some(linear.view()), ..Epilogue::default() };
        let polynomial = product(Layout::Nn, &gram, &gram, square)?;
        let sum = Epilogue { residual: Some(kept.view()), ..Epilogue::default() };
        x = match wide {
            true => product(Layout::Nn, &polynomial, &x, sum)?,
            false => product(Layout::Nn, &x, &polynomial, sum)?,
        };
    }
    Ok(x)
}

/// `x` over its Frobenius norm.
fn normalized(x: &Tensor) -> Result<Tensor> {
    let mut squares = Tensor::empty(x.device(), DType::F64, [1])?;
    sum_squares(x.view(), &mut squares.view_mut()?)?;
    let mut factor = Tensor::empty(x.device(), x.dtype(), [1])?;
    norm_scale(squares.view(), NormScale::Unit, &mut factor.view_mut()?)?;
    let mut out = x.like()?;
    scale_by(x.view(), factor.view(), &mut out.view_mut()?, 1.0)?;
    Ok(out)
}

fn scaled(x: &Tensor, factor: f64) -> Result<Tensor> {
    let mut out = x.like()?;
    scale(x.view(), &mut out.view_mut()?, factor)?;
    Ok(out)
}

/// The product of two matrices that fit.
fn product(layout: Layout, a: &Tensor, b: &Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let (a_shape, b_shape) = (a.shape(), b.shape());
    let (m, k) = match layout {
        Layout::Tn => (a_shape[1], a_shape[0]),
        Layout::Nn | Layout::Nt => (a_shape[0], a_shape[1]),
    };
    let n = match layout {
        Layout::Nt => b_shape[0],
        Layout::Nn | Layout::Tn => b_shape[1],
    };
    let mut c = Tensor::empty(a.device(), a.dtype(), [m, n])?;
    gemm(Gemm::new(layout, m, n, k), a.view(), b.view(), &mut c.view_mut()?, epilogue)?;
    Ok(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;
    use crate::table::Array;

    #[test]
    fn wide_and_tall_matrices_become_nearly_orthogonal() -> Result<()> {
        for shape in [[12, 40], [40, 12], [16, 16]] {
            let x = Array::random(shape, 3.0, 7).tensor(&Device::cpu(), DType::F64)?;
            let q = orthogonalize(&x)?.to_f64()?;
            let [rows, columns] = shape;
            // The Gram matrix on the shorter side has the squared singular values' sum as its trace.
            let trace: f64 = q.iter().map(|v| v * v).sum();
            let side = rows.min(columns) as f64;
            assert!((0.7 * 0.7 * side..1.2 * 1.2 * side).contains(&trace), "{shape:?}: {trace}");
            let dot = |i: usize, j: usize| match rows <= columns {
                true => (0..columns).map(|k| q[i * columns + k] * q[j * columns + k]).sum::<f64>(),
                false => (0..rows).map(|k| q[k * columns + i] * q[k * columns + j]).sum::<f64>(),
            };
            let worst = (1..side as usize).map(|i| dot(0, i).abs()).fold(0.0, f64::max);
            assert!(worst < 0.35, "{shape:?}: rows 0 and another overlap by {worst}");
        }
        Ok(())
    }

    #[test]
    fn the_first_direction_opposes_the_gradient() -> Result<()> {
        let gradient = Array::random([6, 9], 1.0, 3).tensor(&Device::cpu(), DType::F64)?;
        let mut momentum = Tensor::zeros(&Device::cpu(), DType::F64, [6, 9])?;
        let half = Tensor::full(&Device::cpu(), DType::F64, [1], 0.5)?;
        let step = direction(&gradient, &mut momentum, &half)?.to_f64()?;
        let dot: f64 = step.iter().zip(gradient.to_f64()?).map(|(s, g)| s * g).sum();
        assert!(dot < 0.0);
        let halved: Vec<f64> = gradient.to_f64()?.iter().map(|g| 0.5 * g).collect();
        assert_eq!(momentum.to_f64()?, halved, "momentum starts as the scaled gradient");
        Ok(())
    }
}
