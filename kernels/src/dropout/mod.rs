//! Dropout.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{Result, View, ViewMut};

/// Dropout (Srivastava et al. 2014): `y[i] = x[i]/(1 − p)` with probability `1 − p`, else 0; `x` and `y` are `T`, of equal
/// length. Whether element `i` is kept depends on `(seed, i)` only, so the derivative is the same call on `dy`.
///
/// # Errors
/// Lengths, types or devices that do not fit; a `p` outside `0 ≤ p < 1`.
pub fn dropout(x: View, y: &mut ViewMut, p: f64, seed: u64) -> Result<()> {
    let call = Call::new("dropout", "x", &x)?;
    call.same("y", y, x.len())?;
    if !(0.0..1.0).contains(&p) {
        return Err(call.refuse(format!("p is {p}, expected 0 ≤ p < 1")));
    }
    on_device!("dropout", x, T => cpu::dropout::<T>(x.slice(), y.slice_mut(), p, seed),
        gpu => gpu::dropout(x, y, p, seed))
}
