//! Rows of a table by number on the CPU.

use crate::cpu::lanes::{Place, lanes};
use crate::cpu::parallel::{CHUNK, chunk_rows, for_chunks};
use crate::cpu::simd::simd;
use crate::elementwise::cpu::fill_slice;
use crate::{Element, Stored};
use num_traits::Zero;
use std::marker::PhantomData;
use std::ops::Range;

/// Columns of the table's gradient that one task adds to.
const COLUMNS: usize = 64;

/// `out[i] = table[ids[i]]`.
pub(crate) fn embedding<T: Stored>(table: &[T], ids: &[i32], out: &mut [T], dim: usize) {
    if dim == 0 {
        return;
    }
    let per = chunk_rows(dim);
    for_chunks(ids.len().div_ceil(per), ((ids, per), (out, per * dim)), |_, (ids, out)| {
        for (&id, out) in ids.iter().zip(out.chunks_exact_mut(dim)) {
            out.copy_from_slice(&table[id as usize * dim..][..dim]);
        }
    });
}

/// `dtable[ids[i]] += dout[i]`, from zero unless `accumulate`. Tasks own blocks of columns and go through the ids in order: the work is even
/// however often an id occurs, and the order of every sum is that of the ids.
pub(crate) fn embedding_backward<T: Element>(
    ids: &[i32],
    dout: &[T],
    dtable: &mut [T::Acc],
    dim: usize,
    accumulate: bool,
) {
    if !accumulate {
        fill_slice(dtable, T::Acc::zero());
    }
    let columns = if dout.len() <= CHUNK { dim } else { COLUMNS };
    let table = Table { data: dtable.as_mut_ptr(), len: dtable.len(), dim, life: PhantomData };
    for_chunks(dim.div_ceil(columns.max(1)), (), |block, ()| {
        let columns = block * columns..dim.min((block + 1) * columns);
        // SAFETY: each task has a block of columns of its own, and `dtable` is borrowed for as long as they run.
        let mut block = unsafe { Block::new(&table, columns) };
        add_rows(ids, dout, &mut block);
    });
}

/// A table of rows of `dim` elements that several tasks write to.
struct Table<'a, A> {
    data: *mut A,
    len: usize,
    dim: usize,
    life: PhantomData<&'a mut [A]>,
}

// SAFETY: the elements are reached through `Block::new` only, whose callers vouch for disjoint columns.
unsafe impl<A: Send> Sync for Table<'_, A> {}

/// Some columns of a table.
struct Block<'a, A> {
    table: &'a Table<'a, A>,
    columns: Range<usize>,
}

impl<'a, A> Block<'a, A> {
    /// # Safety
    /// While it lives, nothing else may reach these columns.
    unsafe fn new(table: &'a Table<'a, A>, columns: Range<usize>) -> Block<'a, A> {
        assert!(columns.start <= columns.end && columns.end <= table.dim);
        Block { table, columns }
    }

    /// These columns of row `row`.
    #[inline(always)]
    fn row(&mut self, row: usize) -> &mut [A] {
        let start = row * self.table.dim;
        assert!(start + self.table.dim <= self.table.len, "row {row} is outside the table");
        // SAFETY: the columns lie within the row, the row within the table; `new`'s caller vouches for the exclusive access.
        unsafe { std::slice::from_raw_parts_mut(self.table.data.add(start + self.columns.start), self.columns.len()) }
    }
}

simd! {
    /// Adds the block's columns of each row of `dout` to the row that `ids` names.
    fn add_rows<V; T: Element>(ids: &[i32], dout: &[T], block: &mut Block<T::Acc>) {
        let (dim, columns) = (block.table.dim, block.columns.clone());
        for (i, &id) in ids.iter().enumerate() {
            let dout = &dout[i * dim..][columns.clone()];
            let row = block.row(id as usize);
            lanes!(V, row.len(), at => {
                let (d, old): (V, V) = (at.load(dout, T::Acc::zero()), at.load(row, T::Acc::zero()));
                at.store(row, old + d);
            });
        }
    }
}
