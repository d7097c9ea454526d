//! Attention as the textbook writes it, in double precision with the whole score matrix.

use kernels::attention::Mask;

/// A call in plain numbers.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) batch: usize,
    pub(crate) q_len: usize,
    pub(crate) k_len: usize,
    pub(crate) q_heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) dim: usize,
    pub(crate) mask: Mask,
    pub(crate) kv_stride: usize,
    pub(crate) q_lens: Option<Vec<i32>>,
    pub(crate) k_lens: Option<Vec<i32>>,
    pub(crate) segments: Option<Vec<i32>>,
    pub(crate) dropout: f64,
}

impl Case {
    pub(crate) fn new(
        (q_len, k_len): (usize, usize),
        (q_heads, kv_heads): (usize, usize),
        dim: usize,
        mask: Mask,
    ) -> Case {
        Case {
            batch: 2,
            q_len,
            k_len,
            q_heads,
            kv_heads,
            dim,
            mask,
            kv_stride: k_len,
            q_lens: None,
            k_lens: None,
            segments: None,
            dropout: 0.0,
        }
    }

    pub(crate) fn scale(&self) -> f64 {
        1.0 / (self.dim as f64).sqrt()
    }

    pub(crate) fn q_size(&self) -> usize {
        self.batch * self.q_len * self.q_heads * self.dim
    }

    pub(crate) fn kv_size(&self) -> usize {
        self.batch * self.kv_stride * self.kv_heads * self.dim
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch * self.q_heads * self.q_len
    }

    fn q_at(&self, b: usize, h: usize, i: usize) -> usize {
        ((b * self.q_len + i) * self.q_heads + h) * self.dim
    }

    fn kv_at(&self, b: usize, h: usize, j: usize) -> usize {
        let head = h / (self.q_heads / self.kv_heads);
        ((b * self.kv_stride + j) * self.kv_heads + head) * self.dim
    }

    fn sees(&self, b: usize, i: usize, j: usize) -> bool {
        let place = i as isize + self.k_len as isize - self.q_len as isize;
        let mask = match self.mask {
            Mask::Full => true,
            Mask::Causal => j as isize <= place,
            Mask::Window(window) => j as isize <= place && j as isize > place - window as isize,
            Mask::PrefixCausal(prefix) => (i < prefix && j < prefix) || (i >= prefix && j <= i),
        };
        let within = |lens: &Option<Vec<i32>>, at: usize| lens.as_ref().is_none_or(|lens| (at as i32) < lens[b]);
        let segment = self.segments.as_ref().is_none_or(|segments| {
            let key = segments[b * self.k_len + j];
            key == 0 || (key > 0 && key == segments[b * self.k_len + place as usize])
        });
        mask && within(&self.q_lens, i) && within(&self.k_lens, j) && segment
    }

    /// Calls `f(row, q offset, [(key, kv offset, score)])` for each batch, head and query; keys are those seen.
    fn each_row(&self, q: &[f64], k: &[f64], mut f: impl FnMut(usize, usize, &[(usize, usize, f64)])) {
        for row in 0..self.rows() {
            let (b, h, i) = (row / self.q_len / self.q_heads, row / self.q_len % self.q_heads, row % self.q_len);
            let at = self.q_at(b, h, i);
            let keys = (0..self.k_len).filter(|&j| self.sees(b, i, j));
            let scores: Vec<_> = keys
                .map(|j| {
                    let key = self.kv_at(b, h, j);
                    (j, key, self.scale() * dot(&q[at..][..self.dim], &k[key..][..self.dim]))
                })
                .collect();
            f(row, at, &scores);
        }
    }
}

fn dot(x: &[f64], y: &[f64]) -> f64 {
    x.iter().zip(y).map(|(x, y)| x * y).sum()
}

/// Output, log-sum-exp and softmax weights before dropout.
pub(crate) struct Forward {
    pub(crate) out: Vec<f64>,
    pub(crate) lse: Vec<f64>,
    pub(crate) weights: Vec<f64>,
}

/// `keep` holds the factor of each weight, `(batch, q_heads, q_len, k_len)`.
pub(crate) fn forward(c: &Case, q: &[f64], k: &[f64], v: &[f64], keep: &[f64]) -> Forward {
    let (mut out, mut lse) = (vec![0.0; c.q_size()], vec![f64::NEG_INFINITY; c.rows()]);
    let mut weights = vec![0.0; c.rows() * c.k_len];
    c.each_row(q, k, |row, at, scores| {
        let largest = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(s.2));
        let sum: f64 = scores.iter().map(|s| (s.2 - largest).exp()).sum();
        if !scores.is_empty() {
            lse[row] = largest + sum.ln();
        }
        for &(j, value, score) in scores {
            let weight = (score - lse[row]).exp();
            weights[row * c.k_len + j] = weight;
            for d in 0..c.dim {
                out[at + d] += weight * keep[row * c.k_len + j] * v[value + d];
            }
        }
    });
    Forward { out, lse, weights }
}

/// dq, dk and dv.
pub(crate) fn backward(c: &Case, q: &[f64], k: &[f64], v: &[f64], keep: &[f64], dout: &[f64]) -> [Vec<f64>; 3] {
    let weights = forward(c, q, k, v, keep).weights;
    let (mut dq, mut dk, mut dv) = (vec![0.0; c.q_size()], vec![0.0; c.kv_size()], vec![0.0; c.kv_size()]);
    c.each_row(q, k, |row, at, scores| {
        let (p, keep) = (&weights[row * c.k_len..], &keep[row * c.k_len..]);
        let dout = &dout[at..][..c.dim];
        let dp: Vec<f64> = scores.iter().map(|&(j, key, _)| keep[j] * dot(dout, &v[key..][..c.dim])).collect();
        let mean: f64 = scores.iter().zip(&dp).map(|(s, dp)| p[s.0] * dp).sum();
        for (&(j, key, _), dp) in scores.iter().zip(&dp) {
            let ds = c.scale() * p[j] * (dp - mean);
            for d in 0..c.dim {
                dq[at + d] += ds * k[key + d];
                dk[key + d] += ds * q[at + d];
                dv[key + d] += p[j] * keep[j] * dout[d];
            }
        }
    });
    [dq, dk, dv]
}
