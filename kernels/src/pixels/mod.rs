//! Images from bytes to the numbers an encoder reads.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::dispatch::Call;
use crate::view::on_device;
use crate::{DType, Error, Result, View, ViewMut};

/// How the bytes of images become numbers: `(byte/255 − mean) / deviation`, colour by colour.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Normalise {
    /// Pixels of an image.
    pub area: usize,
    /// Mean of each colour, of values in 0..1.
    pub mean: [f64; 3],
    /// Standard deviation of each colour.
    pub deviation: [f64; 3],
}

impl Normalise {
    /// What `byte` of a colour becomes.
    pub(crate) fn value(&self, colour: usize, byte: u8) -> f64 {
        (f64::from(byte) / 255.0 - self.mean[colour]) / self.deviation[colour]
    }
}

/// `out` `(images, 3, area)` from `bytes` `(images, area, 3)`, computed in f64 and rounded to A, then to T, the type of
/// `out`; `bytes` are U8.
pub fn normalise(p: &Normalise, bytes: View, out: &mut ViewMut) -> Result<()> {
    const OP: &str = "normalise";
    let call = Call::new(OP, "out", out)?;
    call.typed("bytes", &bytes, DType::U8, out.len())?;
    if !out.len().is_multiple_of(3 * p.area) {
        let message = format!("{} bytes are not whole images of {} pixels", out.len(), p.area);
        return Err(Error::Value { op: OP, message });
    }
    on_device!("normalise", out, T => cpu::normalise::<T>(p, bytes.slice(), out.slice_mut()),
        gpu => gpu::normalise(p, bytes, out))
}
