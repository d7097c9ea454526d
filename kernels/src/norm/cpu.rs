//! Normalisation of rows on the CPU.
//!
//! RMS norm is layer norm without a mean and a bias, so both share their rows' code, told apart by `CENTER`. A row is read
//! from memory once; further passes over it find it in the L1 cache.

use crate::Element;
use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{chunk_rows, for_chunks, with_scratch};
use crate::cpu::simd::{Lanes, Real, simd};
use crate::elementwise::cpu::widened;
use crate::norm::{LayerNorm, LayerNormBackward};
use crate::reduce::cpu::sum_axis;
use num_traits::{Float, One, Zero};

/// Fewest rows per chunk in the derivatives: each chunk leaves partial sums of the size of a row or two.
const BACKWARD_ROWS: usize = 32;

pub(crate) fn layer_norm<T: Element>(mut a: LayerNorm) {
    let (x, dim, eps) = (a.x.slice::<T>(), a.w.len(), T::Acc::of(a.eps));
    let per = chunk_rows(dim);
    let parts = ((x, per * dim), (a.y.slice_mut(), per * dim), (a.mean.slice_mut(), per), (a.rstd.slice_mut(), per));
    widened([a.w.slice::<T>(), a.b.slice()], |[w, b]| {
        for_chunks(x.len().div_ceil(per * dim), parts, |_, (x, y, mean, rstd)| {
            layer_norm_rows(x, w, b, y, mean, rstd, eps);
        });
    });
}

pub(crate) fn rms_norm<T: Element>(x: &[T], w: &[T], y: &mut [T], rstd: &mut [T::Acc], eps: f64) {
    let per = chunk_rows(w.len());
    let parts = ((x, per * w.len()), (y, per * w.len()), (rstd, per));
    widened([w], |[w]| {
        for_chunks(x.len().div_ceil(per * w.len()), parts, |_, (x, y, rstd)| {
            rms_norm_rows(x, w, y, rstd, T::Acc::of(eps));
        });
    });
}

/// What the derivatives read: `x`, `dy` by rows; `mean` is empty without CENTER.
#[derive(Clone, Copy)]
struct Known<'a, T: Element> {
    x: &'a [T],
    w: &'a [T::Acc],
    mean: &'a [T::Acc],
    rstd: &'a [T::Acc],
    dy: &'a [T],
}

/// What the derivatives write; `db` is empty without CENTER.
struct Gradients<'a, T: Element> {
    dx: &'a mut [T],
    dw: &'a mut [T::Acc],
    db: &'a mut [T::Acc],
}

pub(crate) fn layer_norm_backward<T: Element>(mut a: LayerNormBackward) {
    widened([a.w.slice::<T>()], |[w]| {
        let known = Known { x: a.x.slice(), w, mean: a.mean.slice(), rstd: a.rstd.slice(), dy: a.dy.slice() };
        let gradients = Gradients { dx: a.dx.slice_mut(), dw: a.dw.slice_mut(), db: a.db.slice_mut() };
        backward::<T>(known, gradients, layer_norm_backward_rows);
    });
}

pub(crate) fn rms_norm_backward<T: Element>(
    x: &[T],
    w: &[T],
    rstd: &[T::Acc],
    dy: &[T],
    dx: &mut [T],
    dw: &mut [T::Acc],
) {
    widened([w], |[w]| {
        let (mean, db): (_, &mut [T::Acc]) = (&[], &mut []);
        let known = Known { x, w, mean, rstd, dy };
        backward::<T>(known, Gradients { dx, dw, db }, rms_norm_backward_rows);
    });
}

/// Runs `rows` on chunks of rows, each with its own `dw` and `db`, and sums those in order.
fn backward<T: Element>(known: Known<T>, gradients: Gradients<T>, rows: impl Fn(Known<T>, Gradients<T>) + Sync) {
    let Known { w, rstd, .. } = known;
    let dim = w.len();
    let per = chunk_rows(dim).max(BACKWARD_ROWS);
    let chunks = rstd.len().div_ceil(per);
    let centred = usize::from(!gradients.db.is_empty());
    with_scratch::<T::Acc, _>(chunks * dim * (1 + centred), |sums| {
        let (dw_sums, db_sums) = sums.split_at_mut(chunks * dim);
        let parts = (
            (known.x, per * dim),
            (known.dy, per * dim),
            (gradients.dx, per * dim),
            (known.mean, per * centred),
            (rstd, per),
            (&mut *dw_sums, dim),
            (&mut *db_sums, dim * centred),
        );
        for_chunks(chunks, parts, |_, (x, dy, dx, mean, rstd, dw, db)| {
            dw.fill(T::Acc::zero());
            db.fill(T::Acc::zero());
            rows(Known { x, w, mean, rstd, dy }, Gradients { dx, dw, db });
        });
        sum_axis(dw_sums, gradients.dw, [1, chunks, dim], 1.0);
        sum_axis(db_sums, gradients.db, [1, chunks, dim * centred], 1.0);
    });
}

pub(crate) fn l2_normalize<T: Element>(x: &[T], y: &mut [T], inverse: &mut [T::Acc], dim: usize, eps: f64) {
    let per = chunk_rows(dim);
    let parts = ((x, per * dim), (y, per * dim), (inverse, per));
    for_chunks(x.len().div_ceil(per * dim), parts, |_, (x, y, inverse)| {
        l2_rows(x, y, inverse, dim, T::Acc::of(eps));
    });
}

pub(crate) fn l2_normalize_backward<T: Element>(y: &[T], inverse: &[T::Acc], dy: &[T], dx: &mut [T], dim: usize) {
    let per = chunk_rows(dim);
    let parts = ((y, per * dim), (inverse, per), (dy, per * dim), (dx, per * dim));
    for_chunks(y.len().div_ceil(per * dim), parts, |_, (y, inverse, dy, dx)| {
        l2_backward_rows(y, inverse, dy, dx, dim);
    });
}

simd! {
    fn layer_norm_rows<V; T: Element>(
        x: &[T],
        w: &[T::Acc],
        b: &[T::Acc],
        y: &mut [T],
        mean: &mut [T::Acc],
        rstd: &mut [T::Acc],
        eps: T::Acc,
    ) {
        for (row, (x, y)) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())).enumerate() {
            (mean[row], rstd[row]) = statistics::<V, T, true>(x, eps);
            normalize::<V, T, true>(x, w, b, y, mean[row], rstd[row]);
        }
    }

    fn rms_norm_rows<V; T: Element>(x: &[T], w: &[T::Acc], y: &mut [T], rstd: &mut [T::Acc], eps: T::Acc) {
        for (row, (x, y)) in x.chunks_exact(w.len()).zip(y.chunks_exact_mut(w.len())).enumerate() {
            let (mean, r) = statistics::<V, T, false>(x, eps);
            rstd[row] = r;
            normalize::<V, T, false>(x, w, &[], y, mean, r);
        }
    }

    fn layer_norm_backward_rows<V; T: Element>(known: Known<T>, gradients: Gradients<T>) {
        backward_rows::<V, T, true>(known, gradients);
    }

    fn rms_norm_backward_rows<V; T: Element>(known: Known<T>, gradients: Gradients<T>) {
        backward_rows::<V, T, false>(known, gradients);
    }

    fn l2_rows<V; T: Element>(x: &[T], y: &mut [T], inverse: &mut [T::Acc], dim: usize, eps: T::Acc) {
        for (row, (x, y)) in x.chunks_exact(dim).zip(y.chunks_exact_mut(dim)).enumerate() {
            let mut squares = [V::zero(); 4];
            lanes!(V, dim, (at, part) => {
                let x: V = at.load(x, T::Acc::zero());
                squares[part] = x.fma(x, squares[part]);
            });
            inverse[row] = T::Acc::one() / Float::max(total(squares).sqrt(), eps);
            lanes!(V, dim, at => {
                let x: V = at.load(x, T::Acc::zero());
                at.store(y, x * V::splat(inverse[row]));
            });
        }
    }

    fn l2_backward_rows<V; T: Element>(y: &[T], inverse: &[T::Acc], dy: &[T], dx: &mut [T], dim: usize) {
        for (row, dx) in dx.chunks_exact_mut(dim).enumerate() {
            let (y, dy) = (&y[row * dim..][..dim], &dy[row * dim..][..dim]);
            let mut products = [V::zero(); 4];
            lanes!(V, dim, (at, part) => {
                let (y, dy): (V, V) = (at.load(y, T::Acc::zero()), at.load(dy, T::Acc::zero()));
                products[part] = y.fma(dy, products[part]);
            });
            let (product, inverse) = (V::splat(total(products)), V::splat(inverse[row]));
            lanes!(V, dim, at => {
                let (y, dy): (V, V) = (at.load(y, T::Acc::zero()), at.load(dy, T::Acc::zero()));
                at.store(dx, inverse * (dy - y * product));
            });
        }
    }
}

/// The row's mean (0 without CENTER) and `1/√(avg((x − mean)²) + eps)`.
#[inline(always)]
fn statistics<V: Lanes<T::Acc>, T: Element, const CENTER: bool>(x: &[T], eps: T::Acc) -> (T::Acc, T::Acc) {
    let share = T::Acc::one() / T::Acc::of(x.len() as f64);
    let mut mean = T::Acc::zero();
    if CENTER {
        let mut sums = [V::zero(); 4];
        lanes!(V, x.len(), (at, part) => {
            let x: V = at.load(x, T::Acc::zero());
            sums[part] = sums[part] + x;
        });
        mean = total(sums) * share;
    }
    let mut squares = [V::zero(); 4];
    lanes!(V, x.len(), (at, part) => {
        let x: V = at.load(x, mean);
        let centred = x - V::splat(mean);
        squares[part] = centred.fma(centred, squares[part]);
    });
    (mean, T::Acc::one() / (total(squares) * share + eps).sqrt())
}

/// The sum of four registers' elements.
#[inline(always)]
fn total<V: Lanes<A>, A: Real>(parts: [V; 4]) -> A {
    ((parts[0] + parts[1]) + (parts[2] + parts[3])).sum()
}

/// `y = (x − mean)·rstd·w + b`, without `mean` and `b` unless CENTER.
#[inline(always)]
fn normalize<V: Lanes<T::Acc>, T: Element, const CENTER: bool>(
    x: &[T],
    w: &[T::Acc],
    b: &[T::Acc],
    y: &mut [T],
    mean: T::Acc,
    rstd: T::Acc,
) {
    let zero = T::Acc::zero();
    lanes!(V, x.len(), at => {
        let (x, w): (V, V) = (at.load(x, zero), at.load(w, zero));
        if CENTER {
            let b: V = at.load(b, zero);
            at.store(y, ((x - V::splat(mean)) * V::splat(rstd)).fma(w, b));
        } else {
            at.store(y, x * V::splat(rstd) * w);
        }
    });
}

/// The derivative for a chunk of rows; adds to `dw` and `db`.
#[inline(always)]
fn backward_rows<V: Lanes<T::Acc>, T: Element, const CENTER: bool>(known: Known<T>, gradients: Gradients<T>) {
    let (w, Gradients { dx, dw, db }) = (known.w, gradients);
    let (dim, zero) = (w.len(), T::Acc::zero());
    let share = T::Acc::one() / T::Acc::of(dim as f64);
    for (row, dx) in dx.chunks_exact_mut(dim).enumerate() {
        let (x, dy) = (&known.x[row * dim..][..dim], &known.dy[row * dim..][..dim]);
        let mean = if CENTER { known.mean[row] } else { zero };
        let (shift, rstd) = (V::splat(mean), V::splat(known.rstd[row]));
        let (mut sum_g, mut sum_gx) = ([V::zero(); 4], [V::zero(); 4]);
        lanes!(V, dim, (at, part) => {
            let (x, dy, w): (V, V, V) = (at.load(x, mean), at.load(dy, zero), at.load(w, zero));
            let (normal, g) = ((x - shift) * rstd, dy * w);
            sum_gx[part] = g.fma(normal, sum_gx[part]);
            let old: V = at.load(dw, zero);
            at.store(dw, dy.fma(normal, old));
            if CENTER {
                sum_g[part] = sum_g[part] + g;
                let old: V = at.load(db, zero);
                at.store(db, old + dy);
            }
        });
        // dx = rstd·g − rstd·avg(g) − (x − mean)·rstd²·avg(g·x̂).
        let constant = V::splat(total(sum_g) * share) * -rstd;
        let slope = V::splat(total(sum_gx) * share) * rstd * -rstd;
        lanes!(V, dim, at => {
            let (x, dy, w): (V, V, V) = (at.load(x, mean), at.load(dy, zero), at.load(w, zero));
            at.store(dx, (x - shift).fma(slope, (dy * w).fma(rstd, constant)));
        });
    }
}
