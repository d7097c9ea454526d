//! Memory that a thread keeps for packed panels, so that a product allocates nothing after the first of its size.

use bytemuck::{Pod, Zeroable};
use std::cell::Cell;

/// A cache line; the unit scratch is allocated in.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// What a piece of scratch is for: each purpose has a block of its own per thread.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    /// Packed `a`.
    A,
    /// Packed `b`.
    B,
    /// Unfinished sums.
    Sums,
}

thread_local! {
    static BLOCKS: [Cell<Vec<Line>>; 3] = const { [const { Cell::new(Vec::new()) }; 3] };
}

/// Scratch taken from the thread; goes back to it when dropped. While it is out, a product that the same thread runs
/// inside this one finds none and allocates its own.
pub(super) struct Scratch {
    lines: Vec<Line>,
    purpose: Purpose,
}

impl Scratch {
    /// At least `len` elements of type `A` with arbitrary contents.
    pub(super) fn take<A: Pod>(purpose: Purpose, len: usize) -> Scratch {
        let mut lines = BLOCKS.with(|blocks| blocks[purpose as usize].take());
        let needed = (len * size_of::<A>()).div_ceil(size_of::<Line>());
        if lines.len() < needed {
            lines.resize(needed, Line([0; 64]));
        }
        Scratch { lines, purpose }
    }

    /// The elements.
    pub(super) fn slice<A: Pod>(&mut self) -> &mut [A] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = std::mem::take(&mut self.lines);
        // While a thread shuts down there is nowhere to put it back to.
        let _ = BLOCKS.try_with(|blocks| blocks[self.purpose as usize].set(lines));
    }
}
