//! Walking a row register by register, its ragged end included.

use crate::Element;
use crate::cpu::simd::{Lanes, MAX_LANES, Real, load_tail, store_tail};
use half::bf16;

/// A place in a row: where a register's worth of elements, or the row's last few, are.
pub(crate) trait Place: Copy {
    /// Loads the elements of `x` here, widened; lanes past the row's end get `fill`.
    fn load<T: Element, V: Lanes<T::Acc>>(self, x: &[T], fill: T::Acc) -> V;
    /// Rounds and stores to the elements of `y` here.
    fn store<T: Element, V: Lanes<T::Acc>>(self, y: &mut [T], v: V);
    /// [`store`](Place::store) to bf16, from any accumulator.
    fn store_bf16<A: Real, V: Lanes<A>>(self, y: &mut [bf16], v: V);
    /// The first element's number.
    fn start(self) -> usize;
}

/// A full register starting at an element.
#[derive(Clone, Copy)]
pub(crate) struct Full(pub(crate) usize);

/// Fewer elements than a register, from this one to the row's end.
#[derive(Clone, Copy)]
pub(crate) struct Rest(pub(crate) usize);

impl Place for Full {
    #[inline(always)]
    fn load<T: Element, V: Lanes<T::Acc>>(self, x: &[T], _fill: T::Acc) -> V {
        // SAFETY: the slice taken has V::N elements.
        unsafe { T::load(x[self.0..self.0 + V::N].as_ptr()) }
    }
    #[inline(always)]
    fn store<T: Element, V: Lanes<T::Acc>>(self, y: &mut [T], v: V) {
        // SAFETY: the slice taken has V::N elements.
        unsafe { T::store(y[self.0..self.0 + V::N].as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn store_bf16<A: Real, V: Lanes<A>>(self, y: &mut [bf16], v: V) {
        // SAFETY: the slice taken has V::N elements.
        unsafe { v.store_bf16(y[self.0..self.0 + V::N].as_mut_ptr()) }
    }
    #[inline(always)]
    fn start(self) -> usize {
        self.0
    }
}

impl Place for Rest {
    #[inline(always)]
    fn load<T: Element, V: Lanes<T::Acc>>(self, x: &[T], fill: T::Acc) -> V {
        load_tail(&x[self.0..], fill)
    }
    #[inline(always)]
    fn store<T: Element, V: Lanes<T::Acc>>(self, y: &mut [T], v: V) {
        store_tail(&mut y[self.0..], v)
    }
    #[inline(always)]
    fn store_bf16<A: Real, V: Lanes<A>>(self, y: &mut [bf16], v: V) {
        let mut all = [bf16::ZERO; MAX_LANES];
        // SAFETY: the array holds MAX_LANES ≥ V::N elements.
        unsafe { v.store_bf16(all.as_mut_ptr()) }
        let rest = &mut y[self.0..];
        rest.copy_from_slice(&all[..rest.len()]);
    }
    #[inline(always)]
    fn start(self) -> usize {
        self.0
    }
}

/// `lanes!(V, len, at => { … })` runs the block for each [`Place`] of a row of `len` elements, in order. The block is
/// written out twice, for full registers and for the rest: a closure called from two places might not be inlined, and
/// then would not be compiled for the instruction set.
///
/// `lanes!(V, len, (at, part) => { … })` also numbers consecutive registers 0 to 3 over and over: sums kept in four parts do
/// not wait for one another.
macro_rules! lanes {
    ($v:ident, $len:expr, ($at:ident, $part:ident) => $body:block) => {{
        let len: usize = $len;
        let mut start = 0;
        while start + 4 * $v::N <= len {
            $crate::cpu::lanes::lanes!(@parts $v, start, $at, $part, $body, 0 1 2 3);
            start += 4 * $v::N;
        }
        let $part = 0;
        while start + $v::N <= len {
            let $at = $crate::cpu::lanes::Full(start);
            $body
            start += $v::N;
        }
        if start < len {
            let $at = $crate::cpu::lanes::Rest(start);
            $body
        }
    }};
    (@parts $v:ident, $start:ident, $at:ident, $part:ident, $body:block, $($i:literal)*) => {
        $({
            let ($at, $part) = ($crate::cpu::lanes::Full($start + $i * $v::N), $i);
            $body
        })*
    };
    ($v:ident, $len:expr, $at:ident => $body:block) => {{
        let len: usize = $len;
        let mut start = 0;
        while start + $v::N <= len {
            let $at = $crate::cpu::lanes::Full(start);
            $body
            start += $v::N;
        }
        if start < len {
            let $at = $crate::cpu::lanes::Rest(start);
            $body
        }
    }};
}
pub(crate) use lanes;
