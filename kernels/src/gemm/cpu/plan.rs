//! How a product is split into tasks: by its shape alone, so that the result does not depend on the number of threads.

use super::block::{K_BLOCK, Part};
use super::code::Tile;
use crate::gemm::Gemm;
use std::ops::Range;

/// Multiply-adds below which a task is not worth handing to another thread (some 20 µs).
const TASK: usize = 1 << 20;
/// Tasks to aim at: enough to balance many threads.
const TASKS: usize = 16;
/// Rows of a task: fewer would not share a panel of `b` well, more of `a` would not stay in the L2 cache.
const ROWS: Range<usize> = 96..256;
/// Fewest columns of a task that has all rows and packs its columns for itself alone.
const NARROW: usize = 96;
/// Fewest columns of a task that shares its rows with others.
const COLS: usize = 192;
/// The same where each of them packs the rows for itself.
const PACKED_COLS: usize = 512;
/// Tasks that a product large enough for them has, even if its blocks get small.
const LEAST_TASKS: usize = 2;
/// Fewest rows of such a block.
const LEAST_ROWS: usize = 32;
/// Elements of `b` packed at a time for all tasks.
const SHARED: usize = 4 << 20;

/// A product's partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rows of a task.
    rows: usize,
    /// Columns of a task.
    cols: usize,
    /// Columns of `b` that are packed at once when tasks share them.
    pub(super) shared_cols: usize,
    /// Values of `k` that are packed at once when tasks share them.
    pub(super) shared_k: usize,
}

impl Plan {
    /// The partition of `(m, k)·(k, n)` into tiles of the given size; `packs_a` where each task packs its rows of `a`.
    pub(super) fn new(tile: Tile, m: usize, n: usize, k: usize, packs_a: bool) -> Plan {
        let wanted = (m * n * k / TASK).clamp(1, TASKS);
        let (row_blocks, col_blocks) = if wanted == 1 {
            (1, 1)
        } else if !packs_a && m <= ROWS.end && n >= 4 * NARROW {
            (1, wanted.min(n / NARROW))
        } else {
            let least_cols = if packs_a { PACKED_COLS } else { COLS };
            let col_blocks = wanted.div_ceil(m.div_ceil(ROWS.end)).min(n.div_ceil(least_cols));
            let row_blocks = wanted.div_ceil(col_blocks).min(m.div_ceil(ROWS.start));
            busy(row_blocks.max(m.div_ceil(ROWS.end)), col_blocks, wanted.min(LEAST_TASKS), m, n)
        };
        let rows = m.div_ceil(row_blocks).next_multiple_of(tile.rows);
        let cols = n.div_ceil(col_blocks).next_multiple_of(tile.lanes);
        let (shared_cols, shared_k) = match k * n <= SHARED {
            true => (n, k),
            false if k > m => (n.min(SHARED / 1024), SHARED / n.min(SHARED / 1024)),
            false => (SHARED / k, k),
        };
        Plan {
            rows,
            cols,
            shared_cols: shared_cols.next_multiple_of(cols),
            shared_k: shared_k.next_multiple_of(K_BLOCK),
        }
    }

    /// The rectangles of rows `0..m` and columns `cols`, over the values `ks` of `k`.
    pub(super) fn parts(&self, m: usize, cols: Range<usize>, ks: Range<usize>) -> Vec<Part> {
        blocks(cols, self.cols)
            .flat_map(|cols| {
                blocks(0..m, self.rows).map({
                    let ks = ks.clone();
                    move |rows| Part { rows, cols: cols.clone(), ks: ks.clone() }
                })
            })
            .collect()
    }
}

/// More blocks where there would be fewer than `tasks`: a weight gradient has a small result and a long `k`.
fn busy(rows: usize, cols: usize, tasks: usize, m: usize, n: usize) -> (usize, usize) {
    let rows = rows.max(tasks.div_ceil(cols).min(m.div_ceil(LEAST_ROWS)));
    (rows, cols.max(tasks.div_ceil(rows).min(n.div_ceil(NARROW))))
}

/// Consecutive ranges of `size`, the last one shorter.
pub(super) fn blocks(range: Range<usize>, size: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(size).map(move |start| start..end.min(start + size))
}

/// How many of a batch's matrices make a task; none when each is large enough to be split itself.
pub(super) fn matrices_per_task(shape: Gemm) -> Option<usize> {
    let each = shape.m * shape.n * shape.k;
    (shape.batch > 1 && each < 16 * TASK).then(|| (TASK / each.max(1)).clamp(1, shape.batch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_products_keep_several_threads_busy_and_parts_cover_them() {
        let tile = Tile { rows: 8, cols: 48, lanes: 16 };
        for (m, n, k) in
            [(96, 384, 4000), (8, 384, 4000), (64, 64, 4000), (384, 384, 2304), (2304, 96, 384), (128, 512, 512)]
        {
            for packs_a in [false, true] {
                let parts = Plan::new(tile, m, n, k, packs_a).parts(m, 0..n, 0..k);
                assert!(parts.len() >= LEAST_TASKS, "{m}×{n}×{k}: {} tasks", parts.len());
                let covered: usize = parts.iter().map(|part| part.rows.len() * part.cols.len()).sum();
                assert_eq!(covered, m * n, "{m}×{n}×{k}");
            }
        }
    }
}
