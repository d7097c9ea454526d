//! Memory of the calling thread for tiles, reused from call to call.

use crate::cpu::simd::Real;
use bytemuck::{Pod, Zeroable};
use std::cell::RefCell;

#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    static LINES: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Runs `f` on pieces of the given sizes, each at the start of a cache line, with arbitrary contents.
/// `f` must not come back here: the memory is taken while it runs.
pub(super) fn with<A: Real, const N: usize>(sizes: [usize; N], f: impl FnOnce([&mut [A]; N])) {
    let per_line = size_of::<Line>() / size_of::<A>();
    LINES.with_borrow_mut(|lines| {
        let needed = sizes.iter().map(|size| size.div_ceil(per_line)).sum();
        if lines.len() < needed {
            lines.resize(needed, Line::zeroed());
        }
        let mut rest: &mut [A] = bytemuck::cast_slice_mut(lines);
        f(sizes.map(|size| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(size.next_multiple_of(per_line));
            rest = after;
            &mut piece[..size]
        }));
    });
}
