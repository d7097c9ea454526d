//! The write-back of a finished tile of sums, with everything that is fused into it.

use crate::Element;
use crate::activation::Activation;
use crate::cpu::simd::{Lanes, Real, load_tail, store_tail};

/// An output that several tasks write, each its own elements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shared<C>(*mut C);

// SAFETY: the pointer comes from a `&mut [C]` and tasks write disjoint elements (`write_tile`'s contract).
unsafe impl<C: Send> Send for Shared<C> {}
// SAFETY: as above.
unsafe impl<C: Send> Sync for Shared<C> {}

impl<C> From<&mut [C]> for Shared<C> {
    fn from(slice: &mut [C]) -> Shared<C> {
        Shared(slice.as_mut_ptr())
    }
}

impl<C> Shared<C> {
    /// Element `index`, which the caller must know to exist before using it.
    pub(super) fn element(self, index: usize) -> *mut C {
        self.0.wrapping_add(index)
    }

    /// The output from element `offset` on.
    ///
    /// # Safety
    /// `offset` must lie inside the slice or at its end.
    pub(super) unsafe fn skip(self, offset: usize) -> Shared<C> {
        // SAFETY: the caller's promise.
        Shared(unsafe { self.0.add(offset) })
    }
}

/// `c = [c +] residual + act(alpha·sum + bias)`, with slices as long as `c` and `bias` as long as a row of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Epilogue<'a, T: Element> {
    pub(crate) alpha: T::Acc,
    pub(crate) accumulate: bool,
    pub(crate) bias: Option<&'a [T]>,
    pub(crate) activation: Option<Activation>,
    pub(crate) pre: Option<Shared<T>>,
    pub(crate) residual: Option<&'a [T]>,
}

impl<'a, T: Element> Epilogue<'a, T> {
    /// `c = [c +] alpha·sum`.
    pub(crate) fn plain(alpha: T::Acc, accumulate: bool) -> Epilogue<'a, T> {
        Epilogue { alpha, accumulate, bias: None, activation: None, pre: None, residual: None }
    }

    /// Whether it is `c = [c +] sum`.
    #[inline(always)]
    pub(super) fn is_sum(&self) -> bool {
        let inputs = self.bias.or(self.residual);
        self.alpha == T::Acc::of(1.0) && inputs.is_none() && self.pre.is_none() && self.activation.is_none()
    }

    /// Whether it is `c = alpha·sum [+ bias] [+ residual]`.
    #[inline(always)]
    fn is_affine(&self) -> bool {
        !self.accumulate && self.pre.is_none() && self.activation.is_none()
    }

    /// The part of a batch that begins at element `offset` of `c`.
    ///
    /// # Safety
    /// `offset` must lie inside `c` or at its end.
    pub(super) unsafe fn skip(self, offset: usize) -> Epilogue<'a, T> {
        Epilogue {
            // SAFETY: the caller's promise; `pre` is as long as `c`.
            pre: self.pre.map(|pre| unsafe { pre.skip(offset) }),
            residual: self.residual.map(|x| &x[offset..]),
            ..self
        }
    }
}

/// A rectangle of `c`: `rows × cols` elements from `(row, col)`, in a matrix whose rows have `stride` elements.
#[derive(Clone, Copy)]
pub(super) struct Rect {
    pub(super) row: usize,
    pub(super) col: usize,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) stride: usize,
}

/// Finishes the sums of a tile, whose rows lie `width` apart, into the rectangle `at` of `c`.
///
/// # Safety
/// `sums` must hold `at.rows` rows of `width ≥ at.cols` elements, `width` a multiple of `V::N`; the rectangle must lie
/// inside `c` and the slices of `epilogue`, and no other thread may touch its elements meanwhile.
#[inline(always)]
pub(super) unsafe fn write_tile<V: Lanes<T::Acc>, T: Element, C: Element<Acc = T::Acc>>(
    sums: *const T::Acc,
    width: usize,
    at: Rect,
    epilogue: &Epilogue<T>,
    c: Shared<C>,
) {
    if !at.cols.is_multiple_of(V::N) {
        // SAFETY: the caller's promise.
        return unsafe { finish_tile::<V, T, C>(sums, width, at, epilogue, c, |col| (at.cols - col).min(V::N)) };
    }
    // What most products of a step are is told apart once for a tile: to ask for each register would cost as much as its sum.
    let alpha = V::splat(epilogue.alpha);
    // SAFETY: the caller's promise: bias reaches to the last column, the other slices cover `c`.
    unsafe {
        let at_col = |bias: &[T], col| T::load::<V>(bias.as_ptr().add(at.col + col));
        let at_place = |x: &[T], place| T::load::<V>(x.as_ptr().add(place));
        match (epilogue.is_affine(), epilogue.bias, epilogue.residual) {
            (true, None, None) => each::<V, C>(sums, width, at, c, |sum, _, _| sum * alpha),
            (true, Some(bias), None) => {
                each::<V, C>(sums, width, at, c, |sum, col, _| sum.fma(alpha, at_col(bias, col)));
            }
            (true, None, Some(x)) => {
                each::<V, C>(sums, width, at, c, |sum, _, place| sum.fma(alpha, at_place(x, place)));
            }
            (true, Some(bias), Some(x)) => each::<V, C>(sums, width, at, c, |sum, col, place| {
                sum.fma(alpha, at_col(bias, col)) + at_place(x, place)
            }),
            _ => finish_tile::<V, T, C>(sums, width, at, epilogue, c, |_| V::N),
        }
    }
}

/// `c = f(sum, column of the tile, place in c)`, for whole registers.
///
/// # Safety
/// As for [`write_tile`].
#[inline(always)]
unsafe fn each<V: Lanes<C::Acc>, C: Element>(
    sums: *const C::Acc,
    width: usize,
    at: Rect,
    c: Shared<C>,
    f: impl Fn(V, usize, usize) -> V,
) {
    for row in 0..at.rows {
        for col in (0..at.cols).step_by(V::N) {
            let place = (at.row + row) * at.stride + at.col + col;
            // SAFETY: both registers lie inside the tile and the rectangle.
            unsafe { C::store::<V>(c.0.add(place), f(V::load(sums.add(row * width + col)), col, place)) }
        }
    }
}

/// Any epilogue; `count` says how many elements of the register at a column there are.
///
/// # Safety
/// As for [`write_tile`].
#[inline(always)]
unsafe fn finish_tile<V: Lanes<T::Acc>, T: Element, C: Element<Acc = T::Acc>>(
    sums: *const T::Acc,
    width: usize,
    at: Rect,
    epilogue: &Epilogue<T>,
    c: Shared<C>,
    count: impl Fn(usize) -> usize,
) {
    for row in 0..at.rows {
        for col in (0..at.cols).step_by(V::N) {
            let count = count(col);
            let place = (at.row + row) * at.stride + at.col + col;
            // SAFETY: `place .. place + count` lies inside the rectangle; the tile holds whole registers.
            unsafe {
                let sum = V::load(sums.add(row * width + col));
                let y = finish_lanes::<V, T>(sum, place, at.col + col, count, epilogue);
                let c = c.0.add(place);
                let y = if epilogue.accumulate { y + read::<V, C>(c, count) } else { y };
                write::<V, C>(c, count, y);
            }
        }
    }
}

/// Everything but the accumulation, for `count ≤ V::N` elements at `place` of `c`, in column `col`.
///
/// # Safety
/// As for [`write_tile`].
#[inline(always)]
unsafe fn finish_lanes<V: Lanes<T::Acc>, T: Element>(
    sum: V,
    place: usize,
    col: usize,
    count: usize,
    epilogue: &Epilogue<T>,
) -> V {
    let mut y = sum * V::splat(epilogue.alpha);
    // SAFETY: the caller's promise: bias reaches to the last column, the other slices cover `c`.
    unsafe {
        if let Some(bias) = epilogue.bias {
            y = y + read::<V, T>(bias.as_ptr().add(col), count);
        }
        if let Some(pre) = epilogue.pre {
            write::<V, T>(pre.0.add(place), count, y);
        }
        if let Some(act) = epilogue.activation {
            y = crate::activation::cpu::value::<T::Acc, V>(y, act);
        }
        if let Some(residual) = epilogue.residual {
            y = y + read::<V, T>(residual.as_ptr().add(place), count);
        }
    }
    y
}

/// # Safety
/// `p` must be valid for reading `count ≤ V::N` elements.
#[inline(always)]
unsafe fn read<V: Lanes<T::Acc>, T: Element>(p: *const T, count: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe {
        if count == V::N {
            T::load::<V>(p)
        } else {
            load_tail::<T, V>(std::slice::from_raw_parts(p, count), T::Acc::of(0.0))
        }
    }
}

/// # Safety
/// `p` must be valid for writing `count ≤ V::N` elements.
#[inline(always)]
unsafe fn write<V: Lanes<T::Acc>, T: Element>(p: *mut T, count: usize, v: V) {
    // SAFETY: the caller's promise.
    unsafe {
        if count == V::N {
            T::store::<V>(p, v);
        } else {
            store_tail(std::slice::from_raw_parts_mut(p, count), v);
        }
    }
}
