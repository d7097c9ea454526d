//! Element by element: sums, products, scaling, casts.
//!
//! Every kernel takes arguments of any shape as long as the numbers of elements agree, computes in `A` and rounds once.

pub(crate) mod cpu;
pub(crate) mod gpu;

use crate::device::Kind;
use crate::dispatch::{Call, on_pair};
use crate::view::on_device;
use crate::{DType, Error, Result, View, ViewMut, profile};

/// `out = x + y`; all `T`, of equal length.
pub fn add(x: View, y: View, out: &mut ViewMut) -> Result<()> {
    let call = Call::new("add", "x", &x)?;
    call.same("y", &y, x.len())?;
    call.same("out", out, x.len())?;
    on_device!("add", x, T => cpu::add::<T>(x.slice(), y.slice(), out.slice_mut()),
        gpu => gpu::pointwise("add", x, y, out))
}

/// `out = x ⊙ y`; all `T`, of equal length.
pub fn mul(x: View, y: View, out: &mut ViewMut) -> Result<()> {
    let call = Call::new("mul", "x", &x)?;
    call.same("y", &y, x.len())?;
    call.same("out", out, x.len())?;
    on_device!("mul", x, T => cpu::mul::<T>(x.slice(), y.slice(), out.slice_mut()),
        gpu => gpu::pointwise("mul", x, y, out))
}

/// `out = factor · x`; both `T`, of equal length.
pub fn scale(x: View, out: &mut ViewMut, factor: f64) -> Result<()> {
    let call = Call::new("scale", "x", &x)?;
    call.same("out", out, x.len())?;
    on_device!("scale", x, T => cpu::scale::<T, T>(x.slice(), out.slice_mut(), factor),
        gpu => gpu::scale("scale", x, out, factor, None))
}

/// `out = factor · scalar · x`, with `scalar` one element of type `A` on the device: scaling by a number the host has not
/// seen. `x` and `out` are each `T` or `A`, of equal length.
pub fn scale_by(x: View, scalar: View, out: &mut ViewMut, factor: f64) -> Result<()> {
    let call = Call::new("scale_by", "x", &x)?;
    call.accumulator("scalar", &scalar, 1)?;
    let out_call = Call::new("scale_by", "out", out)?;
    out_call.accumulator("scalar", &scalar, 1)?;
    call.sized("out", out.len(), x.len())?;
    on_pair!("scale_by", x, out, (T, U) => {
        cpu::scale::<T, U>(x.slice(), out.slice_mut(), number(scalar) * factor)
    }, gpu => gpu::scale("scale_by", x, out, factor, Some(scalar)))
}

/// `y = y + factor · x`; `x` is `T`, `y` is `T` or `A`, of equal length.
pub fn axpy(x: View, y: &mut ViewMut, factor: f64) -> Result<()> {
    let call = Call::new("axpy", "x", &x)?;
    call.same_or_accumulator("y", y, x.len())?;
    on_pair!("axpy", x, y, (T, U) => cpu::axpy::<T, U>(x.slice(), y.slice_mut(), factor),
        gpu => gpu::axpy("axpy", x, y, factor, None))
}

/// `y = y + factor · scalar · x`, with `scalar` one `A` on the device; `x` is `T`, `y` is `T` or `A`, of equal length.
pub fn axpy_by(x: View, scalar: View, y: &mut ViewMut, factor: f64) -> Result<()> {
    let call = Call::new("axpy_by", "x", &x)?;
    call.accumulator("scalar", &scalar, 1)?;
    call.same_or_accumulator("y", y, x.len())?;
    on_pair!("axpy_by", x, y, (T, U) => {
        cpu::axpy::<T, U>(x.slice(), y.slice_mut(), number(scalar) * factor)
    }, gpu => gpu::axpy("axpy_by", x, y, factor, Some(scalar)))
}

/// `out = x` in another type, unless `scalar` is NaN: then `out` stays as it is. For results that a number the host has not
/// seen makes void. `x` and `out` are each `T` or `A`, of equal length, `scalar` is one `A`.
pub fn cast_unless_nan(x: View, scalar: View, out: &mut ViewMut) -> Result<()> {
    let call = Call::new("cast_unless_nan", "x", &x)?;
    call.accumulator("scalar", &scalar, 1)?;
    let out_call = Call::new("cast_unless_nan", "out", out)?;
    out_call.accumulator("scalar", &scalar, 1)?;
    call.sized("out", out.len(), x.len())?;
    match x.kind() {
        Kind::Cpu if number(scalar).is_nan() => {}
        Kind::Cpu => cpu::cast(x, out),
        Kind::Cuda(_) | Kind::Emulated => gpu::cast_unless_nan(x, scalar, out)?,
        Kind::Trace => {}
    }
    Ok(())
}

/// One number of an accumulator's type, on the CPU.
fn number(scalar: View) -> f64 {
    match scalar.dtype() {
        DType::F64 => scalar.slice::<f64>()[0],
        _ => scalar.slice::<f32>()[0] as f64,
    }
}

/// `out[o, i] = x[o, i] + b[i]`: `x` and `out` are `(outer, inner)`, `b` is `(inner)`, all `T`. `inner` is `b`'s length.
///
/// # Errors
/// An `x` that is not a number of whole rows; lengths, types or devices that differ.
pub fn add_broadcast(x: View, b: View, out: &mut ViewMut) -> Result<()> {
    let call = Call::new("add_broadcast", "x", &x)?;
    call.same("b", &b, b.len())?;
    call.sized("x", x.len(), x.len() / b.len().max(1) * b.len())?;
    call.same("out", out, x.len())?;
    on_device!("add_broadcast", x, T => cpu::add_broadcast::<T>(x.slice(), b.slice(), out.slice_mut()),
        gpu => gpu::add_broadcast(x, b, out))
}

/// `out = x` in another type: any of F64, F32, BF16 and F16 to any, rounded to nearest, ties to even. Between different
/// types the value passes through F32, so F64 to a half type rounds twice.
pub fn cast(x: View, out: &mut ViewMut) -> Result<()> {
    float("cast", "x", x.dtype())?;
    float("cast", "out", out.dtype())?;
    Call::of_any("cast", &x).typed("out", out, out.dtype(), x.len())?;
    match x.kind() {
        Kind::Cpu => {
            let _span = profile::span("cast");
            cpu::cast(x, out);
        }
        Kind::Cuda(_) | Kind::Emulated => gpu::cast(x, out)?,
        Kind::Trace => {}
    }
    Ok(())
}

/// `out = ` the numbers of type `from` that lie one after another in `bytes`, little-endian and aligned or not, as [`cast`]
/// converts them: how weights come from a mapped file, each byte of which is touched once.
///
/// # Errors
/// Integers; bytes that are not as many numbers as `out` has elements.
pub fn load(bytes: &[u8], from: DType, out: &mut ViewMut) -> Result<()> {
    float("load", "bytes", from)?;
    float("load", "out", out.dtype())?;
    if bytes.len() != out.len() * from.size() {
        let message = format!("{} bytes are not {} numbers of {from}", bytes.len(), out.len());
        return Err(Error::Value { op: "load", message });
    }
    match out.kind() {
        Kind::Cpu => cpu::load(bytes, from, out),
        Kind::Cuda(_) | Kind::Emulated if from == out.dtype() => out.upload_bytes(bytes)?,
        Kind::Cuda(_) | Kind::Emulated => {
            let mut buffer = out.device().allocate(bytes.len())?;
            ViewMut::new(&mut buffer, from, 0, out.len()).upload_bytes(bytes)?;
            gpu::cast(View::new(&buffer, from, 0, out.len()), out)?;
        }
        Kind::Trace => {}
    }
    Ok(())
}

/// Brings each number of `x` into `least..=most`; NaN stays. Of any floating-point type.
pub fn clamp(x: &mut ViewMut, least: f64, most: f64) -> Result<()> {
    float("clamp", "x", x.dtype())?;
    match x.kind() {
        Kind::Cpu => cpu::clamp(x, least, most),
        Kind::Cuda(_) | Kind::Emulated => gpu::clamp(x, least, most)?,
        Kind::Trace => {}
    }
    Ok(())
}

/// `out = value` everywhere, in any floating-point type.
pub fn fill(out: &mut ViewMut, value: f64) -> Result<()> {
    float("fill", "out", out.dtype())?;
    match out.kind() {
        Kind::Cpu => cpu::fill(out, value),
        Kind::Cuda(_) | Kind::Emulated => gpu::fill(out, value)?,
        Kind::Trace => {}
    }
    Ok(())
}

fn float(op: &'static str, what: &'static str, found: DType) -> Result<()> {
    match found {
        DType::I32 | DType::U8 => Err(Error::Type { op, what, found, expected: "f64, f32, bf16 or f16" }),
        _ => Ok(()),
    }
}
