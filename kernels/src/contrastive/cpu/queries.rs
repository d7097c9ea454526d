//! Several queries per image: which counts for a text, and gradients through the ones that do.
//!
//! Of an image's scores (groups, n) only the largest of each column has a derivative. It is kept in row 0, with its
//! query's number in row 1, and sums over it gather whole rows instead of multiplying by zeros.

use super::Scores;
use crate::Element;
use crate::cpu::lanes::{Full, Place, lanes};
use crate::cpu::parallel::{chunk_rows, for_chunks};
use crate::cpu::score::Scratch;
use crate::cpu::simd::{Real, simd};
use crate::elementwise::cpu::scale_chunk;
use num_traits::Zero;
use std::ops::Range;

/// Registers that a gathering sum keeps.
const REGISTERS: usize = 8;

/// Puts the largest score of each text over the queries in the first row, and with several queries which query that was
/// in the second, from one image's scores (groups, n). `own` is the image's own text: where that is not a number, though
/// another query's score hides it, the row shows it.
pub(super) fn reduce<A: Real + Element<Acc = A>>(scores: &mut [A], n: usize, own: usize) {
    if scores.len() > n {
        let broken = scores.iter().skip(own).step_by(n).any(|s| s.is_nan());
        largest(scores, n);
        if broken {
            scores[own] = A::nan();
        }
    }
}

simd! {
    /// Element-wise largest of the rows of (groups, n), into row 0, and the first row that has it, into row 1.
    fn largest<V; T: Element>(scores: &mut [T], n: usize) {
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
}

/// dimage[i, q] = scale · Σ ds_ij · text[j] over the texts j for which q is image i's best query.
pub(super) fn images<T: Element>(scores: &Scores<T>, s: &[T::Acc], dimage: &mut [T]) {
    let (p, width) = (scores.p, scores.p.groups * scores.p.dim);
    let step = chunk_rows(p.n * p.dim);
    let parts = ((s, step * scores.width()), (dimage, step * width));
    for_chunks((s.len() / scores.width()).div_ceil(step), parts, |_, (s, dimage)| {
        let (mut places, mut factors) = (Scratch::<u32>::new(p.n), Scratch::<T::Acc>::new(p.n));
        let (mut sum, mut ends) = (Scratch::<T::Acc>::new(p.dim), vec![0; p.groups]);
        for (s, dimage) in s.chunks_exact(scores.width()).zip(dimage.chunks_exact_mut(width)) {
            sort_by_query(&s[..p.n], &s[p.n..2 * p.n], &mut ends, &mut places, &mut factors);
            let mut start = 0;
            for (&end, dimage) in ends.iter().zip(dimage.chunks_exact_mut(p.dim)) {
                sum.fill(T::Acc::zero());
                add_rows(&mut sum, scores.text, &places[start..end], &factors[start..end]);
                scale_chunk(&sum, dimage, scores.scale);
                start = end;
            }
        }
    });
}

/// The texts' numbers and derivatives in the order of their best queries, and where each query's end.
fn sort_by_query<A: Real>(ds: &[A], best: &[A], ends: &mut [usize], places: &mut [u32], sorted: &mut [A]) {
    ends.fill(0);
    best.iter().for_each(|query| ends[query.f64() as usize] += 1);
    let mut start = 0;
    for end in ends.iter_mut() {
        (start, *end) = (start + *end, start);
    }
    for (j, (&ds, query)) in ds.iter().zip(best).enumerate() {
        let end = &mut ends[query.f64() as usize];
        (places[*end], sorted[*end]) = (j as u32, ds);
        *end += 1;
    }
}

/// dtext[j] += scale · Σ ds_ij · image[i, q] over the images i of the block, with q the best query of i for text j.
pub(super) fn add_to_texts<T: Element>(scores: &Scores<T>, block: &Range<usize>, s: &[T::Acc], dtext: &mut [T::Acc]) {
    let (p, step) = (scores.p, chunk_rows(scores.p.dim));
    for_chunks(p.n.div_ceil(step), ((dtext, step * p.dim),), |chunk, (dtext,)| {
        let (mut places, mut factors) = (Scratch::<u32>::new(block.len()), Scratch::<T::Acc>::new(block.len()));
        for (j, dtext) in dtext.chunks_exact_mut(p.dim).enumerate() {
            for (i, s) in s.chunks_exact(scores.width()).enumerate() {
                let (ds, query) = (s[chunk * step + j], s[p.n + chunk * step + j]);
                (places[i], factors[i]) = ((i * p.groups) as u32 + query.f64() as u32, scores.scale * ds);
            }
            add_rows(dtext, scores.rows(block), &places, &factors);
        }
    });
}

simd! {
    /// sum += Σ factors[k] · table[places[k]], the table's rows as long as the sum.
    fn add_rows<V; T: Element>(sum: &mut [T::Acc], table: &[T], places: &[u32], factors: &[T::Acc]) {
        let (dim, wide, zero) = (sum.len(), REGISTERS * V::N, T::Acc::zero());
        let whole = dim / wide * wide;
        for start in (0..whole).step_by(wide) {
            let part = &mut sum[start..][..wide];
            let mut registers = [V::zero(); REGISTERS];
            for r in 0..REGISTERS {
                registers[r] = Full(r * V::N).load(part, zero);
            }
            for (&place, &factor) in places.iter().zip(factors) {
                let (row, factor) = (&table[place as usize * dim + start..][..wide], V::splat(factor));
                for r in 0..REGISTERS {
                    registers[r] = Full(r * V::N).load::<T, V>(row, zero).fma(factor, registers[r]);
                }
            }
            for r in 0..REGISTERS {
                Full(r * V::N).store(part, registers[r]);
            }
        }
        let rest = &mut sum[whole..];
        lanes!(V, dim - whole, at => {
            let mut register: V = at.load(rest, zero);
            for (&place, &factor) in places.iter().zip(factors) {
                let row = &table[place as usize * dim + whole..][..dim - whole];
                register = at.load::<T, V>(row, zero).fma(V::splat(factor), register);
            }
            at.store(rest, register);
        });
    }
}
