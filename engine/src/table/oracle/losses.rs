//! The losses in plain loops.

use super::{Array, linear, linear_backward, log_sum_exp, product};

/// Mean cross-entropy of the logits x·wᵀ over rows whose target is not −100.
pub(in super::super) fn cross_entropy(x: &Array, w: &Array, targets: &[i32]) -> Array {
    let logits = linear(x, w, None);
    let losses: Vec<f64> = counted(targets)
        .map(|r| {
            let row = logits.row(r);
            let lse = log_sum_exp(row);
            lse - row[targets[r] as usize]
        })
        .collect();
    Array::new([1], vec![losses.iter().sum::<f64>() / losses.len().max(1) as f64])
}

fn counted(targets: &[i32]) -> impl Iterator<Item = usize> + '_ {
    (0..targets.len()).filter(|r| targets[*r] != -100)
}

/// The gradients of x and w: through dz = (softmax z − δ_t) / rows that count.
pub(in super::super) fn cross_entropy_backward(x: &Array, w: &Array, targets: &[i32], dloss: &Array) -> Vec<Array> {
    let logits = linear(x, w, None);
    let (vocab, weight) = (w.shape[0], dloss.data[0] / counted(targets).count().max(1) as f64);
    let mut dz = Array::zeros(logits.shape);
    for r in counted(targets) {
        let lse = log_sum_exp(logits.row(r));
        for (c, d) in dz.data[r * vocab..(r + 1) * vocab].iter_mut().enumerate() {
            let own = f64::from(c == targets[r] as usize);
            *d = weight * ((logits.row(r)[c] - lse).exp() - own);
        }
    }
    // Rows that do not count may hold anything, and 0·NaN is NaN.
    let mut kept = Array::zeros(x.shape);
    let dim = x.shape.last();
    counted(targets).for_each(|r| kept.data[r * dim..(r + 1) * dim].copy_from_slice(x.row(r)));
    linear_backward(&kept, w, &dz)[..2].to_vec()
}

/// Scores of n images with some queries each, (n, queries, dim) or (n, dim), and n texts.
struct Scores {
    n: usize,
    queries: usize,
    /// exp(log_scale).
    scale: f64,
    /// max_q ⟨image[i, q], text[j]⟩ as (n, n), without the scale, and the first q that has it.
    best: Vec<(f64, usize)>,
}

impl Scores {
    fn new(image: &Array, text: &Array, log_scale: &Array) -> Scores {
        let (n, dim) = (text.shape[0], text.shape.last());
        let queries = image.data.len() / text.data.len();
        let dots = product([n * queries, n, dim], |row, d| image.data[row * dim + d], |d, j| text.data[j * dim + d]);
        let larger = |a: (f64, usize), b: (f64, usize)| if b.0 > a.0 { b } else { a };
        let best = |place: usize| {
            let (i, j) = (place / n, place % n);
            let all = (0..queries).map(|q| (dots[(i * queries + q) * n + j], q));
            all.reduce(larger).expect("an image has a query")
        };
        Scores { n, queries, scale: log_scale.data[0].exp(), best: (0..n * n).map(best).collect() }
    }

    fn row(&self, i: usize) -> Vec<f64> {
        (0..self.n).map(|j| self.at(i, j)).collect()
    }

    fn column(&self, j: usize) -> Vec<f64> {
        (0..self.n).map(|i| self.at(i, j)).collect()
    }

    fn at(&self, i: usize, j: usize) -> f64 {
        self.best[i * self.n + j].0 * self.scale
    }

    /// The gradients of image, text and log_scale from those of the scores, (n, n).
    fn backward(&self, image: &Array, text: &Array, dscores: &[f64]) -> Vec<Array> {
        let Scores { n, queries, .. } = *self;
        let dim = text.shape.last();
        let ddot = |row: usize, j: usize| {
            let place = row / queries * n + j;
            let chosen = self.best[place].1 == row % queries;
            if chosen { dscores[place] * self.scale } else { 0.0 }
        };
        let dimage = product([n * queries, dim, n], ddot, |j, d| text.data[j * dim + d]);
        let dtext = product([n, dim, n * queries], |j, row| ddot(row, j), |row, d| image.data[row * dim + d]);
        let moment: f64 = (0..n * n).map(|place| dscores[place] * self.at(place / n, place % n)).sum();
        vec![Array::new(image.shape, dimage), Array::new(text.shape, dtext), Array::new([1], vec![moment])]
    }
}

pub(in super::super) fn clip_loss(image: &Array, text: &Array, log_scale: &Array) -> Array {
    let scores = Scores::new(image, text, log_scale);
    let one = |i: usize| log_sum_exp(&scores.row(i)) + log_sum_exp(&scores.column(i)) - 2.0 * scores.at(i, i);
    let total: f64 = (0..scores.n).map(one).sum();
    Array::new([1], vec![total / (2 * scores.n) as f64])
}

/// ds = (softmax over the row + softmax over the column − 2δ) / 2n.
pub(in super::super) fn clip_loss_backward(
    image: &Array,
    text: &Array,
    log_scale: &Array,
    dloss: &Array,
) -> Vec<Array> {
    let scores = Scores::new(image, text, log_scale);
    let n = scores.n;
    let rows: Vec<f64> = (0..n).map(|i| log_sum_exp(&scores.row(i))).collect();
    let columns: Vec<f64> = (0..n).map(|j| log_sum_exp(&scores.column(j))).collect();
    let ds = |place: usize| {
        let (i, j) = (place / n, place % n);
        let both = (scores.at(i, j) - rows[i]).exp() + (scores.at(i, j) - columns[j]).exp();
        dloss.data[0] * (both - if i == j { 2.0 } else { 0.0 }) / (2 * n) as f64
    };
    scores.backward(image, text, &(0..n * n).map(ds).collect::<Vec<_>>())
}

pub(in super::super) fn siglip_loss(image: &Array, text: &Array, log_scale: &Array, bias: &Array) -> Array {
    let scores = Scores::new(image, text, log_scale);
    let term = |place: usize| {
        let (i, j) = (place / scores.n, place % scores.n);
        let logit = scores.at(i, j) + bias.data[0];
        (1.0 + (if i == j { -logit } else { logit }).exp()).ln()
    };
    let total: f64 = (0..scores.n * scores.n).map(term).sum();
    Array::new([1], vec![total / scores.n as f64])
}

/// ds = (σ(s + bias) − δ) / n.
pub(in super::super) fn siglip_loss_backward([image, text, log_scale, bias]: [&Array; 4], dloss: &Array) -> Vec<Array> {
    let scores = Scores::new(image, text, log_scale);
    let n = scores.n;
    let ds = |place: usize| {
        let (i, j) = (place / n, place % n);
        let sigmoid = 1.0 / (1.0 + (-scores.at(i, j) - bias.data[0]).exp());
        dloss.data[0] * (sigmoid - if i == j { 1.0 } else { 0.0 }) / n as f64
    };
    let ds: Vec<f64> = (0..n * n).map(ds).collect();
    let mut gradients = scores.backward(image, text, &ds);
    gradients.push(Array::new([1], vec![ds.iter().sum()]));
    gradients
}
