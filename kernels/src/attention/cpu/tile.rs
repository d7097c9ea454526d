//! Small products of matrices in scratch: register tiles of queries × keys or tokens × head width.

use crate::cpu::simd::{Lanes, Real, simd};

/// A left operand: element (i, p) lies at `data[i · row + p · column]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Left<'a, A> {
    pub(super) data: &'a [A],
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a, A> Left<'a, A> {
    /// A matrix whose rows lie `row` elements apart.
    pub(super) fn rows(data: &'a [A], row: usize) -> Left<'a, A> {
        Left { data, row, column: 1 }
    }

    /// The transpose of such a matrix.
    pub(super) fn transposed(data: &'a [A], row: usize) -> Left<'a, A> {
        Left { data, row: 1, column: row }
    }
}

/// The sizes of a product (m, k)·(k, n); n is a multiple of `MAX_LANES`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
}

simd! {
    /// c = a·b, or c += a·b to accumulate. Rows of b and c lie `b_row` and `c_row` elements apart.
    pub(super) fn product<V; A: Element>(
        size: Size, a: Left<A::Acc>, b: &[A::Acc], b_row: usize, c: &mut [A::Acc], c_row: usize, accumulate: bool,
    ) {
        let Size { m, n, k } = size;
        if m == 0 || n == 0 {
            return;
        }
        assert!(n.is_multiple_of(V::N) && n <= c_row && c.len() >= (m - 1) * c_row + n);
        assert!(k == 0 || n <= b_row && b.len() >= (k - 1) * b_row + n);
        assert!(k == 0 || a.data.len() > (m - 1) * a.row + (k - 1) * a.column);
        let tiles = Tiles { a, k, b: b.as_ptr(), b_row, c: c.as_mut_ptr(), c_row, accumulate };
        let mut j = 0;
        while j < n {
            let registers = (n - j) / V::N;
            // SAFETY: the assertions above bound every row of a, b and c; the strips cover columns below n.
            j += V::N * unsafe {
                match registers {
                    1 => tiles.strip::<V, 1>(m, j),
                    2 | 4 => tiles.strip::<V, 2>(m, j),
                    _ => tiles.strip::<V, 3>(m, j),
                }
            };
        }
    }
}

struct Tiles<'a, A> {
    a: Left<'a, A>,
    k: usize,
    b: *const A,
    b_row: usize,
    c: *mut A,
    c_row: usize,
    accumulate: bool,
}

impl<A: Real> Tiles<'_, A> {
    /// All rows of N registers of columns from `j` on; returns N.
    ///
    /// # Safety
    /// Rows below `m`, columns below `j + N · V::N` and all `k` lie inside the operands.
    #[inline(always)]
    unsafe fn strip<V: Lanes<A>, const N: usize>(&self, m: usize, j: usize) -> usize {
        let mut i = 0;
        // SAFETY: the tiles cover rows below m; the rest is the caller's promise.
        unsafe {
            // Eight rows of three registers fill the 32 registers of AVX-512, four rows the 16 of AVX2.
            while V::N == 16 && i + 8 <= m {
                self.tile::<V, 8, N>(i, j);
                i += 8;
            }
            while i + 4 <= m {
                self.tile::<V, 4, N>(i, j);
                i += 4;
            }
            while i < m {
                self.tile::<V, 1, N>(i, j);
                i += 1;
            }
        }
        N
    }

    /// One tile of M rows and N registers of columns, kept in registers over all k.
    ///
    /// # Safety
    /// Rows `i..i + M` and columns `j..j + N · V::N` lie inside the operands.
    #[inline(always)]
    unsafe fn tile<V: Lanes<A>, const M: usize, const N: usize>(&self, i: usize, j: usize) {
        let mut sums = [[V::zero(); N]; M];
        // SAFETY: the caller keeps all rows and columns inside the operands.
        unsafe {
            let mut a = self.a.data.as_ptr().add(i * self.a.row);
            let mut b = self.b.add(j);
            for _ in 0..self.k {
                let mut row = [V::zero(); N];
                for s in 0..N {
                    row[s] = V::load(b.add(s * V::N));
                }
                for r in 0..M {
                    let x = V::splat(*a.add(r * self.a.row));
                    for s in 0..N {
                        sums[r][s] = x.fma(row[s], sums[r][s]);
                    }
                }
                a = a.wrapping_add(self.a.column);
                b = b.wrapping_add(self.b_row);
            }
            for r in 0..M {
                for s in 0..N {
                    let c = self.c.add((i + r) * self.c_row + j + s * V::N);
                    let old = if self.accumulate { V::load(c) } else { V::zero() };
                    (old + sums[r][s]).store(c);
                }
            }
        }
    }
}
