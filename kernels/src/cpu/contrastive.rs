//! Contrastive losses on the CPU: blocks of rows of scores, each reduced while it is in the cache.

use super::elementwise::{axpy_chunk, scale, scale_chunk};
use super::gemm::product;
use super::lanes::{Place, lanes};
use super::parallel::{chunk_rows, for_chunks};
use super::score::{Scratch, Statistics, softplus, statistics};
use super::simd::{Real, simd};
use crate::contrastive::Contrastive;
use crate::gemm::Layout;
use crate::{Element, Stored};
use num_traits::{Float, One, Zero};
use std::ops::Range;

/// Images in a block at most.
const MAX_IMAGES: usize = 256;
/// Scores in a block otherwise: 4 MB in f32, which stays in the last cache.
const BLOCK_SCORES: usize = 1 << 20;
/// The largest scale.
const MAX_SCALE: f64 = 100.0;
/// A score without weight, for lanes past the end: finite, so that the moments stay numbers.
const UNLIKELY: f64 = -1e30;
/// Columns per chunk of the passes down the columns.
const STRIP: usize = 256;
/// Rows that share one rescaling of the column sums.
const ROW_GROUP: usize = 8;

/// The arguments that all the losses have.
struct Scores<'a, T: Element> {
    p: &'a Contrastive,
    image: &'a [T],
    text: &'a [T],
    scale: T::Acc,
    /// The scale is held at its largest.
    held: bool,
}

impl<'a, T: Element> Scores<'a, T> {
    fn new(p: &'a Contrastive, image: &'a [T], text: &'a [T], log_scale: T::Acc) -> Scores<'a, T> {
        let (scale, most) = (log_scale.exp(), T::Acc::of(MAX_SCALE));
        let held = scale > most;
        let scale = if held { most } else { scale };
        Scores {
            p,
            image,
            text,
            scale,
            held,
        }
    }

    /// Scores per image.
    fn width(&self) -> usize {
        self.p.groups * self.p.n
    }

    /// Images per block.
    fn block(&self) -> usize {
        (BLOCK_SCORES / self.width()).clamp(1, MAX_IMAGES).min(self.p.n)
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (n, block) = (self.p.n, self.block());
        (0..n).step_by(block).map(move |first| first..(first + block).min(n))
    }

    /// The image rows of a block.
    fn rows(&self, block: &Range<usize>) -> &'a [T] {
        let width = self.p.groups * self.p.dim;
        &self.image[block.start * width..block.end * width]
    }

    /// The scores of a block, (images, groups, n).
    fn compute<'s>(&self, block: &Range<usize>, space: &'s mut Scratch<T::Acc>) -> &'s mut [T::Acc] {
        let scores = &mut space[..block.len() * self.width()];
        let rows = block.len() * self.p.groups;
        product(
            Layout::Nt,
            rows,
            self.p.n,
            self.p.dim,
            self.scale,
            self.rows(block),
            self.text,
            scores,
            false,
        );
        scores
    }
}

/// Puts the largest score of each text over the queries in the first row, and with several queries which query that was
/// in the second, from one image's scores (groups, n). `own` is the image's own text: where that is not a number, though
/// another query's score hides it, the row shows it.
fn reduce_queries<A: Real + Element<Acc = A>>(scores: &mut [A], n: usize, own: usize) {
    if scores.len() > n {
        let broken = scores.iter().skip(own).step_by(n).any(|s| s.is_nan());
        largest_query(scores, n);
        if broken {
            scores[own] = A::nan();
        }
    }
}

simd! {
    /// Element-wise largest of the rows of (groups, n), into row 0, and the first row that has it, into row 1.
    fn largest_query<V; T: Element>(scores: &mut [T], n: usize) {
        lanes!(V, n, at => {
            let mut best: V = at.load(&scores[..n], T::Acc::zero());
            let mut place = V::zero();
            for (query, row) in scores.chunks_exact(n).enumerate().skip(1) {
                let s: V = at.load(row, T::Acc::zero());
                place = s.select_gt(best, V::splat(T::Acc::of(query as f64)), place);
                best = s.select_gt(best, s, best);
            }
            at.store(&mut scores[..n], best);
            at.store(&mut scores[n..2 * n], place);
        });
    }

    /// Adds rows of scores, `stride` apart, to the columns' running maxima m and sums Σ e^(s − m).
    fn add_to_columns<V; T: Element>(scores: &[T], stride: usize, max: &mut [T], sum: &mut [T]) {
        let (columns, zero) = (max.len(), T::Acc::zero());
        for rows in scores.chunks(ROW_GROUP * stride) {
            lanes!(V, columns, at => {
                let old: V = at.load(max, zero);
                let mut new = old;
                for row in rows.chunks(stride) {
                    new = new.max(at.load(&row[..columns], zero));
                }
                let mut total = at.load::<T, V>(sum, zero) * (old - new).exp();
                for row in rows.chunks(stride) {
                    total = total + (at.load::<T, V>(&row[..columns], zero) - new).exp();
                }
                at.store(max, new);
                at.store(sum, total);
            });
        }
    }
}

pub(crate) fn clip_loss<T: Element>(
    p: &Contrastive,
    image: &[T],
    text: &[T],
    log_scale: T::Acc,
    row_lse: &mut [T::Acc],
    col_lse: &mut [T::Acc],
) -> T::Acc {
    let scores = Scores::new(p, image, text, log_scale);
    let (n, width, step) = (p.n, scores.width(), chunk_rows(scores.width()));
    let mut space = Scratch::new(scores.block() * width);
    let (mut own, mut excess) = (Scratch::<T::Acc>::new(n), Scratch::<T::Acc>::new(n));
    let (col_max, mut col_sum) = (col_lse, Scratch::<T::Acc>::new(n));
    col_max.fill(T::Acc::neg_infinity());
    col_sum.fill(T::Acc::zero());
    for block in scores.blocks() {
        let s = scores.compute(&block, &mut space);
        let (lse, own, excess) = (
            &mut row_lse[block.clone()],
            &mut own[block.clone()],
            &mut excess[block.clone()],
        );
        let parts = ((&mut *s, step * width), (lse, step), (own, step), (excess, step));
        for_chunks(block.len().div_ceil(step), parts, |chunk, (s, lse, own, excess)| {
            for (i, s) in s.chunks_exact_mut(width).enumerate() {
                let pair = block.start + chunk * step + i;
                reduce_queries(s, n, pair);
                let statistics = statistics(&s[..n]);
                (lse[i], own[i], excess[i]) = (statistics.lse(), s[pair], statistics.excess(s[pair]));
            }
        });
        let parts = ((&mut *col_max, STRIP), (&mut col_sum[..], STRIP));
        for_chunks(n.div_ceil(STRIP), parts, |strip, (max, sum)| {
            add_to_columns(&s[strip * STRIP..], width, max, sum)
        });
    }
    let mut total = 0.0;
    for i in 0..n {
        let (max, sum) = (col_max[i], col_sum[i]);
        let column = Statistics {
            max,
            sum,
            argmax: 0,
            total: sum,
        };
        total += excess[i].f64() + column.excess(own[i]).f64();
        col_max[i] = column.lse();
    }
    T::Acc::of(total / (2 * n) as f64)
}

pub(crate) fn siglip_loss<T: Element>(
    p: &Contrastive,
    image: &[T],
    text: &[T],
    log_scale: T::Acc,
    bias: T::Acc,
) -> T::Acc {
    let scores = Scores::new(p, image, text, log_scale);
    let (n, width, step) = (p.n, scores.width(), chunk_rows(scores.width()));
    let mut space = Scratch::new(scores.block() * width);
    let mut losses = Scratch::<T::Acc>::new(n);
    for block in scores.blocks() {
        let s = scores.compute(&block, &mut space);
        let parts = ((s, step * width), (&mut losses[block.clone()], step));
        for_chunks(block.len().div_ceil(step), parts, |chunk, (s, losses)| {
            for (i, s) in s.chunks_exact_mut(width).enumerate() {
                let pair = block.start + chunk * step + i;
                reduce_queries(s, n, pair);
                s[pair] = -(s[pair] + bias) - bias;
                losses[i] = sum_softplus(&s[..n], bias);
            }
        });
    }
    T::Acc::of(losses.iter().map(|loss| loss.f64()).sum::<f64>() / n as f64)
}

simd! {
    /// Σ ln(1 + e^(s + bias))
    fn sum_softplus<V; T: Element>(s: &[T], bias: T::Acc) -> T::Acc {
        let (mut sum, bias) = (V::zero(), V::splat(bias));
        lanes!(V, s.len(), at => {
            sum = sum + softplus::<T::Acc, V>(at.load::<T, V>(s, T::Acc::of(UNLIKELY)) + bias);
        });
        sum.sum()
    }

    /// ds = weight · (e^(s − row_lse) + e^(s − col_lse)); returns Σ ds·s.
    fn clip_row<V; T: Element>(s: &[T::Acc], ds: &mut [T], row_lse: T::Acc, col_lse: &[T::Acc], weight: T::Acc) -> T::Acc {
        let (mut sum, row_lse, weight) = (V::zero(), V::splat(row_lse), V::splat(weight));
        lanes!(V, s.len(), at => {
            let (z, col_lse): (V, V) = (at.load(s, T::Acc::zero()), at.load(col_lse, T::Acc::infinity()));
            let d = weight * ((z - row_lse).exp() + (z - col_lse).exp());
            sum = d.fma(z, sum);
            at.store(ds, d);
        });
        sum.sum()
    }

    /// ds = weight · σ(s + bias); returns Σ ds·s and Σ ds.
    fn siglip_row<V; T: Element>(s: &[T::Acc], ds: &mut [T], bias: T::Acc, weight: T::Acc) -> (T::Acc, T::Acc) {
        let (mut moment, mut sum, bias, weight) = (V::zero(), V::zero(), V::splat(bias), V::splat(weight));
        lanes!(V, s.len(), at => {
            let z: V = at.load(s, T::Acc::of(UNLIKELY));
            let d = weight * (z + bias).sigmoid();
            moment = d.fma(z, moment);
            sum = sum + d;
            at.store(ds, d);
        });
        (moment.sum(), sum.sum())
    }
}

/// What differs between the losses' derivatives.
trait Derivative<A: Real>: Sync {
    /// From image i's scores s, ds = ∂loss/∂s; returns Σ ds·s and Σ ds as far as the loss needs it.
    fn row<S: Element<Acc = A>>(&self, i: usize, s: &[A], ds: &mut [S]) -> [A; 2];
}

struct Clip<'a, A> {
    row_lse: &'a [A],
    col_lse: &'a [A],
}

impl<A: Real> Derivative<A> for Clip<'_, A> {
    fn row<S: Element<Acc = A>>(&self, i: usize, s: &[A], ds: &mut [S]) -> [A; 2] {
        let weight = A::of(0.5 / s.len() as f64);
        let moment = clip_row(s, ds, self.row_lse[i], self.col_lse, weight);
        let two = A::of(2.0);
        ds[i] = S::narrow(weight * ((s[i] - self.row_lse[i]).exp() + (s[i] - self.col_lse[i]).exp() - two));
        [moment - two * weight * s[i], A::zero()]
    }
}

struct SigLip<A> {
    bias: A,
}

impl<A: Real> Derivative<A> for SigLip<A> {
    fn row<S: Element<Acc = A>>(&self, i: usize, s: &[A], ds: &mut [S]) -> [A; 2] {
        let weight = A::of(1.0 / s.len() as f64);
        let (moment, sum) = siglip_row(s, ds, self.bias, weight);
        ds[i] = S::narrow(-weight / (A::one() + (s[i] + self.bias).exp()));
        [moment - weight * s[i], sum - weight]
    }
}

pub(crate) fn clip_loss_backward<T: Element>(
    p: &Contrastive,
    image: &[T],
    text: &[T],
    log_scale: T::Acc,
    row_lse: &[T::Acc],
    col_lse: &[T::Acc],
    dimage: &mut [T],
    dtext: &mut [T],
) -> T::Acc {
    backward(
        Scores::new(p, image, text, log_scale),
        &Clip { row_lse, col_lse },
        dimage,
        dtext,
    )[0]
}

pub(crate) fn siglip_loss_backward<T: Element>(
    p: &Contrastive,
    image: &[T],
    text: &[T],
    log_scale: T::Acc,
    bias: T::Acc,
    dimage: &mut [T],
    dtext: &mut [T],
) -> (T::Acc, T::Acc) {
    backward(Scores::new(p, image, text, log_scale), &SigLip { bias }, dimage, dtext).into()
}

/// The gradients of the image and text rows, written, and of the logarithm of the scale and the bias, returned.
fn backward<T: Element>(
    scores: Scores<T>,
    loss: &impl Derivative<T::Acc>,
    dimage: &mut [T],
    dtext: &mut [T],
) -> [T::Acc; 2] {
    let mut rows = vec![[T::Acc::zero(); 2]; scores.p.n];
    if T::DTYPE == T::Acc::DTYPE {
        // The same type under two names.
        backward_rows(&scores, loss, dimage, bytemuck::cast_slice_mut(dtext), &mut rows);
    } else {
        let mut wide = Scratch::<T::Acc>::new(dtext.len());
        backward_rows(&scores, loss, dimage, &mut wide, &mut rows);
        scale::<T::Acc, T>(&wide, dtext, 1.0);
    }
    let total = |part: usize| T::Acc::of(rows.iter().map(|row| row[part].f64()).sum());
    [if scores.held { T::Acc::zero() } else { total(0) }, total(1)]
}

/// `backward` with the texts' gradients in A.
fn backward_rows<T: Element>(
    scores: &Scores<T>,
    loss: &impl Derivative<T::Acc>,
    dimage: &mut [T],
    dtext: &mut [T::Acc],
    sums: &mut [[T::Acc; 2]],
) {
    let (p, width) = (scores.p, scores.p.groups * scores.p.dim);
    let mut space = Scratch::new(scores.block() * scores.width());
    if p.groups > 1 {
        dtext.fill(T::Acc::zero());
        let mut ds = Scratch::<T::Acc>::new(scores.block() * p.n);
        for block in scores.blocks() {
            let s = scores.compute(&block, &mut space);
            let ds = &mut ds[..block.len() * p.n];
            derive(scores, loss, &block, s, ds, &mut sums[block.clone()]);
            sparse_dimage(scores, s, ds, &mut dimage[block.start * width..block.end * width]);
            sparse_dtext(scores, &block, s, ds, dtext);
        }
        return;
    }
    let mut ds = Scratch::<T>::new(scores.block() * p.n);
    for block in scores.blocks() {
        let s = scores.compute(&block, &mut space);
        let (m, ds) = (block.len(), &mut ds[..block.len() * p.n]);
        derive(scores, loss, &block, s, ds, &mut sums[block.clone()]);
        let dimage = &mut dimage[block.start * width..block.end * width];
        product(Layout::Nn, m, p.dim, p.n, scores.scale, ds, scores.text, dimage, false);
        product(
            Layout::Tn,
            p.n,
            p.dim,
            m,
            scores.scale,
            ds,
            scores.rows(&block),
            dtext,
            block.start > 0,
        );
    }
}

/// The derivative of a block's scores, those of the best queries only: `ds` is (images, n). Leaves the queries' numbers
/// in the second row of each image's scores.
fn derive<T: Element, S: Element<Acc = T::Acc>>(
    scores: &Scores<T>,
    loss: &impl Derivative<T::Acc>,
    block: &Range<usize>,
    s: &mut [T::Acc],
    ds: &mut [S],
    sums: &mut [[T::Acc; 2]],
) {
    let (n, width, step) = (scores.p.n, scores.width(), chunk_rows(scores.width()));
    let parts = ((s, step * width), (ds, step * n), (sums, step));
    for_chunks(block.len().div_ceil(step), parts, |chunk, (s, ds, sums)| {
        for (i, (s, ds)) in s.chunks_exact_mut(width).zip(ds.chunks_exact_mut(n)).enumerate() {
            let pair = block.start + chunk * step + i;
            reduce_queries(s, n, pair);
            sums[i] = loss.row(pair, &s[..n], ds);
        }
    });
}

/// dimage[i, q] = scale · Σ ds_ij · text[j] over the texts j for which q is image i's best query.
fn sparse_dimage<T: Element>(scores: &Scores<T>, s: &[T::Acc], ds: &[T::Acc], dimage: &mut [T]) {
    let (p, width) = (scores.p, scores.p.groups * scores.p.dim);
    let parts = ((s, scores.width()), (ds, p.n), (dimage, width));
    for_chunks(ds.len() / p.n, parts, |_, (s, ds, dimage)| {
        let mut wide = Scratch::<T::Acc>::new(width);
        wide.fill(T::Acc::zero());
        for (j, (query, &d)) in s[p.n..2 * p.n].iter().zip(ds).enumerate() {
            let query = query.f64() as usize;
            axpy_chunk(
                &scores.text[j * p.dim..][..p.dim],
                &mut wide[query * p.dim..][..p.dim],
                scores.scale * d,
            );
        }
        scale_chunk(&wide, dimage, T::Acc::one());
    });
}

/// dtext[j] += scale · Σ ds_ij · image[i, q] with q the best query of image i for text j.
fn sparse_dtext<T: Element>(
    scores: &Scores<T>,
    block: &Range<usize>,
    s: &[T::Acc],
    ds: &[T::Acc],
    dtext: &mut [T::Acc],
) {
    let (p, image, step) = (scores.p, scores.rows(block), chunk_rows(scores.p.dim));
    for_chunks(p.n.div_ceil(step), ((dtext, step * p.dim),), |chunk, (dtext,)| {
        for (j, dtext) in dtext.chunks_exact_mut(p.dim).enumerate() {
            let j = chunk * step + j;
            for i in 0..block.len() {
                let query = s[i * scores.width() + p.n + j].f64() as usize;
                let row = &image[(i * p.groups + query) * p.dim..][..p.dim];
                axpy_chunk(row, dtext, scores.scale * ds[i * p.n + j]);
            }
        }
    });
}
