//! Rows of a table by number, and the derivative to the table.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::Kind;
use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Result, View, ViewMut};

/// `out[i] = table[ids[i]]`: `table` is `(vocab, dim)` and `out` `(n, dim)`, both `T` or both I32; `ids` is I32 `(n)`.
///
/// # Errors
/// Lengths, types or devices that do not fit; an id outside `0..vocab`, which the error names with its place.
pub fn embedding(table: View, ids: View, out: &mut ViewMut, vocab: usize, dim: usize) -> Result<()> {
    let call = match table.dtype() {
        DType::I32 => Call::of_any("embedding", &table),
        _ => Call::new("embedding", "table", &table)?,
    };
    call.same("table", &table, call.elements(&[vocab, dim])?)?;
    call.typed("ids", &ids, DType::I32, ids.len())?;
    call.same("out", out, call.elements(&[ids.len(), dim])?)?;
    check_ids(&call, &ids, vocab)?;
    if (table.kind(), table.dtype()) == (Kind::Cpu, DType::I32) {
        cpu::embedding::<i32>(table.slice(), ids.slice(), out.slice_mut(), dim);
        return Ok(());
    }
    on_device!("embedding", table, T => cpu::embedding::<T>(table.slice(), ids.slice(), out.slice_mut(), dim),
        gpu => gpu::embedding(table, ids, out, vocab, dim))
}

/// Derivative of [`embedding`]: `dtable[t] = [dtable[t] +] Σ dout[i]` over the places `i` with `ids[i] = t`, added in order. `dout`
/// is `(n, dim)` of type `T`, `dtable` is `(vocab, dim)` in `A`; unless `accumulate`, it is zero where no id points.
///
/// # Errors
/// Lengths, types or devices that do not fit; an id outside `0..vocab`, which the error names with its place.
pub fn embedding_backward(
    ids: View,
    dout: View,
    dtable: &mut ViewMut,
    vocab: usize,
    dim: usize,
    accumulate: bool,
) -> Result<()> {
    let call = Call::new("embedding_backward", "dout", &dout)?;
    call.typed("ids", &ids, DType::I32, ids.len())?;
    call.same("dout", &dout, call.elements(&[ids.len(), dim])?)?;
    call.accumulator("dtable", dtable, call.elements(&[vocab, dim])?)?;
    check_ids(&call, &ids, vocab)?;
    on_device!("embedding_backward", dout, T => {
        cpu::embedding_backward::<T>(ids.slice(), dout.slice(), dtable.slice_mut(), dim, accumulate)
    }, gpu => gpu::embedding_backward(ids, dout, dtable, vocab, dim, accumulate))
}

fn check_ids(call: &Call, ids: &View, vocab: usize) -> Result<()> {
    if ids.kind() != Kind::Cpu {
        return Ok(());
    }
    let ids = ids.slice::<i32>();
    match ids.iter().position(|&id| usize::try_from(id).map_or(true, |id| id >= vocab)) {
        Some(place) => Err(call.refuse(format!("id {} at place {place} is outside 0..{vocab}", ids[place]))),
        None => Ok(()),
    }
}
