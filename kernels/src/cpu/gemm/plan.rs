//! How a product is split into tasks: by its shape alone, so that the result does not depend on the number of threads.

use super::block::{K_BLOCK, Part};
use super::code::Tile;
use crate::gemm::Gemm;
use std::ops::Range;

/// Multiply-adds below which a task is not worth handing to another thread (some 20 µs).
const TASK: usize = 1 << 20;
/// Tasks to aim at: enough to balance many threads.
const TASKS: usize = 64;
/// Rows of a task: as few share a packed panel of `b` well, as many of `a` stay in the second-level cache.
const ROWS: Range<usize> = 64..256;
/// Shortest range of `k` summed apart.
const K_RANGE: usize = 2 * K_BLOCK;
/// Elements of `b` packed at a time for all tasks.
const SHARED: usize = 4 << 20;
/// Elements of sums kept for ranges of `k`.
const SUMS: usize = 4 << 20;

/// A product's partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    m: usize,
    k: usize,
    rows: usize,
    cols: usize,
    col_blocks: usize,
    /// Columns of `b` that are packed at once when tasks share them.
    pub(super) shared_cols: usize,
    /// Panels that one task packs.
    pub(super) panels_per_task: usize,
    /// Ranges of `k` summed apart.
    pub(super) ranges: usize,
    range_len: usize,
}

impl Plan {
    /// The partition of `(m, k)·(k, n)` into tiles of the given size.
    pub(super) fn new(tile: Tile, m: usize, n: usize, k: usize) -> Plan {
        let mut wanted = (m * n * k / TASK).clamp(1, TASKS);
        let ranges_wanted = if m.max(n) <= 1024 {
            (k / K_RANGE).min(wanted).min(SUMS / (m * n)).min(8)
        } else {
            1
        };
        let range_len = k.div_ceil(ranges_wanted.max(1)).next_multiple_of(K_BLOCK).max(1);
        let ranges = k.div_ceil(range_len).max(1);
        wanted = wanted.div_ceil(ranges);
        let rows = m
            .div_ceil(wanted)
            .clamp(ROWS.start, ROWS.end)
            .next_multiple_of(tile.rows);
        let rows = if wanted == 1 { m } else { rows };
        let row_blocks = m.div_ceil(rows);
        let panels = n.div_ceil(tile.cols);
        let cols = panels.div_ceil(wanted.div_ceil(row_blocks).min(panels)) * tile.cols;
        Plan {
            m,
            k,
            rows,
            cols,
            col_blocks: n.div_ceil(cols),
            shared_cols: (SHARED / k.max(1)).max(tile.cols).next_multiple_of(cols),
            panels_per_task: (TASK / 16 / (K_BLOCK * tile.cols)).max(1),
            ranges,
            range_len,
        }
    }

    /// Blocks of rows.
    pub(super) fn row_blocks(&self) -> usize {
        self.m.div_ceil(self.rows)
    }

    /// Number of tasks.
    pub(super) fn tasks(&self) -> usize {
        self.row_blocks() * self.col_blocks * self.ranges
    }

    /// The rectangles of `c` over the columns `cols`, with the whole of `k`.
    pub(super) fn parts(&self, cols: Range<usize>) -> Vec<Part> {
        let blocks = |range: Range<usize>, size: usize| {
            let end = range.end;
            range.step_by(size).map(move |start| start..end.min(start + size))
        };
        blocks(cols, self.cols)
            .flat_map(|cols| {
                blocks(0..self.m, self.rows).map(move |rows| Part {
                    rows,
                    cols: cols.clone(),
                    ks: 0..self.k,
                })
            })
            .collect()
    }

    /// The ranges of `k` summed apart.
    pub(super) fn k_ranges(&self) -> Vec<Range<usize>> {
        (0..self.ranges)
            .map(|i| i * self.range_len..self.k.min((i + 1) * self.range_len))
            .collect()
    }
}

/// How many of a batch's matrices make a task; none when each is large enough to be split itself.
pub(super) fn matrices_per_task(shape: Gemm) -> Option<usize> {
    let each = shape.m * shape.n * shape.k;
    (shape.batch > 1 && each < 16 * TASK).then(|| (TASK / each.max(1)).clamp(1, shape.batch))
}
