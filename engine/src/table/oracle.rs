//! The oracles: each op and its gradients once more in plain f64 loops, as the formulas read.
//!
//! `x_backward` has the gradients of `Σ y ⊙ dy` with respect to the inputs of `x`, in their order.

mod attention;
mod layout;
mod losses;

pub(super) use attention::{Sight, attention, attention_backward, attention_weights};
pub(super) use layout::*;
pub(super) use losses::*;

use super::Array;
use crate::Activation;
use rayon::prelude::*;

/// The sums Σ_l a(i, l)·b(l, j) as (rows, cols), l up to `k`; elements side by side on all cores, each in the order of l.
fn product(
    [rows, cols, k]: [usize; 3],
    a: impl Fn(usize, usize) -> f64 + Sync,
    b: impl Fn(usize, usize) -> f64 + Sync,
) -> Vec<f64> {
    let element = |place: usize| (0..k).map(|l| a(place / cols, l) * b(l, place % cols)).sum();
    (0..rows * cols).into_par_iter().map(element).collect()
}

/// a (…, m, k) by b (…, k, n), or by b (…, n, k) transposed.
pub(super) fn matmul(a: &Array, b: &Array, transposed: bool) -> Array {
    let (m, k) = (a.shape[a.shape.len() - 2], a.shape.last());
    let n = b.data.len() / (a.data.len() / m);
    let one = |(a, b): (&[f64], &[f64])| {
        let b = |l: usize, j: usize| b[if transposed { j * k + l } else { l * n + j }];
        product([m, n, k], |i, l| a[i * k + l], b)
    };
    let pairs = a.data.chunks(m * k).zip(b.data.chunks(k * n));
    Array::new(a.shape.with_last(n), pairs.flat_map(one).collect())
}

/// da = dy·bᵀ and db = aᵀ·dy, or dyᵀ·a where b is transposed.
pub(super) fn matmul_backward(a: &Array, b: &Array, transposed: bool, dy: &Array) -> Vec<Array> {
    let (m, k, n) = (a.shape[a.shape.len() - 2], a.shape.last(), dy.shape.last());
    let (mut da, mut db) = (Vec::new(), Vec::new());
    for (batch, dy) in dy.data.chunks(m * n).enumerate() {
        let (a, b) = (&a.data[batch * m * k..], &b.data[batch * k * n..]);
        let b = |l: usize, j: usize| b[if transposed { j * k + l } else { l * n + j }];
        da.extend(product([m, k, n], |i, j| dy[i * n + j], |j, l| b(l, j)));
        db.extend(match transposed {
            true => product([n, k, m], |j, i| dy[i * n + j], |i, l| a[i * k + l]),
            false => product([k, n, m], |l, i| a[i * k + l], |i, j| dy[i * n + j]),
        });
    }
    vec![Array::new(a.shape, da), Array::new(b.shape, db)]
}

/// x (rows, in) by w (out, in) transposed, plus b (out).
pub(super) fn linear(x: &Array, w: &Array, b: Option<&Array>) -> Array {
    let ([outs, ins], rows) = ([w.shape[0], w.shape.last()], x.shape.rows());
    let mut y = product([rows, outs, ins], |r, i| x.data[r * ins + i], |i, o| w.data[o * ins + i]);
    if let Some(b) = b {
        y.iter_mut().enumerate().for_each(|(place, y)| *y += b.data[place % outs]);
    }
    Array::new(x.shape.with_last(outs), y)
}

/// The gradients of x, w and b.
pub(super) fn linear_backward(x: &Array, w: &Array, dy: &Array) -> Vec<Array> {
    let ([outs, ins], rows) = ([w.shape[0], w.shape.last()], x.shape.rows());
    let dy_at = |r: usize, o: usize| dy.data[r * outs + o];
    let dx = product([rows, ins, outs], dy_at, |o, i| w.data[o * ins + i]);
    let dw = product([outs, ins, rows], |o, r| dy_at(r, o), |r, i| x.data[r * ins + i]);
    let db = (0..outs).map(|o| (0..rows).map(|r| dy_at(r, o)).sum()).collect();
    vec![Array::new(x.shape, dx), Array::new(w.shape, dw), Array::new([outs], db)]
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// √(2/π)·(x + 0.044715·x³), the argument of the tanh of the approximate GELU.
fn tanh_argument(x: f64) -> f64 {
    (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))
}

pub(super) fn activation(x: f64, activation: Activation) -> f64 {
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => 0.5 * x * (1.0 + tanh_argument(x).tanh()),
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
    }
}

/// The activation's derivative.
pub(super) fn slope(x: f64, activation: Activation) -> f64 {
    let swish = |beta: f64| {
        let s = sigmoid(beta * x);
        s + beta * x * s * (1.0 - s)
    };
    let pi = std::f64::consts::PI;
    match activation {
        Activation::Gelu => 0.5 * (1.0 + erf(x / 2f64.sqrt())) + x * (-x * x / 2.0).exp() / (2.0 * pi).sqrt(),
        Activation::GeluTanh => {
            let t = tanh_argument(x).tanh();
            let inner = (2.0 / pi).sqrt() * (1.0 + 3.0 * 0.044715 * x * x);
            0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner
        }
        Activation::QuickGelu => swish(1.702),
        Activation::Silu => swish(1.0),
    }
}

/// The error function by its Taylor series, which converges everywhere and is exact enough for |x| < 4.
fn erf(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for n in 1..120 {
        term *= -x * x / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}

fn log_sum_exp(scores: &[f64]) -> f64 {
    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln()
}

/// `f` applied to every row of the last dimension.
pub(super) fn by_row(x: &Array, f: impl Fn(&[f64]) -> Vec<f64>) -> Array {
    let rows = x.shape.rows();
    Array::new(x.shape, (0..rows).flat_map(|r| f(x.row(r))).collect())
}

/// A row without its mean, if `centred`, and over its root mean square; and the factor that made it so.
fn normal(row: &[f64], eps: f64, centred: bool) -> (Vec<f64>, f64) {
    let n = row.len() as f64;
    let mean = if centred { row.iter().sum::<f64>() / n } else { 0.0 };
    let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let factor = 1.0 / (variance + eps).sqrt();
    (row.iter().map(|x| (x - mean) * factor).collect(), factor)
}

pub(super) fn layer_norm(x: &Array, w: &Array, b: &Array, eps: f64) -> Array {
    by_row(x, |row| {
        let (normal, _) = normal(row, eps, true);
        (0..row.len()).map(|i| normal[i] * w.data[i] + b.data[i]).collect()
    })
}

pub(super) fn rms_norm(x: &Array, w: &Array, eps: f64) -> Array {
    by_row(x, |row| {
        let (normal, _) = normal(row, eps, false);
        normal.iter().zip(&w.data).map(|(x, w)| x * w).collect()
    })
}

/// The gradients of x, w and, of layer norm, b. With x̂ the normal row and g = dy·w:
/// dx = factor·(g − mean g − x̂·mean(g·x̂)), without mean g where rows are not `centred`; dw = Σ dy·x̂, db = Σ dy.
pub(super) fn norm_backward(x: &Array, w: &Array, eps: f64, centred: bool, dy: &Array) -> Vec<Array> {
    let dim = x.shape.last();
    let (mut dx, mut dw, mut db) = (Array::zeros(x.shape), Array::zeros([dim]), Array::zeros([dim]));
    for (r, dx) in dx.data.chunks_mut(dim).enumerate() {
        let ((normal, factor), dy) = (normal(x.row(r), eps, centred), dy.row(r));
        let mean = |f: &dyn Fn(usize) -> f64| (0..dim).map(f).sum::<f64>() / dim as f64;
        let g = |i: usize| dy[i] * w.data[i];
        let (mean_g, mean_gx) = (if centred { mean(&g) } else { 0.0 }, mean(&|i| g(i) * normal[i]));
        for i in 0..dim {
            dx[i] = factor * (g(i) - mean_g - normal[i] * mean_gx);
            dw.data[i] += dy[i] * normal[i];
            db.data[i] += dy[i];
        }
    }
    if centred { vec![dx, dw, db] } else { vec![dx, dw] }
}

fn length(row: &[f64]) -> f64 {
    row.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// Rows of unit length.
pub(super) fn l2_normalize(x: &Array) -> Array {
    by_row(x, |row| row.iter().map(|x| x / length(row)).collect())
}

/// dx = (dy − y·⟨y, dy⟩)/‖x‖.
pub(super) fn l2_normalize_backward(x: &Array, dy: &Array) -> Vec<Array> {
    let y = l2_normalize(x);
    let one = |r: usize| {
        let (y, dy, length) = (y.row(r), dy.row(r), length(x.row(r)));
        let product: f64 = y.iter().zip(dy).map(|(y, d)| y * d).sum();
        y.iter().zip(dy).map(move |(y, d)| (d - y * product) / length).collect::<Vec<_>>()
    };
    vec![Array::new(x.shape, (0..x.shape.rows()).flat_map(one).collect())]
}

/// x (batch, tokens, heads, head_dim) turned by positions (batch · tokens) and inv_freq (head_dim / 2). Its gradient is turned
/// back: by the frequencies' negatives.
pub(super) fn rotary(x: &Array, positions: &[i32], inv_freq: &[f64]) -> Array {
    let (heads, half) = (x.shape[2], inv_freq.len());
    let mut y = x.clone();
    for (row, out) in y.data.chunks_mut(2 * half).enumerate() {
        for i in 0..half {
            let (sin, cos) = (positions[row / heads] as f64 * inv_freq[i]).sin_cos();
            let (a, b) = (x.row(row)[i], x.row(row)[i + half]);
            out[i] = a * cos - b * sin;
            out[i + half] = b * cos + a * sin;
        }
    }
    y
}
