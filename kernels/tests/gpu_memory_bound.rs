//! The CUDA kernels that memory bounds, emulated, against the CPU, gradients against its doubles: awkward sizes, empty inputs,
//! views that start anywhere, and the same bits whatever the order of threads.

mod common;

use common::{numbers, rounded};
use half::{bf16, f16};
use kernels::activation::{Activation, activate, activate_backward, silu_mul, silu_mul_backward};
use kernels::copy::{Blocks, copy_blocks};
use kernels::dropout::dropout;
use kernels::embedding::{embedding, embedding_backward};
use kernels::gpu::Emulation;
use kernels::norm::*;
use kernels::optimizer::{AdamW, Segment, State, adamw, sum_squares};
use kernels::patch::{Patches, fold, unfold};
use kernels::pixels::{Normalise, normalise};
use kernels::reduce::{broadcast_axis, sum_axis};
use kernels::rotary::rotary;
use kernels::{Buffer, DType, Device, Stored, View, ViewMut};
use std::sync::OnceLock;

const SIZES: [usize; 6] = [41, 123, 192, 1023, 1500, 3000];
const FLOATS: [DType; 2] = [DType::F32, DType::BF16];

/// The emulator with three orders of threads, the CPU's own first.
fn devices() -> &'static [Device] {
    static DEVICES: OnceLock<Vec<Device>> = OnceLock::new();
    DEVICES.get_or_init(|| {
        let emulated = |seed| {
            let settings = Emulation { seed, ..Emulation::default() };
            Device::emulated(settings).unwrap()
        };
        [0, 1, 7].map(emulated).to_vec()
    })
}

/// Where arrays are made: every one of them starts so many elements into its buffer.
#[derive(Clone)]
struct Place {
    device: Device,
    offset: usize,
    /// Whether what is said to be in F32 or BF16 is kept and computed with in F64, from values rounded to that type.
    doubles: bool,
}

/// An array at a place.
struct Placed {
    buffer: Buffer,
    dtype: DType,
    offset: usize,
    len: usize,
}

impl Place {
    fn array(&self, dtype: DType, values: &[f64]) -> Placed {
        if self.doubles && FLOATS.contains(&dtype) {
            let single = Place { doubles: false, ..self.clone() };
            return single.array(DType::F64, &rounded(dtype, values));
        }
        let (offset, len) = (self.offset, values.len());
        let buffer = self.device.allocate((offset + len) * dtype.size()).unwrap();
        let mut placed = Placed { buffer, dtype, offset, len };
        match dtype {
            DType::F64 => placed.upload(values),
            DType::F32 => placed.upload(&map(values, |v| v as f32)),
            // By way of f32, as `rounded` does it: the first rounding may make a tie for the second.
            DType::BF16 => placed.upload(&map(values, |v| bf16::from_f32(v as f32))),
            DType::F16 => placed.upload(&map(values, |v| f16::from_f32(v as f32))),
            DType::I32 => placed.upload(&map(values, |v| v as i32)),
            DType::U8 => placed.upload(&map(values, |v| v as u8)),
        }
        placed
    }

    fn ids(&self, ids: &[i32]) -> Placed {
        self.array(DType::I32, &map(ids, f64::from))
    }

    /// An output; NaN shows what is not written.
    fn out(&self, dtype: DType, len: usize) -> Placed {
        self.array(dtype, &vec![f64::NAN; len])
    }
}

fn map<T: Copy, U>(values: &[T], f: impl Fn(T) -> U) -> Vec<U> {
    values.iter().map(|&v| f(v)).collect()
}

impl Placed {
    fn view(&self) -> View<'_> {
        View::new(&self.buffer, self.dtype, self.offset, self.len)
    }

    fn view_mut(&mut self) -> ViewMut<'_> {
        ViewMut::new(&mut self.buffer, self.dtype, self.offset, self.len)
    }

    fn upload<T: Stored>(&mut self, values: &[T]) {
        self.view_mut().upload(values).unwrap();
    }

    fn download<T: Stored>(&self) -> Vec<T> {
        self.view().download().unwrap()
    }

    fn values(&self) -> Vec<f64> {
        match self.dtype {
            DType::F64 => self.download(),
            DType::F32 => map(&self.download::<f32>(), f64::from),
            DType::BF16 => map(&self.download::<bf16>(), f64::from),
            DType::F16 => map(&self.download::<f16>(), f64::from),
            DType::I32 => map(&self.download::<i32>(), f64::from),
            DType::U8 => map(&self.download::<u8>(), f64::from),
        }
    }
}

/// Requires what `run` returns to be what the CPU computes in the same types, as [`follows`] says.
fn follows_cpu(what: &str, tolerance: f64, run: impl Fn(&Place) -> Vec<Placed>) {
    follows(what, tolerance, false, run);
}

/// The same against the CPU in F64 on the same rounded inputs, whose results the tests of each family hold against plain loops
/// and finite differences.
fn follows_doubles(what: &str, tolerance: f64, run: impl Fn(&Place) -> Vec<Placed>) {
    follows(what, tolerance, true, run);
}

/// Requires what `run` returns to be off by at most `tolerance` times the largest element (or 0.01), and the same bits for every
/// order of threads. Once with arrays that start at whole vectors, once with others.
fn follows(what: &str, tolerance: f64, doubles: bool, run: impl Fn(&Place) -> Vec<Placed>) {
    let values = |device: &Device, offset, doubles| -> Vec<Vec<f64>> {
        let place = Place { device: device.clone(), offset, doubles };
        run(&place).iter().map(Placed::values).collect()
    };
    let expected = values(&Device::cpu(), 0, doubles);
    for offset in [0, 1] {
        let found = values(&devices()[0], offset, false);
        for (output, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let largest = expected.iter().fold(1e-2_f64, |m, v| m.max(v.abs()));
            let what = format!("{what}, output {output}, offset {offset}");
            common::close(&what, found, expected, 0.0, tolerance * largest);
        }
        let bits = |values: &[Vec<f64>]| map(&values.concat(), f64::to_bits);
        for device in &devices()[1..] {
            let again = values(device, offset, false);
            assert!(bits(&again) == bits(&found), "{what}, offset {offset}: another order, other bits");
        }
    }
}

/// The tolerance for a type.
fn of(dtype: DType, f32: f64, bf16: f64) -> f64 {
    if dtype == DType::BF16 { bf16 } else { f32 }
}

#[test]
fn sums_along_an_axis() {
    let shapes = [
        [1, 1, 1],
        [3, 0, 5],
        [0, 4, 4],
        [1, 40_003, 1],
        [1, 65_536, 1],
        [2, 5000, 7],
        [5, 41, 123],
        [1, 3000, 64],
        [700, 8, 1],
        [2, 20_000, 4],
        [1, 9, 1500],
        [3, 192, 1023],
    ];
    for [outer, axis, inner] in shapes {
        for (t, u) in [(DType::F32, DType::F32), (DType::BF16, DType::F32), (DType::BF16, DType::BF16)] {
            let what = format!("sum of {:?} from {t} to {u}", [outer, axis, inner]);
            follows_cpu(&what, of(u, 1e-5, 8e-3), |place| {
                let x = place.array(t, &numbers(outer * axis * inner, 1));
                let mut out = place.out(u, outer * inner);
                sum_axis(x.view(), &mut out.view_mut(), outer, axis, inner, 0.3).unwrap();
                vec![out]
            });
        }
    }
}

#[test]
fn broadcasts_along_an_axis() {
    for [outer, axis, inner] in [[1, 1000, 1], [3, 7, 1], [3, 0, 5], [5, 41, 123], [2, 9, 64]] {
        for (t, u) in [(DType::F32, DType::F32), (DType::F32, DType::BF16), (DType::BF16, DType::BF16)] {
            let what = format!("broadcast of {:?} from {t} to {u}", [outer, axis, inner]);
            follows_cpu(&what, 0.0, |place| {
                let x = place.array(t, &numbers(outer * inner, 1));
                let mut out = place.out(u, outer * axis * inner);
                broadcast_axis(x.view(), &mut out.view_mut(), outer, axis, inner, 0.5).unwrap();
                vec![out]
            });
        }
    }
}

#[test]
fn copies_of_blocks() {
    let blocks = |outer, block, src: [usize; 2], dst: [usize; 2]| Blocks {
        outer,
        block,
        src_stride: src[0],
        src_offset: src[1],
        dst_stride: dst[0],
        dst_offset: dst[1],
    };
    let all = [
        blocks(0, 5, [5, 0], [5, 0]),
        blocks(1, 3000, [0, 0], [0, 0]),
        blocks(7, 41, [123, 2], [41, 5]),
        blocks(6, 64, [192, 64], [128, 32]),
        blocks(5, 16, [0, 8], [24, 0]),
    ];
    for blocks in all {
        for t in [DType::F64, DType::F32, DType::BF16, DType::F16, DType::I32] {
            for accumulate in [false, true] {
                if accumulate && !FLOATS.contains(&t) {
                    continue;
                }
                follows_cpu(&format!("{blocks:?} of {t}, adding {accumulate}"), 0.0, |place| {
                    let src = place.array(t, &map(&numbers(3000, 1), |v| (v * 100.0).round()));
                    let mut dst = place.array(t, &map(&numbers(3000, 2), |v| (v * 100.0).round()));
                    copy_blocks(blocks, src.view(), &mut dst.view_mut(), accumulate).unwrap();
                    vec![dst]
                });
            }
        }
    }
}

#[test]
fn activations() {
    let all = [Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Silu];
    for len in [0, 1, 41, 1024] {
        let mut x = map(&numbers(len, 1), |v| v * 4.0);
        x.iter_mut().zip([-100.0, 100.0, 0.0]).for_each(|(x, v)| *x = v);
        for t in FLOATS {
            for act in all {
                // In f32 the tails of a slope cancel, as 1 − tanh² does.
                follows_doubles(&format!("{act:?} of {len} {t}"), of(t, 4e-6, 8e-3), |place| {
                    let (x, dy) = (place.array(t, &x), place.array(t, &numbers(len, 2)));
                    let (mut y, mut dx) = (place.out(t, len), place.out(t, len));
                    activate(x.view(), &mut y.view_mut(), act).unwrap();
                    activate_backward(x.view(), dy.view(), &mut dx.view_mut(), act).unwrap();
                    vec![y, dx]
                });
            }
            follows_doubles(&format!("gate of {len} {t}"), of(t, 1e-6, 8e-3), |place| {
                let (gate, up) = (place.array(t, &x), place.array(t, &numbers(len, 2)));
                let dy = place.array(t, &numbers(len, 3));
                let [mut y, mut dgate, mut dup] = [0; 3].map(|_| place.out(t, len));
                silu_mul(gate.view(), up.view(), &mut y.view_mut()).unwrap();
                let (dgate_out, dup_out) = (&mut dgate.view_mut(), &mut dup.view_mut());
                silu_mul_backward(gate.view(), up.view(), dy.view(), dgate_out, dup_out).unwrap();
                vec![y, dgate, dup]
            });
        }
    }
}

/// Rows and their lengths: also no rows, and lengths beyond what a block holds in registers.
fn norm_shapes() -> impl Iterator<Item = (usize, usize, DType)> {
    let shapes = SIZES.map(|dim| (9, dim)).into_iter();
    let shapes = shapes.chain([(0, 8), (1, 2), (5, 4099), (5, 9000)]);
    shapes.flat_map(|(rows, dim)| FLOATS.map(|t| (rows, dim, t)))
}

#[test]
fn layer_norms() {
    for (rows, dim, t) in norm_shapes() {
        follows_doubles(&format!("layer norm ({rows}, {dim}) of {t}"), of(t, 1e-4, 2e-2), |place| {
            let x = place.array(t, &map(&numbers(rows * dim, 1), |v| v + 3.0));
            let dy = place.array(t, &numbers(rows * dim, 2));
            let (w, b) = (place.array(t, &numbers(dim, 3)), place.array(t, &numbers(dim, 4)));
            let [mut y, mut dx] = [0; 2].map(|_| place.out(t, rows * dim));
            let [mut mean, mut rstd] = [0; 2].map(|_| place.out(DType::F32, rows));
            let [mut dw, mut db] = [0; 2].map(|_| place.out(DType::F32, dim));
            let (x, w, b, dy) = (x.view(), w.view(), b.view(), dy.view());
            let out = (y.view_mut(), mean.view_mut(), rstd.view_mut());
            layer_norm(LayerNorm { x, w, b, y: out.0, mean: out.1, rstd: out.2, eps: 1e-5 }).unwrap();
            let out = (dx.view_mut(), dw.view_mut(), db.view_mut());
            let (mean_in, rstd_in) = (mean.view(), rstd.view());
            layer_norm_backward(LayerNormBackward {
                x,
                w,
                mean: mean_in,
                rstd: rstd_in,
                dy,
                dx: out.0,
                dw: out.1,
                db: out.2,
            })
            .unwrap();
            vec![y, mean, rstd, dx, dw, db]
        });
    }
}

#[test]
fn rms_norms() {
    for (rows, dim, t) in norm_shapes() {
        follows_doubles(&format!("RMS norm ({rows}, {dim}) of {t}"), of(t, 1e-4, 2e-2), |place| {
            let x = place.array(t, &numbers(rows * dim, 1));
            let (dy, w) = (place.array(t, &numbers(rows * dim, 2)), place.array(t, &numbers(dim, 3)));
            let [mut y, mut dx] = [0; 2].map(|_| place.out(t, rows * dim));
            let (mut rstd, mut dw) = (place.out(DType::F32, rows), place.out(DType::F32, dim));
            rms_norm(x.view(), w.view(), &mut y.view_mut(), &mut rstd.view_mut(), 1e-5).unwrap();
            let (dx_out, dw_out) = (&mut dx.view_mut(), &mut dw.view_mut());
            rms_norm_backward(x.view(), w.view(), rstd.view(), dy.view(), dx_out, dw_out).unwrap();
            vec![y, rstd, dx, dw]
        });
    }
}

#[test]
fn rows_of_unit_length() {
    for (rows, dim, t) in norm_shapes() {
        follows_doubles(&format!("unit rows ({rows}, {dim}) of {t}"), of(t, 1e-4, 2e-2), |place| {
            let x = numbers(rows * dim, 1);
            let (mut y, mut inverse) = (place.out(t, rows * dim), place.out(DType::F32, rows));
            let (y_out, inverse_out) = (&mut y.view_mut(), &mut inverse.view_mut());
            l2_normalize(place.array(t, &x).view(), y_out, inverse_out, dim, 1e-6).unwrap();
            // The derivative from the same rounded rows everywhere: of short ones next to nothing remains of `dy`.
            let scales =
                map(&x.chunks(dim).collect::<Vec<_>>(), |row| 1.0 / row.iter().map(|v| v * v).sum::<f64>().sqrt());
            let unit: Vec<f64> = x.iter().enumerate().map(|(i, v)| v * scales[i / dim]).collect();
            let (unit, scales) = (place.array(t, &unit), place.array(DType::F32, &scales));
            let (dy, mut dx) = (place.array(t, &numbers(rows * dim, 2)), place.out(t, rows * dim));
            l2_normalize_backward(unit.view(), scales.view(), dy.view(), &mut dx.view_mut(), dim).unwrap();
            vec![y, inverse, dx]
        });
    }
}

#[test]
fn rotary_positions() {
    for (tokens, heads, head_dim) in [(0, 2, 8), (3, 5, 2), (41, 3, 92), (17, 1, 128), (9, 32, 64)] {
        for t in FLOATS {
            for inverse in [false, true] {
                let what = format!("rotary {:?} of {t}, back {inverse}", [tokens, heads, head_dim]);
                follows_cpu(&what, of(t, 1e-5, 8e-3), |place| {
                    let x = place.array(t, &numbers(tokens * heads * head_dim, 1));
                    // Up to 131072, and some below zero.
                    let positions: Vec<i32> = (0..tokens as i32).map(|i| i * i * 131_072 / 1600 - 7).collect();
                    let positions = place.ids(&positions);
                    let frequencies: Vec<f64> =
                        (0..head_dim / 2).map(|i| 10_000_f64.powf(-2.0 * i as f64 / head_dim as f64)).collect();
                    let inv_freq = place.array(DType::F32, &frequencies);
                    let mut y = place.out(t, x.len);
                    let (x, y_out) = (x.view(), &mut y.view_mut());
                    rotary(x, positions.view(), inv_freq.view(), y_out, heads, inverse).unwrap();
                    vec![y]
                });
            }
        }
    }
}

/// `n` ids of a vocabulary, one in three the same.
fn ids(n: usize, vocab: usize) -> Vec<i32> {
    let random = numbers(n, 5);
    let id = |(i, r): (usize, f64)| {
        if i % 3 == 0 { 17 % vocab } else { (r.abs() / 2.0 * vocab as f64) as usize % vocab }
    };
    random.into_iter().enumerate().map(id).map(|id| id as i32).collect()
}

#[test]
fn embeddings() {
    for (n, vocab, dim) in [(0, 5, 8), (1, 1, 1), (1000, 700, 41), (300, 256, 320), (100, 257, 64), (9, 3, 0)] {
        for t in FLOATS {
            follows_doubles(&format!("embedding of {n} ids, ({vocab}, {dim}) {t}"), 1e-6, |place| {
                let (table, ids) = (place.array(t, &numbers(vocab * dim, 1)), place.ids(&ids(n, vocab)));
                let dout = place.array(t, &numbers(n * dim, 2));
                let (mut out, mut dtable) = (place.out(t, n * dim), place.out(DType::F32, vocab * dim));
                embedding(table.view(), ids.view(), &mut out.view_mut(), vocab, dim).unwrap();
                embedding_backward(ids.view(), dout.view(), &mut dtable.view_mut(), vocab, dim, false).unwrap();
                let mut more = place.array(DType::F32, &numbers(vocab * dim, 3));
                embedding_backward(ids.view(), dout.view(), &mut more.view_mut(), vocab, dim, true).unwrap();
                vec![out, dtable, more]
            });
        }
    }
}

#[test]
fn ids_outside_the_table_are_skipped() {
    let place = Place { device: devices()[0].clone(), offset: 0, doubles: false };
    let (table, ids) = (place.array(DType::F32, &[1.0, 2.0, 3.0, 4.0]), place.ids(&[1, -1, 2, i32::MAX, 0]));
    let mut out = place.out(DType::F32, 10);
    embedding(table.view(), ids.view(), &mut out.view_mut(), 2, 2).unwrap();
    assert_eq!(out.values(), [3.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0]);
    let mut dtable = place.out(DType::F32, 4);
    let dout = place.array(DType::F32, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0]);
    embedding_backward(ids.view(), dout.view(), &mut dtable.view_mut(), 2, 2, false).unwrap();
    assert_eq!(dtable.values(), [9.0, 10.0, 1.0, 2.0]);
}

#[test]
fn dropout_keeps_what_the_cpu_keeps() {
    for len in [0, 1, 41, 192, 3000] {
        for t in FLOATS {
            for (p, seed) in [(0.0, 0), (0.1, 1), (0.5, u64::MAX), (0.9, 1 << 40)] {
                follows_cpu(&format!("dropout of {len} {t}, {p}, seed {seed}"), 0.0, |place| {
                    let x = place.array(t, &numbers(len, 1));
                    let mut y = place.out(t, len);
                    dropout(x.view(), &mut y.view_mut(), p, seed).unwrap();
                    vec![y]
                });
            }
        }
    }
}

#[test]
fn patches() {
    // (batch, channels, height, width, patch, margin)
    for [batch, channels, height, width, patch, margin] in [
        [0, 3, 8, 8, 4, 0],
        [2, 3, 16, 24, 8, 0],
        [1, 3, 17, 24, 8, 0],
        [2, 2, 13, 11, 3, 0],
        [1, 3, 12, 12, 4, 2],
        [2, 1, 14, 10, 4, 5],
        [1, 2, 3, 9, 4, 1],
    ] {
        let p = Patches { batch, channels, height, width, patch, margin };
        let image_len = batch * channels * height * width;
        let cut = batch * (height / patch) * (width / patch) * channels * p.window() * p.window();
        for t in FLOATS {
            follows_doubles(&format!("{p:?} of {t}"), of(t, 1e-6, 8e-3), |place| {
                let (image, dcut) = (place.array(t, &numbers(image_len, 1)), place.array(t, &numbers(cut, 2)));
                let (mut out, mut dimage) = (place.out(t, cut), place.out(t, image_len));
                unfold(p, image.view(), &mut out.view_mut()).unwrap();
                fold(p, dcut.view(), &mut dimage.view_mut()).unwrap();
                vec![out, dimage]
            });
        }
    }
}

/// Segments of up to `most` elements with rates of their own, some empty and with gaps between some.
fn segments(len: usize, most: usize) -> Vec<Segment> {
    let mut found = Vec::new();
    let mut start = 0;
    for i in 0.. {
        let end = (start + i * 7919 % (most + 1)).min(len);
        found.push(Segment { range: start..end, lr: 1e-2 / (1 + i % 3) as f64, weight_decay: 0.1 * (i % 2) as f64 });
        start = end + (i % 4) / 3 * 5;
        if start >= len {
            return found;
        }
    }
    unreachable!("the segments grow")
}

#[test]
fn steps_of_adamw() {
    for (len, most) in [(0, 1), (1, 1), (41, 5), (192, 41), (3000, 13), (20_000, 9000)] {
        for low in [false, true] {
            follows_cpu(&format!("adamw of {len}, low {low}"), 1e-6, |place| {
                let [mut w, mut m] = [1, 2].map(|seed| place.array(DType::F32, &numbers(len, seed)));
                let mut v = place.array(DType::F32, &map(&numbers(len, 3), f64::abs));
                let mut rounded = place.array(DType::BF16, &w.values());
                let scale = place.array(DType::F32, &[0.7]);
                for step in 1..4 {
                    let grads = place.array(DType::F32, &numbers(len, 3 + step));
                    let p = AdamW { beta1: 0.9, beta2: 0.98, eps: 1e-8, step, stochastic: None };
                    let low = low.then(|| rounded.view_mut());
                    let (weights, m, v) = (w.view_mut(), m.view_mut(), v.view_mut());
                    let state = State { weights, grads: grads.view(), m, v, low };
                    adamw(&p, &segments(len, most), state, Some(scale.view())).unwrap();
                }
                // Rounding may go either way where the weights differ in their last place.
                let gap: Vec<f64> = w.values().iter().zip(rounded.values()).map(|(w, r)| w - r).collect();
                assert!(!low || gap.iter().zip(w.values()).all(|(gap, w)| gap.abs() <= w.abs() / 256.0));
                vec![w, m, v]
            });
        }
    }
}

#[test]
fn bytes_of_images() {
    for t in [DType::F32, DType::BF16] {
        for (images, area) in [(0, 1), (1, 1), (3, 35), (2, 36), (2, 24 * 24)] {
            follows_cpu(&format!("{images} images of {area} pixels as {t}"), 0.0, |place| {
                let bytes: Vec<f64> = (0..images * area * 3).map(|i| (i * 7 % 256) as f64).collect();
                let mut out = place.out(t, bytes.len());
                let p = Normalise {
                    area,
                    mean: [0.48145466, 0.4578275, 0.40821073],
                    deviation: [0.26862954, 0.26130258, 0.27577711],
                };
                normalise(&p, place.array(DType::U8, &bytes).view(), &mut out.view_mut()).unwrap();
                vec![out]
            });
        }
    }
}

#[test]
fn weights_rounded_at_random() {
    for len in [1, 41, 20_000] {
        follows_cpu(&format!("{len} weights rounded at random"), 0.0, |place| {
            let mut values = numbers(len, 1);
            values[len / 2] = f64::INFINITY;
            let [mut w, mut m, mut v] = [&values, &vec![0.0; len], &vec![0.0; len]].map(|v| place.array(DType::F32, v));
            let grads = place.array(DType::F32, &vec![0.0; len]);
            let mut low = place.out(DType::BF16, len);
            // Without a rate the weights stay as they are, so that what is rounded is the same everywhere.
            let p = AdamW { beta1: 0.9, beta2: 0.98, eps: 1e-8, step: 1, stochastic: Some(7) };
            let all = [Segment { range: 0..len, lr: 0.0, weight_decay: 0.0 }];
            let (weights, m, v) = (w.view_mut(), m.view_mut(), v.view_mut());
            let state = State { weights, grads: grads.view(), m, v, low: Some(low.view_mut()) };
            adamw(&p, &all, state, None).unwrap();
            vec![low]
        });
    }
}

#[test]
fn scales_the_host_has_not_seen() {
    use kernels::elementwise::{axpy_by, cast_unless_nan, clamp, scale_by};
    use kernels::optimizer::{NormScale, norm_scale};
    for (t, u) in [(DType::F32, DType::F32), (DType::F32, DType::BF16), (DType::BF16, DType::F32)] {
        for len in [0, 1, 41, 3000] {
            // One rounding to bf16 may go the other way.
            let tolerance = if u == DType::BF16 { 1e-2 } else { 1e-6 };
            for rule in [NormScale::Clip(2.0), NormScale::Clip(f64::INFINITY), NormScale::Unit] {
                follows_cpu(&format!("{rule:?}, {len} of {t} to {u}"), tolerance, |place| {
                    let x = place.array(t, &numbers(len, 1));
                    let [mut scaled, mut cast] = [(); 2].map(|()| place.out(u, len));
                    let mut sum = place.array(DType::F32, &numbers(len, 2));
                    let (mut squares, mut scale) = (place.out(DType::F64, 1), place.out(DType::F32, 1));
                    sum_squares(x.view(), &mut squares.view_mut()).unwrap();
                    norm_scale(squares.view(), rule, &mut scale.view_mut()).unwrap();
                    scale_by(x.view(), scale.view(), &mut scaled.view_mut(), 0.5).unwrap();
                    axpy_by(x.view(), scale.view(), &mut sum.view_mut(), 0.5).unwrap();
                    cast_unless_nan(x.view(), scale.view(), &mut cast.view_mut()).unwrap();
                    let nan = place.array(DType::F32, &[f64::NAN]);
                    cast_unless_nan(sum.view(), nan.view(), &mut scaled.view_mut()).unwrap();
                    clamp(&mut cast.view_mut(), -0.25, 0.5).unwrap();
                    vec![scale, scaled, sum, cast]
                });
            }
        }
    }
}

#[test]
fn sums_of_squares() {
    for len in [0, 1, 41, 3000, 100_000] {
        for t in FLOATS {
            follows_cpu(&format!("squares of {len} {t}"), 1e-13, |place| {
                let x = place.array(t, &numbers(len, 1));
                let mut out = place.out(DType::F64, 1);
                sum_squares(x.view(), &mut out.view_mut()).unwrap();
                vec![out]
            });
        }
    }
}

#[test]
fn doubles_are_refused() {
    let place = Place { device: devices()[0].clone(), offset: 0, doubles: false };
    let x = place.array(DType::F64, &numbers(8, 1));
    let mut y = place.out(DType::F64, 8);
    let error = dropout(x.view(), &mut y.view_mut(), 0.5, 0).unwrap_err().to_string();
    assert!(error.contains("f64") && error.contains("dropout"), "{error}");
}
