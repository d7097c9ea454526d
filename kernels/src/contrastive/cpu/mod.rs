//! Contrastive losses on the CPU: blocks of rows of scores, each reduced while it is in the cache.

mod queries;

use crate::contrastive::{Contrastive, Features, Gradients};
use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{chunk_rows, for_chunks};
use crate::cpu::score::{Scratch, Statistics, narrow_space, narrowed, softplus, statistics};
use crate::cpu::simd::{Real, simd};
use crate::elementwise::cpu::{scale, scale_chunk};
use crate::gemm::cpu::product;
use crate::gemm::{Gemm, Layout};
use crate::{Element, Stored};
use num_traits::{Float, One, Zero};
use std::ops::Range;

/// Images in a block at most.
const MAX_IMAGES: usize = 256;
/// Scores in a block otherwise: 4 MB in f32, which stays in the last cache.
const BLOCK_SCORES: usize = 1 << 20;
/// A score without weight, for lanes past the end: finite, so that the moments stay numbers.
const UNLIKELY: f64 = -1e10;
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
}

impl<'a, T: Element> Scores<'a, T> {
    fn new(p: &'a Contrastive, f: Features<'a>) -> Scores<'a, T> {
        Scores { p, image: f.image.slice(), text: f.text.slice(), scale: f.log_scale.slice::<T::Acc>()[0].exp() }
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
            Gemm::new(Layout::Nt, rows, self.p.n, self.p.dim),
            self.scale,
            self.rows(block),
            self.text,
            scores,
            false,
        );
        scores
    }
}

simd! {
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
    f: Features,
    row_lse: &mut [T::Acc],
    col_lse: &mut [T::Acc],
) -> T::Acc {
    let scores = Scores::<T>::new(p, f);
    let (n, width, step) = (p.n, scores.width(), chunk_rows(scores.width()));
    let mut space = Scratch::new(scores.block() * width);
    let (mut own, mut excess) = (Scratch::<T::Acc>::new(n), Scratch::<T::Acc>::new(n));
    let (col_max, mut col_sum) = (col_lse, Scratch::<T::Acc>::new(n));
    col_max.fill(T::Acc::neg_infinity());
    col_sum.fill(T::Acc::zero());
    for block in scores.blocks() {
        let s = scores.compute(&block, &mut space);
        let (lse, own, excess) = (&mut row_lse[block.clone()], &mut own[block.clone()], &mut excess[block.clone()]);
        let parts = ((&mut *s, step * width), (lse, step), (own, step), (excess, step));
        for_chunks(block.len().div_ceil(step), parts, |chunk, (s, lse, own, excess)| {
            for (i, s) in s.chunks_exact_mut(width).enumerate() {
                let pair = block.start + chunk * step + i;
                queries::reduce(s, n, pair);
                let statistics = statistics(&s[..n]);
                (lse[i], own[i], excess[i]) = (statistics.lse(), s[pair], statistics.excess(s[pair]));
            }
        });
        let parts = ((&mut *col_max, STRIP), (&mut col_sum[..], STRIP));
        for_chunks(n.div_ceil(STRIP), parts, |strip, (max, sum)| add_to_columns(&s[strip * STRIP..], width, max, sum));
    }
    let mut total = 0.0;
    for i in 0..n {
        let (max, sum) = (col_max[i], col_sum[i]);
        let column = Statistics { max, sum, argmax: 0 };
        total += excess[i].f64() + column.excess(own[i]).f64();
        col_max[i] = column.lse();
    }
    T::Acc::of(total / (2 * n) as f64)
}

pub(crate) fn siglip_loss<T: Element>(p: &Contrastive, f: Features, bias: T::Acc) -> T::Acc {
    let scores = Scores::<T>::new(p, f);
    let (n, width, step) = (p.n, scores.width(), chunk_rows(scores.width()));
    let mut space = Scratch::new(scores.block() * width);
    let mut losses = Scratch::<T::Acc>::new(n);
    for block in scores.blocks() {
        let s = scores.compute(&block, &mut space);
        let parts = ((s, step * width), (&mut losses[block.clone()], step));
        for_chunks(block.len().div_ceil(step), parts, |chunk, (s, losses)| {
            for (i, s) in s.chunks_exact_mut(width).enumerate() {
                let pair = block.start + chunk * step + i;
                queries::reduce(s, n, pair);
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

    /// s becomes ds = weight · (e^(s − row_lse) + e^(s − col_lse)); returns Σ ds·s.
    fn clip_row<V; T: Element>(s: &mut [T], row_lse: T::Acc, col_lse: &[T], weight: T::Acc) -> T::Acc {
        let (mut sum, row_lse, weight) = (V::zero(), V::splat(row_lse), V::splat(weight));
        lanes!(V, s.len(), at => {
            let (z, col_lse): (V, V) = (at.load(s, T::Acc::of(UNLIKELY)), at.load(col_lse, T::Acc::zero()));
            let ds = weight * ((z - row_lse).exp() + (z - col_lse).exp());
            sum = ds.fma(z, sum);
            at.store(s, ds);
        });
        sum.sum()
    }

    /// s becomes ds = weight · σ(s + bias); returns Σ ds·s and Σ ds.
    fn siglip_row<V; T: Element>(s: &mut [T], bias: T::Acc, weight: T::Acc) -> (T::Acc, T::Acc) {
        let (mut moment, mut sum, bias, weight) = (V::zero(), V::zero(), V::splat(bias), V::splat(weight));
        lanes!(V, s.len(), at => {
            let z: V = at.load(s, T::Acc::of(UNLIKELY));
            let ds = weight * (z + bias).sigmoid();
            moment = ds.fma(z, moment);
            sum = sum + ds;
            at.store(s, ds);
        });
        (moment.sum(), sum.sum())
    }
}

/// What differs between the losses' derivatives.
trait Derivative<A: Real>: Sync {
    /// Puts ds = ∂loss/∂s in the place of image i's scores s; returns Σ ds·s, and Σ ds if the loss has a bias.
    fn row(&self, i: usize, s: &mut [A]) -> [A; 2];
}

struct Clip<'a, A> {
    row_lse: &'a [A],
    col_lse: &'a [A],
}

impl<A: Real + Element<Acc = A>> Derivative<A> for Clip<'_, A> {
    fn row(&self, i: usize, s: &mut [A]) -> [A; 2] {
        let (own, weight) = (s[i], A::of(0.5 / s.len() as f64));
        let moment = clip_row(s, self.row_lse[i], self.col_lse, weight);
        let pair = weight + weight;
        s[i] = s[i] - pair;
        [moment - pair * own, A::zero()]
    }
}

struct SigLip<A> {
    bias: A,
}

impl<A: Real + Element<Acc = A>> Derivative<A> for SigLip<A> {
    fn row(&self, i: usize, s: &mut [A]) -> [A; 2] {
        let (own, weight) = (s[i], A::of(1.0 / s.len() as f64));
        let (moment, sum) = siglip_row(s, self.bias, weight);
        s[i] = -weight / (A::one() + (own + self.bias).exp());
        [moment - weight * own, sum - weight]
    }
}

pub(crate) fn clip_loss_backward<T: Element>(
    p: &Contrastive,
    f: Features,
    row_lse: &[T::Acc],
    col_lse: &[T::Acc],
    g: Gradients,
) {
    backward(Scores::<T>::new(p, f), &Clip { row_lse, col_lse }, g);
}

/// Returns the bias's gradient.
pub(crate) fn siglip_loss_backward<T: Element>(p: &Contrastive, f: Features, bias: T::Acc, g: Gradients) -> T::Acc {
    backward(Scores::<T>::new(p, f), &SigLip { bias }, g)
}

/// The gradients, written but for that of the bias, which is returned.
fn backward<T: Element>(scores: Scores<T>, loss: &impl Derivative<T::Acc>, mut g: Gradients) -> T::Acc {
    let (dimage, dtext) = (g.dimage.slice_mut::<T>(), g.dtext.slice_mut::<T>());
    let mut sums = vec![[T::Acc::zero(); 2]; scores.p.n];
    if T::DTYPE == T::Acc::DTYPE {
        backward_rows(&scores, loss, dimage, bytemuck::cast_slice_mut(dtext), &mut sums);
    } else {
        let mut wide = Scratch::<T::Acc>::new(dtext.len());
        backward_rows(&scores, loss, dimage, &mut wide, &mut sums);
        scale::<T::Acc, T>(&wide, dtext, 1.0);
    }
    let total = |part: usize| T::Acc::of(sums.iter().map(|row| row[part].f64()).sum());
    g.dlog_scale.slice_mut()[0] = total(0);
    total(1)
}

/// `backward` with the texts' gradients in A, and the sums by image.
fn backward_rows<T: Element>(
    scores: &Scores<T>,
    loss: &impl Derivative<T::Acc>,
    dimage: &mut [T],
    dtext: &mut [T::Acc],
    sums: &mut [[T::Acc; 2]],
) {
    let (p, width) = (scores.p, scores.p.groups * scores.p.dim);
    let mut space = Scratch::new(scores.block() * scores.width());
    let mut narrow = if p.groups == 1 { narrow_space::<T>(space.len()) } else { None };
    if p.groups > 1 {
        dtext.fill(T::Acc::zero());
    }
    for block in scores.blocks() {
        let (m, s) = (block.len(), scores.compute(&block, &mut space));
        let dimage = &mut dimage[block.start * width..block.end * width];
        derive(scores, loss, &block, s, narrow.as_deref_mut().map(|all| &mut all[..m * p.n]), &mut sums[block.clone()]);
        if p.groups > 1 {
            queries::add_to_texts(scores, &block, s, dtext);
            queries::images(scores, s, dimage);
            continue;
        }
        let ds = narrowed(s, &narrow);
        product(Gemm::new(Layout::Nn, m, p.dim, p.n), scores.scale, ds, scores.text, dimage, false);
        product(Gemm::new(Layout::Tn, p.n, p.dim, m), scores.scale, ds, scores.rows(&block), dtext, block.start > 0);
    }
}

/// Puts the derivative of a block's scores in the place of the scores, for several queries those of the best; rounds it
/// to `narrow` too if there is one.
fn derive<T: Element>(
    scores: &Scores<T>,
    loss: &impl Derivative<T::Acc>,
    block: &Range<usize>,
    s: &mut [T::Acc],
    narrow: Option<&mut [T]>,
    sums: &mut [[T::Acc; 2]],
) {
    let (n, width, step) = (scores.p.n, scores.width(), chunk_rows(scores.width()));
    let parts = ((s, step * width), (narrow, step * n), (sums, step));
    for_chunks(block.len().div_ceil(step), parts, |chunk, (s, mut narrow, sums)| {
        for (i, s) in s.chunks_exact_mut(width).enumerate() {
            let pair = block.start + chunk * step + i;
            queries::reduce(s, n, pair);
            sums[i] = loss.row(pair, &mut s[..n]);
            if let Some(narrow) = narrow.as_deref_mut() {
                scale_chunk(&s[..n], &mut narrow[i * n..][..n], T::Acc::one());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_every_image_once_and_stay_small() {
        for (n, groups) in [(1, 1), (300, 1), (4097, 1), (4096, 32), (1 << 20, 32)] {
            let p = Contrastive { n, dim: 1, groups };
            let scores = Scores::<f32> { p: &p, image: &[], text: &[], scale: 1.0 };
            let covered: usize = scores.blocks().map(|block| block.len()).sum();
            assert!(covered == n && scores.block() <= MAX_IMAGES);
            assert!(scores.block() == 1 || scores.block() * scores.width() <= BLOCK_SCORES);
        }
    }
}
