//! The oracles: each op once more in plain f64 loops, as its formula reads.

use super::Array;
use crate::{Activation, Mask, Shape};

/// a (…, m, k) by b (…, k, n), or by b (…, n, k) transposed.
pub(super) fn matmul(a: &Array, b: &Array, transposed: bool) -> Array {
    let (k, m) = (a.shape.last(), a.shape[a.shape.len() - 2]);
    let n = b.data.len() / (a.data.len() / m);
    let at = |batch: usize, i: usize, j: usize| {
        if transposed {
            batch * n * k + j * k + i
        } else {
            batch * k * n + i * n + j
        }
    };
    let mut out = Array::zeros(a.shape.with_last(n));
    for (place, value) in out.data.iter_mut().enumerate() {
        let (batch, row, j) = (place / (m * n), place / n, place % n);
        *value = (0..k).map(|i| a.data[row * k + i] * b.data[at(batch, i, j)]).sum();
    }
    out
}

/// x (rows, in) by w (out, in) transposed, plus b (out).
pub(super) fn linear(x: &Array, w: &Array, b: Option<&Array>) -> Array {
    let out = w.shape[0];
    let mut y = Array::zeros(x.shape.with_last(out));
    for (place, value) in y.data.iter_mut().enumerate() {
        let (row, o) = (place / out, place % out);
        let product: f64 = x.row(row).iter().zip(w.row(o)).map(|(x, w)| x * w).sum();
        *value = product + b.map_or(0.0, |b| b.data[o]);
    }
    y
}

pub(super) fn activation(x: f64, activation: Activation) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match activation {
        Activation::Gelu => 0.5 * x * (1.0 + erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
        }
        Activation::QuickGelu => x * sigmoid(1.702 * x),
        Activation::Silu => x * sigmoid(x),
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

/// `f` applied to every row of the last dimension.
pub(super) fn by_row(x: &Array, f: impl Fn(&[f64]) -> Vec<f64>) -> Array {
    let rows = x.shape.rows();
    Array {
        shape: x.shape,
        data: (0..rows).flat_map(|r| f(x.row(r))).collect(),
    }
}

pub(super) fn layer_norm(x: &Array, w: &Array, b: &Array, eps: f64) -> Array {
    by_row(x, |row| {
        let n = row.len() as f64;
        let mean = row.iter().sum::<f64>() / n;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let normal = row.iter().map(|x| (x - mean) / (variance + eps).sqrt());
        normal
            .zip(w.data.iter().zip(&b.data))
            .map(|(x, (w, b))| x * w + b)
            .collect()
    })
}

pub(super) fn rms_norm(x: &Array, w: &Array, eps: f64) -> Array {
    by_row(x, |row| {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter()
            .zip(&w.data)
            .map(|(x, w)| x / (mean + eps).sqrt() * w)
            .collect()
    })
}

/// x (batch, tokens, heads, head_dim) turned by positions (batch · tokens) and inv_freq (head_dim / 2).
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

/// Which keys a query sees, as attention's contract says it.
#[derive(Clone, Default)]
pub(super) struct Sight {
    pub(super) mask: Mask,
    pub(super) q_lens: Option<Vec<i32>>,
    pub(super) k_lens: Option<Vec<i32>>,
    pub(super) segments: Option<Vec<i32>>,
}

impl Sight {
    fn sees(&self, batch: usize, (i, q_len): (usize, usize), (j, k_len): (usize, usize)) -> bool {
        let by_mask = match self.mask {
            Mask::Full => true,
            Mask::Causal => j + q_len <= i + k_len,
            Mask::Window(window) => j + q_len <= i + k_len && j + q_len + window > i + k_len,
            Mask::PrefixCausal(prefix) => j < prefix || (i >= prefix && j <= i),
        };
        let within = |lens: &Option<Vec<i32>>, place: usize| lens.as_ref().is_none_or(|l| (place as i32) < l[batch]);
        let by_segment = self.segments.as_ref().is_none_or(|s| {
            let (key, query) = (s[batch * k_len + j], s[batch * k_len + i + k_len - q_len]);
            key == 0 || (key > 0 && key == query)
        });
        by_mask && within(&self.q_lens, i) && within(&self.k_lens, j) && by_segment
    }
}

/// softmax(q·kᵀ/√head_dim)·v over the keys each query sees; q (batch, queries, heads, head_dim), k, v (batch, keys, kv_heads, head_dim).
pub(super) fn attention(q: &Array, k: &Array, v: &Array, sight: &Sight) -> Array {
    let ([_, q_len, heads, dim], [_, k_len, kv_heads, _]) = (&q.shape[..], &k.shape[..]) else {
        unreachable!("rank 4")
    };
    by_rows_of(q, *dim, |row| {
        let (batch, i, head) = (row / (q_len * heads), row / heads % q_len, row % heads);
        let key_row = |j: usize| (batch * k_len + j) * kv_heads + head / (heads / kv_heads);
        let seen: Vec<usize> = (0..*k_len)
            .filter(|j| sight.sees(batch, (i, *q_len), (*j, *k_len)))
            .collect();
        let dot = |j: &usize| {
            q.row(row)
                .iter()
                .zip(k.row(key_row(*j)))
                .map(|(a, b)| a * b)
                .sum::<f64>()
                / (*dim as f64).sqrt()
        };
        let scores: Vec<f64> = seen.iter().map(dot).collect();
        let weights = softmax(&scores);
        (0..*dim)
            .map(|d| seen.iter().zip(&weights).map(|(j, w)| w * v.row(key_row(*j))[d]).sum())
            .collect()
    })
}

fn by_rows_of(like: &Array, width: usize, f: impl Fn(usize) -> Vec<f64>) -> Array {
    Array {
        shape: like.shape,
        data: (0..like.data.len() / width).flat_map(f).collect(),
    }
}

fn softmax(scores: &[f64]) -> Vec<f64> {
    let lse = log_sum_exp(scores);
    scores.iter().map(|s| (s - lse).exp()).collect()
}

fn log_sum_exp(scores: &[f64]) -> f64 {
    let max = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln()
}

/// Mean cross-entropy of the logits x·wᵀ over rows whose target is not −100.
pub(super) fn cross_entropy(x: &Array, w: &Array, targets: &[i32], smoothing: f64) -> Array {
    let logits = linear(x, w, None);
    let vocab = w.shape[0] as f64;
    let losses: Vec<f64> = (0..targets.len())
        .filter(|r| targets[*r] != -100)
        .map(|r| {
            let row = logits.row(r);
            let lse = log_sum_exp(row);
            let spread = row.iter().map(|l| lse - l).sum::<f64>() / vocab;
            (1.0 - smoothing) * (lse - row[targets[r] as usize]) + smoothing * spread
        })
        .collect();
    Array::new([1], vec![losses.iter().sum::<f64>() / losses.len().max(1) as f64])
}

/// Scores max_q ⟨image[i, q], text[j]⟩ as (n, n).
fn scores(image: &Array, text: &Array) -> Vec<Vec<f64>> {
    let (n, groups) = (text.shape[0], image.data.len() / text.data.len());
    let dot = |q: usize, j: usize| image.row(q).iter().zip(text.row(j)).map(|(a, b)| a * b).sum::<f64>();
    let best = |i: usize, j: usize| {
        (0..groups)
            .map(|q| dot(i * groups + q, j))
            .fold(f64::NEG_INFINITY, f64::max)
    };
    (0..n).map(|i| (0..n).map(|j| best(i, j)).collect()).collect()
}

pub(super) fn clip_loss(image: &Array, text: &Array, log_scale: &Array) -> Array {
    let scale = log_scale.data[0].exp().min(100.0);
    let scores: Vec<Vec<f64>> = scores(image, text)
        .iter()
        .map(|r| r.iter().map(|s| s * scale).collect())
        .collect();
    let n = scores.len();
    let column = |j: usize| (0..n).map(|i| scores[i][j]).collect::<Vec<_>>();
    let total: f64 = (0..n)
        .map(|i| log_sum_exp(&scores[i]) + log_sum_exp(&column(i)) - 2.0 * scores[i][i])
        .sum();
    Array::new([1], vec![total / (2 * n) as f64])
}

pub(super) fn siglip_loss(image: &Array, text: &Array, log_scale: &Array, bias: &Array) -> Array {
    let scale = log_scale.data[0].exp().min(100.0);
    let scores = scores(image, text);
    let n = scores.len();
    let term = |i: usize, j: usize| {
        let logit = scores[i][j] * scale + bias.data[0];
        (1.0 + (if i == j { -logit } else { logit }).exp()).ln()
    };
    let total: f64 = (0..n).map(|i| (0..n).map(|j| term(i, j)).sum::<f64>()).sum();
    Array::new([1], vec![total / n as f64])
}

/// Sum over `axis`, times `factor(size)`.
pub(super) fn sum_axis(x: &Array, axis: usize, factor: impl Fn(usize) -> f64) -> Array {
    let (axis_len, inner) = (x.shape[axis], x.shape[axis + 1..].iter().product::<usize>());
    let mut out = Array::zeros(&[&x.shape[..axis], &x.shape[axis + 1..]].concat()[..]);
    for (place, value) in x.data.iter().enumerate() {
        out.data[place / (axis_len * inner) * inner + place % inner] += value * factor(axis_len);
    }
    out
}

/// Tokens `start .. start + count` of (batch, tokens, dim).
pub(super) fn slice(x: &Array, start: usize, count: usize) -> Array {
    let [batch, tokens, dim] = x.shape[..] else {
        unreachable!("rank 3")
    };
    let data = (0..batch)
        .flat_map(|b| x.data[(b * tokens + start) * dim..][..count * dim].to_vec())
        .collect();
    Array::new([batch, count, dim], data)
}

/// Several (batch, tokens, dim) joined along the tokens.
pub(super) fn concat(parts: &[Array]) -> Array {
    let (batch, dim) = (parts[0].shape[0], parts[0].shape[2]);
    let block = |b: usize, p: &Array| p.data[b * p.shape[1] * dim..][..p.shape[1] * dim].to_vec();
    let data = (0..batch)
        .flat_map(|b| parts.iter().flat_map(move |p| block(b, p)).collect::<Vec<_>>())
        .collect();
    Array::new([batch, parts.iter().map(|p| p.shape[1]).sum(), dim], data)
}

/// Images (batch, channels, height, width) as windows (batch, patches, channels · window²), zero beyond the image.
pub(super) fn unfold(x: &Array, patch: usize, margin: usize) -> Array {
    let [batch, channels, height, width] = x.shape[..] else {
        unreachable!("rank 4")
    };
    let (down, across, side) = (height / patch, width / patch, patch + 2 * margin);
    let shape = Shape::from([batch, down * across, channels * side * side]);
    let pixel = |place: usize| {
        let (column, row, channel) = (place % side, place / side % side, place / (side * side) % channels);
        let tile = place / (side * side * channels);
        let (b, tile_row, tile_column) = (tile / (down * across), tile / across % down, tile % across);
        let (y, x0) = (tile_row * patch + row, tile_column * patch + column);
        let inside = y >= margin && y < height + margin && x0 >= margin && x0 < width + margin;
        if inside {
            x.data[((b * channels + channel) * height + y - margin) * width + x0 - margin]
        } else {
            0.0
        }
    };
    Array {
        shape,
        data: (0..shape.elements()).map(pixel).collect(),
    }
}
