//! Rotary position embedding (Su et al. 2021) in the rotate-half convention of Hugging Face checkpoints.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Result, View, ViewMut};

/// Rotates each pair (x\[i\], x\[i + `head_dim`/2\]) of each head by `position · inv_freq[i]`, or back for `inverse`.
///
/// `x` and `y` are `(tokens, heads, head_dim)`, `positions` I32 `(tokens)`, `inv_freq` in `A` `(head_dim/2)`. The derivative
/// is the rotation by the opposite angle: the same call with `inverse` turned.
pub fn rotary(x: View, positions: View, inv_freq: View, y: &mut ViewMut, heads: usize, inverse: bool) -> Result<()> {
    let call = Call::new("rotary", "x", &x)?;
    call.typed("positions", &positions, DType::I32, positions.len())?;
    call.accumulator("inv_freq", &inv_freq, inv_freq.len())?;
    call.same("x", &x, positions.len() * heads * 2 * inv_freq.len())?;
    call.same("y", y, x.len())?;
    on_device!("rotary", x, T => {
        cpu::rotary::<T>(x.slice(), positions.slice(), inv_freq.slice(), y.slice_mut(), heads, inverse)
    }, gpu => gpu::rotary(x, positions, inv_freq, y, heads, inverse))
}
