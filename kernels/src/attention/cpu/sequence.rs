//! Which keys the queries of one sequence see.

use crate::attention::{Attention, Mask};
use crate::cpu::simd::{Lanes, MAX_LANES, Real};

/// The mask of one sequence of the batch.
#[derive(Debug)]
pub(super) struct Sequence<'a> {
    mask: Mask,
    /// Place of query 0 among the keys; negative where there are more queries than keys.
    offset: isize,
    /// Queries that count.
    pub(super) queries: usize,
    /// Keys that count.
    pub(super) keys: usize,
    segments: Option<&'a [i32]>,
}

impl<'a> Sequence<'a> {
    pub(super) fn new(p: &'a Attention, batch: usize) -> Sequence<'a> {
        let len = |lens: Option<crate::View>, most| lens.map_or(most, |lens| lens.slice::<i32>()[batch] as usize);
        Sequence {
            mask: p.mask,
            offset: p.k_len as isize - p.q_len as isize,
            queries: len(p.q_lens, p.q_len),
            keys: len(p.k_lens, p.k_len),
            segments: p.segments.as_ref().map(|s| &s.slice::<i32>()[batch * p.k_len..][..p.k_len]),
        }
    }

    /// The number of keys from the first on that the mask and the length let query `query` see.
    #[inline(always)]
    pub(super) fn visible(&self, query: usize) -> usize {
        let own = (query as isize + self.offset + 1).max(0) as usize;
        let seen = match self.mask {
            Mask::Full => self.keys,
            Mask::Causal | Mask::Window(_) => own,
            Mask::PrefixCausal(prefix) if query < prefix => prefix,
            Mask::PrefixCausal(_) => own,
        };
        seen.min(self.keys)
    }

    /// The number of keys from the first on that a window hides from `query`, of those it would see without.
    #[inline(always)]
    fn behind(&self, query: usize) -> usize {
        let Mask::Window(window) = self.mask else { return 0 };
        let own = (query as isize + self.offset + 1).max(0) as usize;
        own.saturating_sub(window).min(self.visible(query))
    }

    /// The most keys any of the queries `first..end` sees.
    pub(super) fn visible_to(&self, first: usize, end: usize) -> usize {
        (first..end).map(|query| self.visible(query)).max().unwrap_or(0)
    }

    /// Sets the scores of keys that `query` does not see to −∞; returns the row's first part, whole registers, beyond which
    /// all is hidden and set to zero. The row is whole registers too.
    #[inline(always)]
    pub(super) fn hide<'r, A: Real, V: Lanes<A>>(&self, query: usize, row: &'r mut [A]) -> &'r mut [A] {
        let visible = self.visible(query);
        if let Some(segments) = self.segments {
            let own = segments[(query as isize + self.offset) as usize];
            for (score, &segment) in row.iter_mut().zip(&segments[..visible]) {
                let seen = (segment == 0) | ((segment == own) & (segment >= 0));
                *score = if seen { *score } else { A::neg_infinity() };
            }
        }
        row[..self.behind(query)].fill(A::neg_infinity());
        let (row, hidden) = row.split_at_mut(visible.next_multiple_of(V::N));
        for x in hidden.chunks_exact_mut(V::N) {
            // SAFETY: a chunk has V::N elements.
            unsafe { V::zero().store(x.as_mut_ptr()) }
        }
        let seen = visible % V::N;
        if seen > 0 {
            let end = &mut row[visible - seen..][..V::N];
            let place: [A; MAX_LANES] = std::array::from_fn(|i| A::of(i as f64));
            // SAFETY: `end` has V::N elements and `place` MAX_LANES ≥ V::N.
            unsafe {
                let (scores, place) = (V::load(end.as_ptr()), V::load(place.as_ptr()));
                let kept = V::splat(A::of(seen as f64)).select_gt(place, scores, V::splat(A::neg_infinity()));
                kept.store(end.as_mut_ptr());
            }
        }
        row
    }
}
