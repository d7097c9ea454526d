//! Launches of `cuda/gemm_simt.cu` and `cuda/gemm_partials.cu`.

use super::{Arg, Grid, Module, args, launch};
use crate::activation::Activation;
use crate::gemm::{Epilogue, Gemm, Layout};
use crate::{DType, Error, Result, View, ViewMut};

/// Elements the epilogue takes at a time where rows allow it.
const STORE_WIDTH: usize = 4;
/// Threads of a block of `gemm_simt`.
const SIMT_THREADS: usize = 256;

pub(crate) fn gemm(shape: Gemm, a: View, b: View, c: &mut ViewMut, epilogue: Epilogue) -> Result<()> {
    super::refuse_f64("gemm", a.dtype())?;
    let [m, n, k, batch] = [shape.m, shape.n, shape.k, shape.batch].map(i32::try_from);
    let (Ok(m), Ok(n), Ok(k), Ok(batch)) = (m, n, k, batch) else {
        let message = format!("{shape:?}: no size may pass 2³¹ on this device");
        return Err(Error::Value { op: "gemm", message });
    };
    let Epilogue {
        bias,
        pre,
        gate,
        residual,
        ..
    } = &epilogue;
    let outputs: &[Arg] = args![&*c, bias.as_ref(), pre.as_ref(), gate.as_ref(), residual.as_ref()];
    let load_width = load_width(shape, a.dtype(), 4, args![a, b]);
    let store_width = store_width(shape.n, a.dtype(), c.dtype(), outputs);
    let per_thread = if tiles(shape, 128, 128) >= MULTIPROCESSORS {
        8
    } else {
        4
    };
    let module = simt(
        shape.layout,
        a.dtype(),
        c.dtype(),
        epilogue.activation,
        per_thread,
        [load_width, store_width],
    );
    let grid = Grid::new(tiles(shape, 16 * per_thread, 16 * per_thread), SIMT_THREADS);
    let (alpha, accumulate) = (epilogue.alpha.unwrap_or(1.0) as f32, i32::from(epilogue.accumulate));
    let none: Option<&View> = None;
    let args = [args![a, b], outputs, args![none, alpha, accumulate, m, n, k, k, batch]].concat();
    launch(a.device(), &module, "gemm_simt", grid, &args)
}

/// Multiprocessors of a large GPU: fewer blocks leave some of them idle.
const MULTIPROCESSORS: usize = 132;

/// Tiles of all products.
fn tiles(shape: Gemm, tile_m: usize, tile_n: usize) -> usize {
    shape.m.div_ceil(tile_m) * shape.n.div_ceil(tile_n) * shape.batch
}

/// `most` if rows of both operands are whole vectors of so many elements and start at one, else 1.
fn load_width(shape: Gemm, dtype: DType, most: usize, operands: &[Arg]) -> usize {
    let (a_row, b_row) = match shape.layout {
        Layout::Nn => (shape.k, shape.n),
        Layout::Nt => (shape.k, shape.k),
        Layout::Tn => (shape.m, shape.n),
    };
    let bytes = (most * dtype.size()) as u64;
    let aligned = operands.iter().all(|operand| operand.bits.is_multiple_of(bytes));
    let whole = a_row.is_multiple_of(most) && b_row.is_multiple_of(most);
    if aligned && whole { most } else { 1 }
}

/// [`STORE_WIDTH`] if rows of `n` elements are whole vectors of so many and every argument starts at one, else 1. The first
/// argument is `c`.
fn store_width(n: usize, t: DType, c: DType, outputs: &[Arg]) -> usize {
    let sizes = std::iter::once(c.size()).chain(std::iter::repeat(t.size()));
    let mut starts = outputs.iter().zip(sizes);
    let aligned = starts.all(|(arg, size)| arg.bits.is_multiple_of((STORE_WIDTH * size) as u64));
    if aligned && n.is_multiple_of(STORE_WIDTH) {
        STORE_WIDTH
    } else {
        1
    }
}

/// What all files of the family are defined by.
fn module(family: &'static str, t: DType, c: DType, activation: Option<Activation>, store_width: usize) -> Module {
    let activation = match activation {
        None => "NONE",
        Some(Activation::Gelu) => "GELU",
        Some(Activation::GeluTanh) => "GELU_TANH",
        Some(Activation::QuickGelu) => "QUICK_GELU",
        Some(Activation::Silu) => "SILU",
    };
    Module::new(family)
        .stored_as("TYPE_T", t)
        .stored_as("TYPE_C", c)
        .define("ACTIVATION", activation)
        .define("STORE_WIDTH", store_width)
}

fn simt(
    layout: Layout,
    t: DType,
    c: DType,
    activation: Option<Activation>,
    per_thread: usize,
    [load_width, store_width]: [usize; 2],
) -> Module {
    module("gemm_simt", t, c, activation, store_width)
        .define("A_K_MAJOR", u8::from(layout != Layout::Tn))
        .define("B_K_MAJOR", u8::from(layout == Layout::Nt))
        .define("LOAD_WIDTH", load_width)
        .define("PER_THREAD", per_thread)
}
