//! Splitting work by size alone, so that results do not depend on the number of threads.
//!
//! A kernel cuts its arguments into chunks whose size follows from the shapes. [`for_chunks`] hands each chunk to rayon;
//! [`fold_chunks`] also combines the chunks' results, in a binary tree that the number of chunks determines. One chunk
//! runs on the calling thread and never enters rayon.

use std::cell::RefCell;

/// Elements per chunk of memory-bound work: a few microseconds, against which handing out a chunk is cheap.
pub(crate) const CHUNK: usize = 16 * 1024;

/// Rows of `width` elements per chunk: about [`CHUNK`] elements, at least one row.
pub(crate) fn chunk_rows(width: usize) -> usize {
    (CHUNK / width.max(1)).max(1)
}

/// Something that can be cut between chunks: `(slice, elements per chunk)` or a tuple of such parts. The last chunk may be
/// shorter.
pub(crate) trait Parts: Send + Sized {
    /// What one chunk gets of it.
    type Piece;
    /// The first `chunks` chunks, and the rest.
    fn cut(self, chunks: usize) -> (Self, Self);
    /// All that is left.
    fn piece(self) -> Self::Piece;
}

impl<'a, T: Sync> Parts for (&'a [T], usize) {
    type Piece = &'a [T];
    fn cut(self, chunks: usize) -> (Self, Self) {
        let (head, tail) = self.0.split_at(chunks * self.1);
        ((head, self.1), (tail, self.1))
    }
    fn piece(self) -> &'a [T] {
        self.0
    }
}

impl<'a, T: Send> Parts for (&'a mut [T], usize) {
    type Piece = &'a mut [T];
    fn cut(self, chunks: usize) -> (Self, Self) {
        let (head, tail) = self.0.split_at_mut(chunks * self.1);
        ((head, self.1), (tail, self.1))
    }
    fn piece(self) -> &'a mut [T] {
        self.0
    }
}

impl<'a, T: Send> Parts for (Option<&'a mut [T]>, usize) {
    type Piece = Option<&'a mut [T]>;
    fn cut(self, chunks: usize) -> (Self, Self) {
        let (head, tail) = self.0.map(|all| all.split_at_mut(chunks * self.1)).unzip();
        ((head, self.1), (tail, self.1))
    }
    fn piece(self) -> Option<&'a mut [T]> {
        self.0
    }
}

impl Parts for () {
    type Piece = ();
    fn cut(self, _chunks: usize) -> ((), ()) {
        ((), ())
    }
    fn piece(self) {}
}

macro_rules! tuple_parts {
    ($($part:ident $head:ident $tail:ident),*) => {
        impl<$($part: Parts),*> Parts for ($($part,)*) {
            type Piece = ($($part::Piece,)*);
            #[allow(non_snake_case)]
            fn cut(self, chunks: usize) -> (Self, Self) {
                let ($($part,)*) = self;
                $(let ($head, $tail) = $part.cut(chunks);)*
                (($($head,)*), ($($tail,)*))
            }
            #[allow(non_snake_case)]
            fn piece(self) -> Self::Piece {
                let ($($part,)*) = self;
                ($($part.piece(),)*)
            }
        }
    };
}
tuple_parts!(A a0 a1);
tuple_parts!(A a0 a1, B b0 b1);
tuple_parts!(A a0 a1, B b0 b1, C c0 c1);
tuple_parts!(A a0 a1, B b0 b1, C c0 c1, D d0 d1);
tuple_parts!(A a0 a1, B b0 b1, C c0 c1, D d0 d1, E e0 e1);
tuple_parts!(A a0 a1, B b0 b1, C c0 c1, D d0 d1, E e0 e1, F f0 f1);
tuple_parts!(A a0 a1, B b0 b1, C c0 c1, D d0 d1, E e0 e1, F f0 f1, G g0 g1);

/// Calls `f(chunk index, pieces)` for each of `chunks` chunks, in parallel. With no chunks at all `f` is called once, on
/// empty pieces.
pub(crate) fn for_chunks<P: Parts>(chunks: usize, parts: P, f: impl Fn(usize, P::Piece) + Sync) {
    fold_chunks(chunks, parts, f, |(), ()| ());
}

/// [`for_chunks`] whose results are combined by `join`: neighbours first, in a tree that depends on `chunks` alone.
pub(crate) fn fold_chunks<P: Parts, R: Send>(
    chunks: usize,
    parts: P,
    f: impl Fn(usize, P::Piece) -> R + Sync,
    join: impl Fn(R, R) -> R + Sync,
) -> R {
    fold_from(0, chunks, parts, &f, &join)
}

fn fold_from<P: Parts, R: Send>(
    first: usize,
    chunks: usize,
    parts: P,
    f: &(impl Fn(usize, P::Piece) -> R + Sync),
    join: &(impl Fn(R, R) -> R + Sync),
) -> R {
    if chunks <= 1 {
        return f(first, parts.piece());
    }
    let half = chunks / 2;
    let (head, tail) = parts.cut(half);
    let (head, tail) =
        rayon::join(|| fold_from(first, half, head, f, join), || fold_from(first + half, chunks - half, tail, f, join));
    join(head, tail)
}

thread_local! {
    static SCRATCH: RefCell<Vec<Vec<u64>>> = const { RefCell::new(Vec::new()) };
}

/// Calls `f` with `len` elements of scratch memory holding arbitrary values. The memory is the thread's own and is kept
/// for the next call; a call within a call (rayon may run another kernel's chunk here) gets memory of its own.
pub(crate) fn with_scratch<A: bytemuck::Pod, R>(len: usize, f: impl FnOnce(&mut [A]) -> R) -> R {
    let mut words = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = (len * size_of::<A>()).div_ceil(size_of::<u64>());
    if words.len() < needed {
        words.resize(needed, 0);
    }
    let result = f(&mut bytemuck::cast_slice_mut(&mut words)[..len]);
    SCRATCH.with_borrow_mut(|free| free.push(words));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_is_visited_once_with_its_own_pieces() {
        for n in [0, 1, 4, 5, 11, 100] {
            let x: Vec<usize> = (0..n).collect();
            let (mut y, mut counts) = (vec![0; n], vec![0; n.div_ceil(4)]);
            let parts = ((&x[..], 4), (&mut y[..], 4), (&mut counts[..], 1));
            for_chunks(n.div_ceil(4), parts, |chunk, (x, y, counts)| {
                assert!(x.first().is_none_or(|&first| first == chunk * 4));
                y.copy_from_slice(x);
                counts.iter_mut().for_each(|c| *c += 1);
            });
            assert_eq!(x, y);
            assert!(counts.iter().all(|&c| c == 1));
        }
    }

    #[test]
    fn folding_is_in_order_and_keeps_ragged_ends() {
        let x: Vec<u8> = (0..103).collect();
        let joined = fold_chunks(11, (&x[..], 10), |_, x| x.to_vec(), |a, b| [a, b].concat());
        assert_eq!(joined, x);
    }

    #[test]
    fn nested_scratch_does_not_overlap() {
        with_scratch::<f32, _>(5, |outer| {
            outer.fill(1.0);
            with_scratch::<f64, _>(9, |inner| inner.fill(2.0));
            assert_eq!(outer, [1.0; 5]);
        });
    }
}
