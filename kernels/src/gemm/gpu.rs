//! Launches of `gemm.cu` (tensor cores: bf16, tf32), `gemm_simt.cu` (exact f32) and `gemm_partials.cu` (their second half
//! where `k` is split).

use crate::activation::Activation;
use crate::gemm::{Epilogue, Gemm, Layout};
use crate::gpu::{Arg, Gpu, Grid, Module, args, launch};
use crate::{DType, Error, Result, View, ViewMut};

/// Elements the epilogue takes at a time where rows allow it.
const STORE_WIDTH: usize = 4;
/// The shortest sums that are worth a block of their own.
const SHORTEST_SPLIT: usize = 512;
/// What `k` is split into multiples of: TILE_K of every kernel divides it.
const SPLIT_GRAIN: usize = 32;

/// The part of `c` that a block computes, and how.
#[derive(Debug, Clone, Copy)]
struct Tile {
    m: usize,
    n: usize,
    threads: usize,
    /// `None`: `gemm_simt`.
    tensor_cores: Option<Pipeline>,
}

/// How `gemm` computes a tile: its warps along m and n, and its stages.
#[derive(Debug, Clone, Copy)]
struct Pipeline {
    warps: [usize; 2],
    stages: usize,
}

impl Tile {
    const fn tensor_cores(m: usize, n: usize, warps: [usize; 2], stages: usize) -> Tile {
        Tile { m, n, threads: 32 * warps[0] * warps[1], tensor_cores: Some(Pipeline { warps, stages }) }
    }

    const fn simt(side: usize) -> Tile {
        Tile { m: side, n: side, threads: 256, tensor_cores: None }
    }

    /// Tiles of all products.
    fn count(&self, shape: Gemm) -> usize {
        shape.m.div_ceil(self.m) * shape.n.div_ceil(self.n) * shape.batch
    }

    /// Dynamic shared memory: the stages, or the rows that take their place in the end, see `Stage` and `Rows` in gemm.cu.
    fn shared(&self) -> usize {
        const BYTES_ALONG_K: usize = 64;
        let Some(Pipeline { warps, stages }) = self.tensor_cores else {
            return 0;
        };
        let stage = (self.m + self.n) * BYTES_ALONG_K;
        let rows = 16 * (self.n / warps[1] + 8) * DType::F32.size();
        (stages * stage).max(warps[0] * warps[1] * rows)
    }
}

/// The tiles of a kernel, for much work, little work and few rows.
const TENSOR_CORE_TILES: [Tile; 3] = [
    Tile::tensor_cores(128, 128, [2, 2], 4),
    Tile::tensor_cores(64, 64, [2, 2], 4),
    Tile::tensor_cores(32, 64, [2, 2], 4),
];
const SIMT_TILES: [Tile; 3] = [Tile::simt(128), Tile::simt(64), Tile::simt(64)];

/// How a product is shared out among blocks.
#[derive(Debug, Clone, Copy)]
struct Plan {
    tile: Tile,
    k_per_split: usize,
    splits: usize,
}

impl Plan {
    /// Large tiles read the least; smaller ones, and splits of long sums, make up for a lack of blocks: fewer than there are
    /// multiprocessors leave some of them idle.
    fn new(shape: Gemm, exact: bool, multiprocessors: usize) -> Plan {
        let [large, small, flat] = if exact { SIMT_TILES } else { TENSOR_CORE_TILES };
        let most_splits = (shape.k / SHORTEST_SPLIT).max(1);
        let tile = if shape.m <= flat.m {
            flat
        } else if large.count(shape) * most_splits >= multiprocessors {
            large
        } else {
            small
        };
        let splits = (multiprocessors / tile.count(shape).max(1)).clamp(1, most_splits);
        let k_per_split = shape.k.div_ceil(splits).max(1).next_multiple_of(SPLIT_GRAIN);
        Plan { tile, k_per_split, splits: shape.k.div_ceil(k_per_split).max(1) }
    }
}

pub(crate) fn gemm(shape: Gemm, a: View, b: View, c: &mut ViewMut, epilogue: Epilogue) -> Result<()> {
    crate::gpu::refuse_f64("gemm", a.dtype())?;
    let Gemm { layout, m, n, k, batch } = shape;
    let [Ok(m32), Ok(n32), Ok(k32), Ok(batch32)] = [m, n, k, batch].map(i32::try_from) else {
        let message = format!("{shape:?}: no size may pass 2³¹ on this device");
        return Err(Error::Value { op: "gemm", message });
    };
    let gpu = a.device().gpu();
    let exact = a.dtype() == DType::F32 && !gpu.is_some_and(Gpu::allows_tf32);
    let plan = Plan::new(shape, exact, gpu.map_or(1, Gpu::multiprocessors));
    let Epilogue { bias, pre, residual, activation, .. } = &epilogue;
    let outputs: &[Arg] = args![&*c, bias.as_ref(), pre.as_ref(), residual.as_ref()];
    let types = Types {
        t: a.dtype(),
        c: c.dtype(),
        activation: *activation,
        store_width: store_width(n, a.dtype(), c.dtype(), outputs),
    };
    let load_width = load_width(shape, a.dtype(), args![a, b]);
    let finish: &[Arg] = args![epilogue.alpha.unwrap_or(1.0) as f32, i32::from(epilogue.accumulate)];

    let size = batch * m * n;
    let mut workspace = match plan.splits {
        1 => None,
        splits => Some(a.device().allocate(splits * size * DType::F32.size())?),
    };
    let partials = workspace.as_mut().map(|buffer| ViewMut::new(buffer, DType::F32, 0, plan.splits * size));
    let (family, module) = product_module(plan.tile, layout, load_width, types);
    let grid =
        Grid { shared: plan.tile.shared(), ..Grid::new(plan.tile.count(shape) * plan.splits, plan.tile.threads) };
    let sizes: &[Arg] = args![m32, n32, k32, plan.k_per_split.min(i32::MAX as usize) as i32, batch32];
    let arguments = [args![a, b], outputs, args![partials.as_ref()], finish, sizes].concat();
    launch(a.device(), &module, family, grid, &arguments)?;

    let Some(partials) = partials else {
        return Ok(());
    };
    let module = types.module("gemm_partials");
    let sizes: &[Arg] = args![n32, size as i64, plan.splits as i32];
    let arguments = [args![&partials], outputs, finish, sizes].concat();
    let grid = Grid::over(size, types.store_width);
    launch(a.device(), &module, "gemm_partials", grid, &arguments)
}

/// The most elements that are loaded together (16 bytes) if rows of both operands are whole vectors of so many and start at
/// one, else 1.
fn load_width(shape: Gemm, t: DType, operands: &[Arg]) -> usize {
    let (a_row, b_row) = match shape.layout {
        Layout::Nn => (shape.k, shape.n),
        Layout::Nt => (shape.k, shape.k),
        Layout::Tn => (shape.m, shape.n),
    };
    let most = 16 / t.size();
    let aligned = operands.iter().all(|operand| operand.bits.is_multiple_of(16));
    let whole = a_row.is_multiple_of(most) && b_row.is_multiple_of(most);
    if aligned && whole { most } else { 1 }
}

/// [`STORE_WIDTH`] if rows of `n` elements are whole vectors of so many and every argument starts at one, else 1. The first
/// argument is `c`.
fn store_width(n: usize, t: DType, c: DType, outputs: &[Arg]) -> usize {
    let sizes = std::iter::once(c.size()).chain(std::iter::repeat(t.size()));
    let mut starts = outputs.iter().zip(sizes);
    let aligned = starts.all(|(arg, size)| arg.bits.is_multiple_of((STORE_WIDTH * size) as u64));
    if aligned && n.is_multiple_of(STORE_WIDTH) { STORE_WIDTH } else { 1 }
}

/// What all files of the family are specialised by.
#[derive(Debug, Clone, Copy)]
struct Types {
    t: DType,
    c: DType,
    activation: Option<Activation>,
    store_width: usize,
}

impl Types {
    fn module(self, family: &'static str) -> Module {
        let activation = self.activation.map_or("NONE", crate::activation::gpu::name);
        Module::new(family)
            .stored_as("TYPE_T", self.t)
            .stored_as("TYPE_C", self.c)
            .define("ACTIVATION", activation)
            .define("STORE_WIDTH", self.store_width)
    }
}

/// The kernel that computes a tile, which bears its family's name, and its module.
fn product_module(tile: Tile, layout: Layout, load_width: usize, types: Types) -> (&'static str, Module) {
    let family = if tile.tensor_cores.is_some() { "gemm" } else { "gemm_simt" };
    let module = types
        .module(family)
        .define("A_K_MAJOR", u8::from(layout != Layout::Tn))
        .define("B_K_MAJOR", u8::from(layout == Layout::Nt))
        .define("LOAD_WIDTH", load_width);
    let module = match tile.tensor_cores {
        None => module.define("PER_THREAD", tile.m / 16),
        Some(Pipeline { warps, stages }) => module
            .define("TILE_M", tile.m)
            .define("TILE_N", tile.n)
            .define("WARPS_M", warps[0])
            .define("WARPS_N", warps[1])
            .define("STAGES", stages),
    };
    (family, module)
}

/// Every kernel that [`Plan`] may choose, for types and activations as models have them, and the threads of its blocks.
pub(crate) fn modules() -> Vec<(Module, usize)> {
    let mut found = Vec::new();
    for store_width in [STORE_WIDTH, 1] {
        for (layout, activation) in [(Layout::Nn, None), (Layout::Nt, Some(Activation::Gelu)), (Layout::Tn, None)] {
            // Weight gradients are f32.
            let c_of = |t| if layout == Layout::Tn { DType::F32 } else { t };
            let tensor_cores = TENSOR_CORE_TILES.iter().map(|tile| (tile, DType::BF16));
            let f32 = TENSOR_CORE_TILES.iter().chain(&SIMT_TILES[..2]);
            let f32 = f32.map(|tile| (tile, DType::F32));
            for (tile, t) in tensor_cores.chain(f32) {
                let types = Types { t, c: c_of(t), activation, store_width };
                let load_width = if store_width == 1 { 1 } else { 16 / t.size() };
                found.push((product_module(*tile, layout, load_width, types).1, tile.threads));
            }
        }
        for t in [DType::BF16, DType::F32] {
            let types = Types { t, c: DType::F32, activation: None, store_width };
            found.push((types.module("gemm_partials"), Grid::over(1, 1).threads));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_cover_k_and_stages_fit() {
        for tile in TENSOR_CORE_TILES {
            assert!(tile.shared() <= 99 << 10, "more than sm_86 has: {tile:?}");
        }
        for exact in [true, false] {
            for side in [0, 1, 32, 33, 128, 1000, 4096] {
                for k in [0, 1, 511, 1023, 1024, 1025, 4097, 70000] {
                    let shape = Gemm::new(Layout::Tn, side, side, k);
                    for multiprocessors in [1, 46, 132] {
                        let plan = Plan::new(shape, exact, multiprocessors);
                        assert!(plan.splits * plan.k_per_split >= k, "{shape:?} {plan:?}");
                        assert!(plan.splits == 1 || (plan.splits - 1) * plan.k_per_split < k, "{shape:?} {plan:?}");
                        assert!(plan.tile.count(shape) * plan.splits <= multiprocessors || plan.splits == 1);
                    }
                }
            }
        }
    }
}
