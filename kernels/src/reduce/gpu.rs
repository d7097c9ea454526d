//! Launches of `reduce.cu`.

use crate::gpu::{Arg, Grid, Module, Workspace, args, launch, width};
use crate::{DType, Result, View, ViewMut};

/// Threads of a block.
const THREADS: usize = 256;
/// Blocks that keep a large GPU busy: a long axis is cut until there are about as many.
const BLOCKS: usize = 1024;
/// Fewest rows of a part for each thread of a team: what a part leaves to the second sum is small against what it reads.
const ROWS: usize = 16;
/// Neighbouring threads that read neighbouring vectors, where there are as many: whole sectors of memory.
const NEIGHBOURS: usize = 32;

fn specialise(t: DType, u: DType, w: usize) -> Module {
    Module::new("reduce").stored_as("TYPE_T", t).stored_as("TYPE_U", u).define("WIDTH", w)
}

pub(crate) fn modules() -> Vec<(Module, usize)> {
    use DType::{BF16, F32};
    let chosen = [
        (F32, F32, 4),
        (F32, F32, 1),
        (F32, BF16, 4),
        (BF16, BF16, 8),
        (BF16, BF16, 1),
        (BF16, F32, 8),
        (BF16, F32, 4),
    ];
    chosen.map(|(t, u, w)| (specialise(t, u, w), THREADS)).to_vec()
}

/// How the sums are shared out.
#[derive(Debug, Clone, Copy)]
struct Plan {
    w: usize,
    /// Whether vectors lie along the axis.
    flat: bool,
    /// Rows of the axis, and elements of a row, as the kernel counts them.
    axis: usize,
    inner: usize,
    /// Threads that share an output.
    team: usize,
    parts: usize,
    part_rows: usize,
}

impl Plan {
    /// For sums that are written to `out` in type `u`.
    fn new(x: View, u: DType, out: Arg, [outer, axis, inner]: [usize; 3]) -> Plan {
        let (t, flat) = (x.dtype(), inner == 1);
        // Where vectors lie along the axis, one number is written for each.
        let w = match flat {
            true => width(t.size(), &[axis], &[x.into()]),
            false => width(t.size().max(u.size()), &[inner], &[x.into(), out]),
        };
        let (axis, inner) = if flat { (axis / w, w) } else { (axis, inner) };
        let vectors = inner / w;
        let neighbours = vectors.next_power_of_two().min(NEIGHBOURS);
        let team = (THREADS / neighbours).min(axis.next_power_of_two());
        let blocks = (outer * vectors).div_ceil(THREADS / team).max(1);
        let parts = (BLOCKS / blocks).min(axis / (team * ROWS)).max(1);
        let part_rows = axis.div_ceil(parts);
        Plan { w, flat, axis, inner, team, parts: axis.div_ceil(part_rows.max(1)).max(1), part_rows }
    }

    fn launch(&self, x: View, out: &ViewMut, outer: usize, factor: f32) -> Result<()> {
        let Plan { w, axis, inner, .. } = *self;
        let outputs = outer * self.parts * (inner / w);
        let args = args![
            x,
            out,
            outer as i64,
            axis as i64,
            inner as i64,
            self.part_rows as i64,
            self.parts as i64,
            self.team as i32,
            i32::from(self.flat),
            factor
        ];
        let grid = Grid::new(outputs.div_ceil(THREADS / self.team), THREADS);
        launch(x.device(), &specialise(x.dtype(), out.dtype(), w), "sum_axis", grid, args)
    }
}

/// `out[o, i] = factor · Σ_a x[o, a, i]`.
pub(crate) fn sum_axis(x: View, out: &mut ViewMut, [outer, axis, inner]: [usize; 3], factor: f64) -> Result<()> {
    crate::gpu::refuse_f64("sum_axis", x.dtype())?;
    if outer * inner == 0 {
        return Ok(());
    }
    let whole = Plan::new(x, out.dtype(), Arg::from(&*out), [outer, axis, inner]);
    if whole.parts == 1 {
        return whole.launch(x, out, outer, factor as f32);
    }
    // New memory starts at a whole vector, as x does for all that the plan cares.
    let first = Plan::new(x, DType::F32, x.into(), [outer, axis, inner]);
    let mut sums = Workspace::new(x.device(), DType::F32, outer * first.parts * inner)?;
    first.launch(x, &sums.view_mut(), outer, 1.0)?;
    sum_axis(sums.view(), out, [outer, first.parts, inner], factor)
}

/// `out[o, a, i] = factor · x[o, i]`.
pub(crate) fn broadcast_axis(x: View, out: &mut ViewMut, [_, axis, inner]: [usize; 3], factor: f64) -> Result<()> {
    crate::gpu::refuse_f64("broadcast_axis", x.dtype())?;
    let (t, u) = (x.dtype(), out.dtype());
    let size = t.size().max(u.size());
    let w = match inner {
        1 => width(size, &[axis], args![&*out]),
        _ => width(size, &[inner], args![x, &*out]),
    };
    let len = out.len();
    let args = args![x, &*out, len as i64, axis as i64, inner as i64, factor as f32];
    launch(x.device(), &specialise(t, u, w), "broadcast_axis", Grid::over(len, w), args)
}
