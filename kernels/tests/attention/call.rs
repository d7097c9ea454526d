//! The kernels called with plain numbers.

use crate::reference::Case;
use kernels::attention::{Attention, Gradients, Saved, attention, attention_backward, attention_weights};
use kernels::cpu::simd::Real;
use kernels::{Buffer, DType, Device, Element, View, ViewMut};

/// Sums of four uniform numbers, of variance 1: close enough to normal.
pub(crate) fn random(len: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64 - 0.5
    };
    (0..len).map(|_| (0..4).map(|_| uniform()).sum::<f64>() * 3f64.sqrt()).collect()
}

/// Rounds through `T` and back.
pub(crate) fn round<T: Element>(x: &[f64]) -> Vec<f64>
where
    f64: From<T>,
{
    x.iter().map(|&x| narrow::<T>(x).into()).collect()
}

pub(crate) fn narrow<T: Element>(x: f64) -> T {
    T::narrow(T::Acc::of(x))
}

pub(crate) fn buffer<T: bytemuck::Pod>(x: &[T]) -> Buffer {
    let mut buffer = Device::cpu().allocate(size_of_val(x)).unwrap();
    buffer.bytes_mut()[..size_of_val(x)].copy_from_slice(bytemuck::cast_slice(x));
    buffer
}

/// A buffer of values in type `T`.
pub(crate) fn values<T: Element>(x: &[f64]) -> Buffer {
    buffer(&x.iter().map(|&x| narrow::<T>(x)).collect::<Vec<T>>())
}

/// A buffer full of NaN: outputs have to be overwritten.
pub(crate) fn poison<T: Element>(len: usize) -> Buffer {
    values::<T>(&vec![f64::NAN; len])
}

pub(crate) fn view<T: Element>(buffer: &Buffer, len: usize) -> View<'_> {
    View::new(buffer, T::DTYPE, 0, len)
}

pub(crate) fn view_mut<T: Element>(buffer: &mut Buffer, len: usize) -> ViewMut<'_> {
    ViewMut::new(buffer, T::DTYPE, 0, len)
}

pub(crate) fn read<T: Element>(buffer: &Buffer, len: usize) -> Vec<f64>
where
    f64: From<T>,
{
    view::<T>(buffer, len).slice::<T>().iter().map(|&x| x.into()).collect()
}

/// Everything the kernels compute for a case: out, lse, weights, dq, dk, dv.
pub(crate) struct Results {
    pub(crate) out: Vec<f64>,
    pub(crate) lse: Vec<f64>,
    pub(crate) weights: Vec<f64>,
    pub(crate) gradients: [Vec<f64>; 3],
}

pub(crate) const SEED: u64 = 11;

pub(crate) fn run<T: Element>(c: &Case, q: &[f64], k: &[f64], v: &[f64], dout: &[f64]) -> Results
where
    f64: From<T> + From<T::Acc>,
{
    let (rows, q_size, kv_size) = (c.rows(), c.q_size(), c.kv_size());
    let ints = |x: &Option<Vec<i32>>| x.as_ref().map(|x| (buffer(x), x.len()));
    let [q_lens, k_lens, segments] = [&c.q_lens, &c.k_lens, &c.segments].map(ints);
    fn int_view(x: &Option<(Buffer, usize)>) -> Option<View<'_>> {
        x.as_ref().map(|(buffer, len)| View::new(buffer, DType::I32, 0, *len))
    }
    let p = Attention {
        batch: c.batch,
        q_len: c.q_len,
        k_len: c.k_len,
        q_heads: c.q_heads,
        kv_heads: c.kv_heads,
        head_dim: c.dim,
        scale: c.scale(),
        mask: c.mask,
        kv_stride: c.kv_stride,
        q_lens: int_view(&q_lens),
        k_lens: int_view(&k_lens),
        segments: int_view(&segments),
        dropout: c.dropout,
        seed: SEED,
    };
    let [qb, kb, vb, db] = [q, k, v, dout].map(values::<T>);
    let (qv, kv, vv, dv) =
        (view::<T>(&qb, q_size), view::<T>(&kb, kv_size), view::<T>(&vb, kv_size), view::<T>(&db, q_size));
    let (mut out, mut lse) = (poison::<T>(q_size), poison::<T::Acc>(rows));
    attention(&p, qv, kv, vv, &mut view_mut::<T>(&mut out, q_size), &mut view_mut::<T::Acc>(&mut lse, rows)).unwrap();
    let mut weights = poison::<T::Acc>(rows * c.k_len);
    let (out_view, lse_view) = (view::<T>(&out, q_size), view::<T::Acc>(&lse, rows));
    attention_weights(&p, qv, kv, lse_view, &mut view_mut::<T::Acc>(&mut weights, rows * c.k_len)).unwrap();
    let mut gradients = [poison::<T>(q_size), poison::<T>(kv_size), poison::<T>(kv_size)];
    if c.kv_stride == c.k_len {
        let [dq, dk, dv_sum] = &mut gradients;
        let saved = Saved { q: qv, k: kv, v: vv, out: out_view, lse: lse_view, dout: dv };
        let (dq, dk, dv) = (view_mut::<T>(dq, q_size), view_mut::<T>(dk, kv_size), view_mut::<T>(dv_sum, kv_size));
        attention_backward(&p, saved, Gradients { dq, dk, dv }).unwrap();
    }
    let [dq, dk, dv] = &gradients;
    Results {
        out: read::<T>(&out, q_size),
        lse: read::<T::Acc>(&lse, rows),
        weights: read::<T::Acc>(&weights, rows * c.k_len),
        gradients: [read::<T>(dq, q_size), read::<T>(dk, kv_size), read::<T>(dv, kv_size)],
    }
}
