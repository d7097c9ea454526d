//! Attention, forward and backward, in single precision. Elements per second are floating-point operations per second:
//! 4·batch·heads·queries·keys·width forward, halved when causal, and 2.5 times that backward.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use kernels::attention::{Attention, Gradients, Mask, Saved, attention, attention_backward};
use kernels::{Buffer, DType, Device, View, ViewMut};

/// (batch, tokens, heads, head width) of queries and keys.
const SHAPES: [(usize, usize, usize, usize, Mask); 3] =
    [(32, 124, 4, 32, Mask::Causal), (32, 36, 4, 32, Mask::Full), (2, 257, 16, 64, Mask::Full)];

/// Numbers in −1..1 that look random enough for a softmax.
fn values(len: usize, phase: f32) -> Buffer {
    let mut buffer = Device::cpu().allocate(len * 4).expect("memory for a bench");
    let mut view = ViewMut::new(&mut buffer, DType::F32, 0, len);
    view.slice_mut().iter_mut().enumerate().for_each(|(i, x): (_, &mut f32)| *x = (i as f32 * 12.9898 + phase).sin());
    buffer
}

fn shape((batch, tokens, heads, head_dim, mask): (usize, usize, usize, usize, Mask)) -> Attention<'static> {
    Attention {
        batch,
        q_len: tokens,
        k_len: tokens,
        q_heads: heads,
        kv_heads: heads,
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        mask,
        kv_stride: tokens,
        q_lens: None,
        k_lens: None,
        segments: None,
        dropout: 0.0,
        seed: 0,
    }
}

fn bench(c: &mut Criterion) {
    for given in SHAPES {
        let p = shape(given);
        let rows = p.batch * p.q_heads * p.q_len;
        let len = rows * p.head_dim;
        let [q, k, v, dout] = [0.0, 1.0, 2.0, 3.0].map(|phase| values(len, phase));
        let [mut out, mut dq, mut dk, mut dv, mut lse] = [len, len, len, len, rows].map(|len| values(len, 0.0));
        let [q, k, v, dout] = [&q, &k, &v, &dout].map(|x| View::new(x, DType::F32, 0, len));
        let flops = (4 * rows * p.k_len * p.head_dim) as u64 / if p.mask == Mask::Causal { 2 } else { 1 };
        let name = format!("{}x{}x{}x{} {:?}", p.batch, p.q_len, p.q_heads, p.head_dim, p.mask);
        let mut group = c.benchmark_group("attention");
        group.throughput(Throughput::Elements(flops));
        group.bench_function(BenchmarkId::new("forward", &name), |b| {
            let (mut out, mut lse) = (output(&mut out, len), output(&mut lse, rows));
            b.iter(|| attention(&p, q, k, v, &mut out, &mut lse).expect("a valid call"));
        });
        group.throughput(Throughput::Elements(flops * 5 / 2));
        group.bench_function(BenchmarkId::new("backward", &name), |b| {
            let (out, lse) = (View::new(&out, DType::F32, 0, len), View::new(&lse, DType::F32, 0, rows));
            b.iter(|| {
                let (dq, dk, dv) = (output(&mut dq, len), output(&mut dk, len), output(&mut dv, len));
                let saved = Saved { q, k, v, out, lse, dout };
                attention_backward(&p, saved, Gradients { dq, dk, dv }).expect("a valid call");
            });
        });
    }
}

fn output(buffer: &mut Buffer, len: usize) -> ViewMut<'_> {
    ViewMut::new(buffer, DType::F32, 0, len)
}

criterion_group!(benches, bench);
criterion_main!(benches);
