//! Attention on the processor: one task per head, or per group of query heads that share keys.
//!
//! A task packs its keys (transposed) and values into scratch once, then takes blocks of queries against all keys they
//! see. Scratch is in the accumulator's type, with rows padded to whole registers.

mod backward;
mod decode;
mod forward;
mod rows;
mod scratch;
mod sequence;
mod tile;

pub(crate) use backward::backward;
pub(crate) use forward::{forward, weights};

use crate::attention::Attention;
use crate::cpu::simd::MAX_LANES;
use rows::{Head, prefetch};

/// Sizes of scratch and places of heads, from the shape alone.
#[derive(Debug, Clone, Copy)]
struct Plan {
    /// Queries per block.
    block: usize,
    /// Head width in scratch.
    width: usize,
    /// Elements from row to row of scratch with a column for each key.
    keys: usize,
    q_heads: usize,
    kv_heads: usize,
    head_dim: usize,
    q_len: usize,
    k_len: usize,
    kv_stride: usize,
}

/// Elements a block's scores may take: a quarter of a megabyte in single precision, well inside the L2 cache.
const BLOCK_SCORES: usize = 1 << 16;

impl Plan {
    fn new(p: &Attention, most_queries: usize) -> Plan {
        // An odd number of registers from row to row: walks down a column do not meet in one cache set.
        let keys = p.k_len.next_multiple_of(MAX_LANES) | MAX_LANES;
        Plan {
            block: (BLOCK_SCORES / keys / 8 * 8).clamp(8, most_queries),
            width: p.head_dim.next_multiple_of(MAX_LANES),
            keys,
            q_heads: p.q_heads,
            kv_heads: p.kv_heads,
            head_dim: p.head_dim,
            q_len: p.q_len,
            k_len: p.k_len,
            kv_stride: p.kv_stride,
        }
    }

    /// Query heads per key head.
    fn group(&self) -> usize {
        self.q_heads / self.kv_heads
    }

    /// The rows of query head `head` of sequence `batch`.
    fn q_head(&self, batch: usize, head: usize) -> Head {
        Head {
            first: (batch * self.q_len * self.q_heads + head) * self.head_dim,
            stride: self.q_heads * self.head_dim,
            dim: self.head_dim,
        }
    }

    /// The rows of key head `head` of sequence `batch`.
    fn kv_head(&self, batch: usize, head: usize) -> Head {
        Head {
            first: (batch * self.kv_stride * self.kv_heads + head) * self.head_dim,
            stride: self.kv_heads * self.head_dim,
            dim: self.head_dim,
        }
    }

    /// Index of the first query of a head in `(batch, q_heads, q_len)`.
    fn row(&self, batch: usize, head: usize) -> usize {
        (batch * self.q_heads + head) * self.q_len
    }

    /// Asks for rows that the next head will read, those of its queries `first..end` and as large a share of its keys.
    /// A head is a short piece of each token, and the processor does not foresee such strides by itself.
    fn prefetch_next<T>(&self, batch: usize, head: usize, first: usize, end: usize, of_q: &[&[T]], of_kv: &[&[T]]) {
        let next = batch * self.q_heads + head + 1;
        let (batch, head) = (next / self.q_heads, next % self.q_heads);
        for x in of_q {
            prefetch(x.as_ptr(), self.q_head(batch, head).from(first), end - first);
        }
        if head.is_multiple_of(self.group()) {
            let (first, end) = (first * self.k_len / self.q_len, end * self.k_len / self.q_len);
            for x in of_kv {
                prefetch(x.as_ptr(), self.kv_head(batch, head / self.group()).from(first), end - first);
            }
        }
    }
}
