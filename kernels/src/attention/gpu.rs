//! Launches of `attention.cu` and `attention_backward.cu`.

use crate::attention::{Attention, Gradients, Mask, Saved};
use crate::gpu::{Arg, Grid, Module, args, launch, refuse_f64};
use crate::{DType, Error, Result, View, ViewMut};

/// Threads of a block, and the rows it owns: `THREADS` and `OWNED` of `attention_tile.cuh`.
const THREADS: usize = 128;
const OWNED: usize = 64;

const WARP: usize = 32;

/// The widest head whose sums the kernels keep in registers.
const WIDEST: usize = 128;

/// Bytes of the widest load; rows of a head that start at multiples of it are copied in the background.
const WIDE: usize = 16;

/// One specialisation of a family of kernels.
#[derive(Debug, Clone, Copy)]
struct Tiles {
    family: &'static str,
    dtype: DType,
    head_dim: usize,
    aligned: bool,
    window: bool,
    segments: bool,
    dropout: bool,
}

impl Tiles {
    /// For the heads at `pointers`.
    fn new(op: &'static str, family: &'static str, p: &Attention, dtype: DType, pointers: &[Arg]) -> Result<Tiles> {
        refuse_f64(op, dtype)?;
        if p.head_dim > WIDEST {
            let message = format!("heads are {} wide, at most {WIDEST} on this device", p.head_dim);
            return Err(Error::Value { op, message });
        }
        let sizes = [p.q_len, p.k_len, p.kv_stride];
        let strides = [p.q_heads, p.kv_heads].map(|heads| heads.saturating_mul(p.head_dim));
        if let Some(size) = sizes.iter().chain(&strides).find(|&&size| size >= i32::MAX as usize) {
            let message = format!("a size of {size} does not fit into 32 bits");
            return Err(Error::Value { op, message });
        }
        let aligned = pointers.iter().all(|pointer| pointer.bits.is_multiple_of(WIDE as u64));
        Ok(Tiles {
            window: matches!(p.mask, Mask::Window(_)),
            segments: p.segments.is_some(),
            dropout: p.dropout > 0.0,
            ..Tiles::plain(family, dtype, p.head_dim, aligned)
        })
    }

    /// Without window, segments and dropout. `aligned`: every tensor starts at a multiple of [`WIDE`] bytes.
    fn plain(family: &'static str, dtype: DType, head_dim: usize, aligned: bool) -> Tiles {
        Tiles {
            family,
            dtype,
            head_dim,
            aligned: aligned && (head_dim * dtype.size()).is_multiple_of(WIDE),
            window: false,
            segments: false,
            dropout: false,
        }
    }

    /// Rows of the tiles that stream past those a block owns: as many as leave the sums of a warp in registers and, but for
    /// wide heads in f32, the tiles of two blocks in the shared memory of a multiprocessor. The backward pass keeps two
    /// tiles of scores, and over keys two sums of heads.
    fn streamed(&self) -> usize {
        match (self.family, self.dtype, self.head_dim) {
            ("attention", DType::F32, 65..) => 32,
            ("attention", ..) => 64,
            (_, DType::F32, 65..) => 16,
            (_, _, 65..) if self.segments => 16,
            (_, DType::F32, _) | (_, _, 65..) => 32,
            _ if self.window && self.segments && self.dropout => 32,
            _ => 64,
        }
    }

    fn module(&self) -> Module {
        Module::new(self.family)
            .stored_as("TYPE_T", self.dtype)
            .define("HEAD_DIM", self.head_dim)
            .define("STREAMED", self.streamed())
            .define("ALIGNED", u8::from(self.aligned))
            .define("WINDOW", u8::from(self.window))
            .define("SEGMENTS", u8::from(self.segments))
            .define("DROPOUT", u8::from(self.dropout))
    }

    /// A grid over blocks of `tokens` with that many tiles of owned and of streamed rows in shared memory.
    fn grid(&self, tokens: usize, heads: usize, batch: usize, owned: usize, streamed: usize) -> Grid {
        let row = self.head_dim.next_multiple_of(16) * self.dtype.size() + WIDE;
        Grid {
            blocks: [tokens.div_ceil(OWNED), heads, batch],
            threads: THREADS,
            shared: (owned * OWNED + streamed * self.streamed()) * row,
        }
    }
}

/// A launch's own arguments, then those that every kernel takes: `ATTENTION_ARGUMENTS`.
fn with_options(own: &[Arg], p: &Attention) -> Vec<Arg> {
    let prefix = match p.mask {
        Mask::Full => i32::MAX,
        Mask::Causal => 0,
        Mask::PrefixCausal(prefix) | Mask::Window(prefix) => i32::try_from(prefix).unwrap_or(i32::MAX),
    };
    let sizes = [p.q_len, p.k_len, p.q_heads, p.kv_heads, p.kv_stride].map(|size| Arg::from(size as i32));
    let options = args![
        prefix,
        p.scale as f32,
        p.q_lens.as_ref(),
        p.k_lens.as_ref(),
        p.segments.as_ref(),
        p.dropout as f32,
        p.seed
    ];
    [own, &sizes, options].concat()
}

pub(crate) fn forward(p: &Attention, q: View, k: View, v: View, out: &mut ViewMut, lse: &mut ViewMut) -> Result<()> {
    let own = args![q, k, v, &*out, &*lse];
    let tiles = Tiles::new("attention", "attention", p, q.dtype(), &own[..4])?;
    let grid = tiles.grid(p.q_len, p.q_heads, p.batch, 1, 2);
    launch(q.device(), &tiles.module(), "attention_forward", grid, &with_options(own, p))
}

pub(crate) fn weights(p: &Attention, q: View, k: View, lse: View, weights: &mut ViewMut) -> Result<()> {
    let own = args![q, k, lse, &*weights];
    let tiles = Tiles::new("attention_weights", "attention", p, q.dtype(), &own[..2])?;
    if weights.is_empty() {
        return Ok(());
    }
    let grid = tiles.grid(p.q_len, p.q_heads, p.batch, 1, 1);
    launch(q.device(), &tiles.module(), "attention_weights", grid, &with_options(own, p))
}

pub(crate) fn backward(p: &Attention, saved: Saved, Gradients { dq, dk, dv }: Gradients) -> Result<()> {
    const OP: &str = "attention_backward";
    let Saved { q, k, v, out, lse, dout } = saved;
    let heads = args![q, k, v, dout, &dq, &dk, &dv];
    let tiles = Tiles::new(OP, OP, p, q.dtype(), heads)?;
    let (device, module) = (q.device(), tiles.module());
    let rows = p.batch * p.q_len * p.q_heads;
    let mut delta = device.allocate(rows * size_of::<f32>())?;
    let delta = ViewMut::new(&mut delta, DType::F32, 0, rows);
    let own = args![out, dout, &delta, rows as i64, p.q_len as i32, p.q_heads as i32];
    launch(device, &module, "attention_delta", Grid::over(rows * WARP, 1), own)?;
    let own = args![q, k, v, dout, lse, &delta, &dk, &dv];
    let grid = tiles.grid(p.k_len, p.kv_heads, p.batch, 2, 2);
    launch(device, &module, "attention_backward_keys", grid, &with_options(own, p))?;
    let own = args![q, k, v, dout, lse, &delta, &dq];
    let grid = tiles.grid(p.q_len, p.q_heads, p.batch, 2, 2);
    launch(device, &module, "attention_backward_queries", grid, &with_options(own, p))
}

/// Specialisations that launches may choose, each with the threads of a block: the widths of common models and those that
/// are hardest on the kernels.
pub(crate) fn modules() -> Vec<(Module, usize)> {
    const DIMS: [usize; 9] = [32, 40, 59, 64, 72, 80, 96, 111, 128];
    let mut all = Vec::new();
    for family in ["attention", "attention_backward"] {
        for dtype in [DType::BF16, DType::F32] {
            for head_dim in DIMS {
                all.push(Tiles::plain(family, dtype, head_dim, true));
            }
            for head_dim in [64, WIDEST] {
                let plain = Tiles::plain(family, dtype, head_dim, true);
                all.extend([
                    Tiles { aligned: false, ..plain },
                    Tiles { segments: true, ..plain },
                    Tiles { dropout: true, ..plain },
                    Tiles { window: true, ..plain },
                    Tiles { aligned: false, window: true, segments: true, dropout: true, ..plain },
                ]);
            }
        }
    }
    all.iter().map(|tiles| (tiles.module(), THREADS)).collect()
}
