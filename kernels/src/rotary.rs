//! Rotary position embedding (Su et al. 2021) in the rotate-half convention of Hugging Face checkpoints.

use crate::view::on_device;
use crate::{DType, Error, Result, View, ViewMut, cpu, gpu};

/// Rotates each pair (x\[i\], x\[i + `head_dim`/2\]) of each head by `position · inv_freq[i]`, or back for `inverse`.
///
/// `x` and `y` are `(tokens, heads, head_dim)`, `positions` I32 `(tokens)`, `inv_freq` in `A` `(head_dim/2)`. The derivative
/// is the rotation by the opposite angle: the same call with `inverse` turned.
///
/// # Errors
/// Lengths or types that do not fit; an odd `head_dim`.
pub fn rotary(
    x: View,
    positions: View,
    inv_freq: View,
    y: &mut ViewMut,
    heads: usize,
    head_dim: usize,
    inverse: bool,
) -> Result<()> {
    const OP: &str = "rotary";
    if !head_dim.is_multiple_of(2) {
        let message = format!("head_dim {head_dim} is odd, pairs need an even one");
        return Err(Error::Value { op: OP, message });
    }
    positions.expect_dtype(OP, "positions", DType::I32)?;
    inv_freq.expect_dtype(OP, "inv_freq", x.dtype().accumulator())?;
    inv_freq.expect_len(OP, "inv_freq", head_dim / 2)?;
    x.expect_len(OP, "x", positions.len() * heads * head_dim)?;
    y.expect_dtype(OP, "y", x.dtype())?;
    y.expect_len(OP, "y", x.len())?;
    on_device!("rotary", x, T => {
        cpu::rotary::rotary::<T>(x.slice(), positions.slice(), inv_freq.slice(), y.slice_mut(), heads, inverse)
    }, gpu => gpu::rotary::rotary(x, positions, inv_freq, y, heads, inverse))
}
