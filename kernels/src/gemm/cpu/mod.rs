//! Matrix products after Goto and van de Geijn, "Anatomy of high-performance matrix multiplication" (2008): panels of
//! `b` packed so that the micro-kernel reads them in order, tiles of sums in registers, the epilogue at the write-back.
//!
//! `a` is read in place where its rows allow it. The products that training needs are small, so what is shared and how
//! work is split follows the shape ([`plan`]).

mod amx;
mod block;
mod code;
mod epilogue;
mod format;
mod gemv;
mod pack;
mod peak;
mod plan;
mod scratch;
mod side;
mod tile;

pub(crate) use epilogue::Epilogue;
pub use peak::saturate;

use crate::Element;
use crate::cpu::simd::isa;
use crate::gemm::{Gemm, Layout};
use block::{Accumulators, Job, K_BLOCK, Panels, Part};
use code::Code;
use pack::{Operand, Order};
use plan::Plan;
use rayon::prelude::*;
use scratch::{Purpose, Scratch};
use std::ops::Range;

/// `c = [c +] alpha·a·b` for one product; parallel where it is large enough, also inside other parallel work.
pub(crate) fn product<T: Element, C: Element<Acc = T::Acc>>(
    shape: Gemm,
    alpha: T::Acc,
    a: &[T],
    b: &[T],
    c: &mut [C],
    accumulate: bool,
) {
    gemm(shape, a, b, c, Epilogue::plain(alpha, accumulate));
}

/// Whether the processor multiplies bf16 in tiles and the system lets this process do so.
pub(crate) fn has_amx() -> bool {
    amx::available()
}

/// The product and its epilogue, for checked lengths.
pub(crate) fn gemm<T: Element, C: Element<Acc = T::Acc>>(
    shape: Gemm,
    a: &[T],
    b: &[T],
    c: &mut [C],
    epilogue: Epilogue<T>,
) {
    let Gemm { m, n, k, batch, .. } = shape;
    assert!(a.len() >= batch * m * k && b.len() >= batch * k * n && c.len() >= batch * m * n);
    if batch * m * n == 0 {
        return;
    }
    let code = Code::<T, C>::new(isa());
    let c = epilogue::Shared::from(c);
    let one = |index: usize| {
        let (a, b) = (&a[index * m * k..][..m * k], &b[index * k * n..][..k * n]);
        // SAFETY: matrix `index` of the batch begins inside `c`.
        let (epilogue, c) = unsafe { (epilogue.skip(index * m * n), c.skip(index * m * n)) };
        run(&code, &job(shape, a, b, epilogue, c));
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
    epilogue: Epilogue<'a, T>,
    c: epilogue::Shared<C>,
) -> Job<'a, T, C> {
    let Gemm { layout, m, n, k, .. } = shape;
    let k_major = |data| Operand { data, stride: k, order: Order::KMajor };
    let mn_major = |data, stride| Operand { data, stride, order: Order::MnMajor };
    let (a, b) = match layout {
        Layout::Nn => (k_major(a), mn_major(b, n)),
        Layout::Nt => (k_major(a), k_major(b)),
        Layout::Tn => (mn_major(a, m), mn_major(b, n)),
    };
    Job { m, n, k, a, b, epilogue, c }
}

/// One product, split as its plan says.
fn run<T: Element, C: Element<Acc = T::Acc>>(code: &Code<T, C>, job: &Job<T, C>) {
    if gemv::fits(job) {
        return gemv::multiply(job);
    }
    let plan = Plan::new(code.tile, job.m, job.n, job.k, job.a.order == Order::MnMajor);
    let parts = plan.parts(job.m, 0..job.n, 0..job.k);
    if parts[0].rows.len() == job.m || (code.reads_in_place)(job.b, job.m) {
        let multiply = |part| {
            // SAFETY: parts are disjoint and lie inside the product.
            unsafe { (code.multiply)(job, part, None, None) }
        };
        match parts.len() {
            1 => parts.into_iter().for_each(multiply),
            _ => parts.into_par_iter().for_each(multiply),
        }
        return;
    }
    for cols in plan::blocks(0..job.n, plan.shared_cols) {
        if plan.shared_k >= job.k {
            shared(code, job, &plan, cols, 0..job.k, None);
        } else {
            let len = plan.parts(job.m, cols.clone(), 0..0).iter().map(|part| sums_of(code, part)).sum();
            let mut scratch = Scratch::take::<T::Acc>(Purpose::Sums, len);
            for ks in plan::blocks(0..job.k, plan.shared_k) {
                shared(code, job, &plan, cols.clone(), ks, Some(scratch.slice()));
            }
        }
    }
}

/// Elements of the sums of a part.
fn sums_of<T: Element, C>(code: &Code<T, C>, part: &Part) -> usize {
    code.tile.sums(part.rows.len(), part.cols.len())
}

/// Packs a rectangle of `b` once, and adds its products for all blocks of rows; to `sums` if it is not all of `k`.
fn shared<T: Element, C: Element<Acc = T::Acc>>(
    code: &Code<T, C>,
    job: &Job<T, C>,
    plan: &Plan,
    cols: Range<usize>,
    ks: Range<usize>,
    sums: Option<&mut [T::Acc]>,
) {
    let padded = cols.len().next_multiple_of(code.tile.lanes);
    let len = padded * (code.steps)(ks.len());
    let mut scratch = Scratch::take::<T::Acc>(Purpose::B, len);
    let data = &mut scratch.slice::<T::Acc>()[..len];
    let parts = plan.parts(job.m, cols.clone(), ks.clone());
    pack_shared(code, job, &parts, padded, data);
    let packed = Panels { data, first_k: ks.start, first_col: cols.start, padded };
    let multiply = |(part, kept): (Part, Option<Accumulators<T::Acc>>)| {
        // SAFETY: parts are disjoint and lie inside the product.
        unsafe { (code.multiply)(job, part, Some(packed), kept) }
    };
    let Some(mut sums) = sums else {
        parts.into_par_iter().for_each(|part| multiply((part, None)));
        return;
    };
    let (fresh, last) = (ks.start == 0, ks.end == job.k);
    let mut kept = Vec::with_capacity(parts.len());
    for part in &parts {
        let own = sums.split_off_mut(..sums_of(code, part)).expect("room for the sums of every part");
        kept.push(Some(Accumulators { sums: own, fresh, last }));
    }
    parts.into_par_iter().zip(kept).for_each(multiply);
}

/// Packs the columns of `parts`, for one block of `k` after another.
fn pack_shared<T: Element, C: Element<Acc = T::Acc>>(
    code: &Code<T, C>,
    job: &Job<T, C>,
    parts: &[Part],
    padded: usize,
    data: &mut [T::Acc],
) {
    let mut tasks = Vec::new();
    let mut rest = data;
    for ks in plan::blocks(parts[0].ks.clone(), K_BLOCK) {
        for part in parts.iter().filter(|part| part.rows.start == 0) {
            let width = part.cols.len().next_multiple_of(code.tile.lanes).min(padded);
            let to = rest.split_off_mut(..width * (code.steps)(ks.len())).expect("room for every column");
            tasks.push((part.cols.clone(), ks.clone(), to));
        }
    }
    tasks.into_par_iter().for_each(|(cols, ks, to)| {
        // SAFETY: `Code::new` is given instruction sets that this processor has.
        unsafe { (code.pack)(job.b, cols, ks, to) }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Isa;
    use half::bf16;

    #[test]
    fn what_saturates_counts_the_operations_of_every_thread() {
        let threads = rayon::current_num_threads() as f64;
        let singles = saturate(crate::DType::F32, 10).unwrap();
        assert!(singles >= threads * 10.0 * 2.0 * 12.0 && saturate(crate::DType::BF16, 10).unwrap() >= singles);
        assert_eq!(saturate(crate::DType::F32, 20).unwrap(), 2.0 * singles);
        let error = saturate(crate::DType::I32, 1).unwrap_err().to_string();
        assert!(error.contains("i32") && error.contains("bf16"), "{error}");
    }

    /// The dot products of pairs, which a processor with AMX never chooses by itself, against a plain triple loop.
    #[test]
    fn pairs_follow_the_triple_loop() {
        let value = |i: usize| bf16::from_f64((i * 37 % 101) as f64 / 50.0 - 1.0);
        for (m, n, k) in [(1, 1, 1), (9, 50, 7), (40, 64, 300), (130, 33, 129), (16, 48, 600)] {
            let a: Vec<bf16> = (0..m * k).map(value).collect();
            let b: Vec<bf16> = (0..k * n).map(|i| value(i + 13)).collect();
            for layout in [Layout::Nn, Layout::Nt, Layout::Tn] {
                let mut c = vec![0.0f32; m * n];
                let epilogue = Epilogue::plain(1.0, false);
                let job = job(Gemm::new(layout, m, n, k), &a, &b, epilogue, c.as_mut_slice().into());
                run(&Code::<bf16, f32>::new(isa().min(Isa::Avx512Bf16)), &job);
                for (i, found) in c.iter().enumerate() {
                    let (row, col) = (i / n, i % n);
                    let at = |l| match layout {
                        Layout::Nn => (row * k + l, l * n + col),
                        Layout::Nt => (row * k + l, col * k + l),
                        Layout::Tn => (l * m + row, l * n + col),
                    };
                    let exact: f64 = (0..k).map(at).map(|(x, y)| a[x].to_f64() * b[y].to_f64()).sum();
                    // The inputs are exact in bf16; sums of k products of at most 1 round to k·2⁻²⁴ each.
                    assert!((f64::from(*found) - exact).abs() < 1e-5 * k as f64, "{layout:?} {m}×{n}×{k}: {found}");
                }
            }
        }
    }
}
