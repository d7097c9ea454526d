//! Matrix products after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): panels of
//! `b` packed so that the micro-kernel reads them in order, tiles of sums in registers, the epilogue at the write-back.
//!
//! `a` is read in place where its rows allow it. The products that training needs are small, so what is shared and how
//! work is split follows the shape ([`plan`]).

mod block;
mod code;
mod dot;
mod epilogue;
mod pack;
mod plan;
mod scratch;
mod tile;

pub(crate) use epilogue::Finish;

use crate::Element;
use crate::gemm::{Gemm, Layout};
use block::{Job, K_BLOCK, Panels, Part};
use code::Code;
use pack::{Operand, Order};
use plan::Plan;
use rayon::prelude::*;
use scratch::{Purpose, Scratch};

/// `c = [c +] alpha·a·b` for one product; parallel where it is large enough, also inside other parallel work.
pub(crate) fn product<T: Element, C: Element<Acc = T::Acc>>(
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    alpha: T::Acc,
    a: &[T],
    b: &[T],
    c: &mut [C],
    accumulate: bool,
) {
    gemm(Gemm::new(layout, m, n, k), a, b, c, Finish::plain(alpha, accumulate));
}

/// The product and its epilogue, for checked lengths.
pub(crate) fn gemm<T: Element, C: Element<Acc = T::Acc>>(
    shape: Gemm,
    a: &[T],
    b: &[T],
    c: &mut [C],
    finish: Finish<T>,
) {
    let Gemm { m, n, k, batch, .. } = shape;
    assert!(a.len() >= batch * m * k && b.len() >= batch * k * n && c.len() >= batch * m * n);
    if batch * m * n == 0 {
        return;
    }
    let code = Code::<T, C>::current();
    let c = epilogue::Shared::from(c);
    let one = |index: usize| {
        let (a, b) = (&a[index * m * k..][..m * k], &b[index * k * n..][..k * n]);
        // SAFETY: matrix `index` of the batch begins inside `c`.
        let (finish, c) = unsafe { (finish.skip(index * m * n), c.skip(index * m * n)) };
        run(&code, &job(shape, a, b, finish, c));
    };
    match plan::matrices_per_task(shape) {
        Some(group) => (0..batch.div_ceil(group))
            .into_par_iter()
            .for_each(|task| (task * group..batch.min((task + 1) * group)).for_each(one)),
        None => (0..batch).for_each(one),
    }
}

fn job<'a, T: Element, C>(
    shape: Gemm,
    a: &'a [T],
    b: &'a [T],
    finish: Finish<'a, T>,
    c: epilogue::Shared<C>,
) -> Job<'a, T, C> {
    let Gemm { layout, m, n, k, .. } = shape;
    let along = |data| Operand {
        data,
        stride: k,
        order: Order::Along,
    };
    let across = |data, stride| Operand {
        data,
        stride,
        order: Order::Across,
    };
    let (a, b) = match layout {
        Layout::Nn => (along(a), across(b, n)),
        Layout::Nt => (along(a), along(b)),
        Layout::Tn => (across(a, m), across(b, n)),
    };
    Job {
        m,
        n,
        k,
        a,
        b,
        finish,
        c,
    }
}

/// One product, split as its plan says.
fn run<T: Element, C: Element<Acc = T::Acc>>(code: &Code<T, C>, job: &Job<T, C>) {
    let plan = Plan::new(code.tile, job.m, job.n, job.k);
    let whole = Part {
        rows: 0..job.m,
        cols: 0..job.n,
        ks: 0..job.k,
    };
    if plan.tasks() == 1 {
        // SAFETY: the whole product, and this thread alone holds `c`.
        unsafe { (code.multiply)(job, whole, None, None) }
    } else if plan.ranges > 1 {
        split_k(code, job, &plan);
    } else if plan.row_blocks() == 1 {
        plan.parts(0..job.n).into_par_iter().for_each(|part| {
            // SAFETY: parts are disjoint and lie inside the product.
            unsafe { (code.multiply)(job, part, None, None) }
        });
    } else {
        for first in (0..job.n).step_by(plan.shared_cols) {
            shared_panels(code, job, &plan, first..job.n.min(first + plan.shared_cols));
        }
    }
}

/// Packs the columns `cols` of `b` once, for all blocks of rows.
fn shared_panels<T: Element, C: Element<Acc = T::Acc>>(
    code: &Code<T, C>,
    job: &Job<T, C>,
    plan: &Plan,
    cols: std::ops::Range<usize>,
) {
    let padded = cols.len().next_multiple_of(code.tile.lanes);
    let len = padded * job.k.div_ceil(code.per_step);
    let mut scratch = Scratch::take::<T::Acc>(Purpose::B, len);
    let data = &mut scratch.slice::<T::Acc>()[..len];
    let block_len = padded * K_BLOCK / code.per_step;
    data.par_chunks_mut(block_len).enumerate().for_each(|(block, data)| {
        let start = block * K_BLOCK;
        let ks = start..job.k.min(start + K_BLOCK);
        let panel_len = ks.len().div_ceil(code.per_step) * code.tile.cols;
        data.par_chunks_mut(panel_len)
            .with_min_len(plan.panels_per_task)
            .enumerate()
            .for_each(|(panel, data)| {
                let first = cols.start + panel * code.tile.cols;
                let cols = first..cols.end.min(first + code.tile.cols);
                // SAFETY: `Code::current` asked the processor for these instructions.
                unsafe { (code.pack)(job.b, cols, ks.clone(), data) }
            });
    });
    let panels = Panels {
        data,
        first: cols.start,
        padded,
    };
    plan.parts(cols).into_par_iter().for_each(|part| {
        // SAFETY: parts are disjoint and lie inside the product.
        unsafe { (code.multiply)(job, part, Some(panels), None) }
    });
}

/// Sums ranges of `k` apart, and adds them up in their order.
fn split_k<T: Element, C: Element<Acc = T::Acc>>(code: &Code<T, C>, job: &Job<T, C>, plan: &Plan) {
    let parts = plan.parts(0..job.n);
    let part_len = |part: &Part| code.tile.sums(part.rows.len(), part.cols.len()) * plan.ranges;
    let mut scratch = Scratch::take::<T::Acc>(Purpose::Sums, parts.iter().map(part_len).sum());
    let mut rest = scratch.slice::<T::Acc>();
    let mut jobs = Vec::with_capacity(parts.len());
    for part in parts {
        let (sums, tail) = rest.split_at_mut(part_len(&part));
        jobs.push((part, sums));
        rest = tail;
    }
    jobs.into_par_iter().for_each(|(part, sums)| {
        let len = sums.len() / plan.ranges;
        sums.par_chunks_mut(len).zip(plan.k_ranges()).for_each(|(sums, ks)| {
            let part = Part { ks, ..part.clone() };
            // SAFETY: parts lie inside the product; the sums are this task's own.
            unsafe { (code.multiply)(job, part, None, Some(sums)) }
        });
        // SAFETY: parts are disjoint and lie inside `c`.
        unsafe { (code.merge)(job, part.rows, part.cols, sums, plan.ranges) }
    });
}
