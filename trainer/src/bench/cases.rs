//! What is timed: each kernel on shapes that models have, with what it computes and moves.

use super::shapes::{Grid, Heads};
use anyhow::Result;
use engine::{DType, Device, Tensor};
use kernels::activation::{Activation, activate, silu_mul};
use kernels::attention::{self, Attention, Mask, Saved, attention, attention_backward};
use kernels::contrastive::{Contrastive, Features, Gradients, clip_loss, clip_loss_backward};
use kernels::copy::{Blocks, copy_blocks};
use kernels::elementwise::add;
use kernels::gemm::{Epilogue, Gemm, gemm};
use kernels::loss::{CrossEntropy, Outputs, linear_cross_entropy};
use kernels::norm::{LayerNorm, LayerNormBackward, layer_norm, layer_norm_backward, rms_norm, rms_norm_backward};
use kernels::optimizer::{AdamW, Segment, State, adamw};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a call is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Work {
    /// Floating-point operations; a multiply and an add are two.
    Flops(f64),
    /// Bytes read and written that have to be.
    Bytes(f64),
}

/// A kernel on one shape.
pub(super) struct Case {
    /// The family's name.
    pub(super) family: &'static str,
    pub(super) kernel: &'static str,
    /// Its layout or mask, where it has one.
    pub(super) variant: String,
    /// Its sizes.
    pub(super) shape: Vec<usize>,
    /// What one call is worth.
    pub(super) work: Work,
    /// One call.
    pub(super) run: Box<dyn FnMut() -> Result<()>>,
}

impl Case {
    /// Kernel, variant and sizes in one line.
    pub(super) fn name(&self) -> String {
        let sizes: Vec<String> = self.shape.iter().map(ToString::to_string).collect();
        let words = [self.kernel, &self.variant, &sizes.join("×")];
        words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
    }
}

/// A case that is made when its turn comes, so that one case's memory is held at a time.
pub(super) type Make = Box<dyn Fn(&Device, DType) -> Result<Case>>;

/// The cases of a grid with their families, the ceilings' first: a copy, multiply-adds on registers alone, a large product.
pub(super) fn cases(grid: Grid) -> Vec<(&'static str, Make)> {
    let shapes = grid.shapes();
    let mut all: Vec<(&'static str, Make)> = Vec::new();
    let mut add = |family, make: Make| all.push((family, make));
    let elements = shapes.elements;
    add("copy", Box::new(move |device, dtype| copy(device, dtype, elements)));
    add("peak", Box::new(saturate));
    for p in shapes.products {
        add("gemm", Box::new(move |device, dtype| product(device, dtype, p)));
    }
    for shape in shapes.attentions {
        for backward in [false, true] {
            let make = move |device: &Device, dtype| attend(device, dtype, shape, backward);
            add("attention", Box::new(make));
        }
    }
    for [rows, dim] in shapes.norms {
        for which in [Norm::Layer, Norm::LayerBackward, Norm::Rms, Norm::RmsBackward] {
            let make = move |device: &Device, dtype| norm(device, dtype, which, rows, dim);
            add("norm", Box::new(make));
        }
    }
    let quarter = elements / 4;
    add("elementwise", Box::new(move |device, dtype| sum_of_two(device, dtype, quarter)));
    add("activation", Box::new(move |device, dtype| gelu(device, dtype, quarter)));
    add("activation", Box::new(move |device, dtype| gate(device, dtype, quarter)));
    for shape in shapes.classifiers {
        add("loss", Box::new(move |device, dtype| classify(device, dtype, shape)));
    }
    for [n, dim] in shapes.pairs {
        for backward in [false, true] {
            let make = move |device: &Device, dtype| clip(device, dtype, n, dim, backward);
            add("contrastive", Box::new(make));
        }
    }
    for len in shapes.parameters {
        add("optimizer", Box::new(move |device, dtype| step(device, dtype, len)));
    }
    all
}

/// Numbers from −1 to 1, the same each time.
fn random(device: &Device, dtype: DType, shape: impl Into<engine::Shape>) -> Result<Tensor> {
    let shape = shape.into();
    // A period that divides no width, so that rows differ; drawing every number would take longer than the bench.
    let mut rng = ChaCha8Rng::seed_from_u64(shape.elements() as u64);
    let drawn: Vec<f32> = (0..65_521).map(|_| rng.random_range(-1.0..1.0)).collect();
    let data: Vec<f32> = drawn.iter().copied().cycle().take(shape.elements()).collect();
    Ok(Tensor::from_slice(device, &data, shape)?.cast(dtype)?)
}

/// An output, filled with NaN: what a kernel leaves out shows.
fn output(device: &Device, dtype: DType, shape: impl Into<engine::Shape>) -> Result<Tensor> {
    Ok(Tensor::full(device, dtype, shape, f64::NAN)?)
}

fn copy(device: &Device, dtype: DType, len: usize) -> Result<Case> {
    let (x, mut y) = (random(device, dtype, [len])?, output(device, dtype, [len])?);
    let blocks = Blocks { outer: 1, block: len, ..Blocks::default() };
    Ok(Case {
        family: "copy",
        kernel: "copy",
        variant: String::new(),
        shape: vec![len],
        work: Work::Bytes((2 * len * dtype.size()) as f64),
        run: Box::new(move || Ok(copy_blocks(blocks, x.view(), &mut y.view_mut()?, false)?)),
    })
}

fn saturate(_: &Device, dtype: DType) -> Result<Case> {
    const ROUNDS: usize = 20_000;
    Ok(Case {
        family: "peak",
        kernel: "multiply_add",
        variant: "on registers alone".into(),
        shape: Vec::new(),
        work: Work::Flops(kernels::cpu::saturate(dtype, ROUNDS)?),
        run: Box::new(move || kernels::cpu::saturate(dtype, ROUNDS).map(drop).map_err(Into::into)),
    })
}

fn product(device: &Device, dtype: DType, p: Gemm) -> Result<Case> {
    let (a, b) = (random(device, dtype, [p.m * p.k])?, random(device, dtype, [p.k * p.n])?);
    let mut c = output(device, dtype, [p.m * p.n])?;
    Ok(Case {
        family: "gemm",
        kernel: "gemm",
        variant: format!("{:?}", p.layout),
        shape: vec![p.m, p.n, p.k],
        work: Work::Flops(2.0 * p.m as f64 * p.n as f64 * p.k as f64),
        run: Box::new(move || Ok(gemm(p, a.view(), b.view(), &mut c.view_mut()?, Epilogue::default())?)),
    })
}

fn attend(device: &Device, dtype: DType, (shape, mask): Heads, backward: bool) -> Result<Case> {
    let [batch, q_len, k_len, q_heads, kv_heads, head_dim] = shape;
    let p = Attention {
        batch,
        q_len,
        k_len,
        q_heads,
        kv_heads,
        head_dim,
        scale: 1.0 / (head_dim as f64).sqrt(),
        mask,
        kv_stride: k_len,
        q_lens: None,
        k_lens: None,
        segments: None,
        dropout: 0.0,
        seed: 0,
    };
    let q_shape = [batch, q_len, q_heads, head_dim];
    let kv_shape = [batch, k_len, kv_heads, head_dim];
    let (q, k, v) =
        (random(device, dtype, q_shape)?, random(device, dtype, kv_shape)?, random(device, dtype, kv_shape)?);
    let (mut out, mut lse) = (output(device, dtype, q_shape)?, output(device, DType::F32, [batch, q_heads, q_len])?);
    let half = if mask == Mask::Causal { 0.5 } else { 1.0 };
    let flops = 4.0 * half * (batch * q_heads * q_len) as f64 * (k_len * head_dim) as f64;
    let variant = format!("{mask:?}");
    if !backward {
        let run = move || Ok(attention(&p, q.view(), k.view(), v.view(), &mut out.view_mut()?, &mut lse.view_mut()?)?);
        return Ok(Case {
            family: "attention",
            kernel: "attention",
            variant,
            shape: shape.to_vec(),
            work: Work::Flops(flops),
            run: Box::new(run),
        });
    }
    attention(&p, q.view(), k.view(), v.view(), &mut out.view_mut()?, &mut lse.view_mut()?)?;
    let dout = random(device, dtype, q_shape)?;
    let (mut dq, mut dk, mut dv) =
        (output(device, dtype, q.shape())?, output(device, dtype, k.shape())?, output(device, dtype, v.shape())?);
    let run = move || {
        let [q, k, v, out, lse, dout] = [&q, &k, &v, &out, &lse, &dout].map(Tensor::view);
        let (dq, dk, dv) = (dq.view_mut()?, dk.view_mut()?, dv.view_mut()?);
        Ok(attention_backward(&p, Saved { q, k, v, out, lse, dout }, attention::Gradients { dq, dk, dv })?)
    };
    Ok(Case {
        family: "attention",
        kernel: "attention_backward",
        variant,
        shape: shape.to_vec(),
        work: Work::Flops(2.5 * flops),
        run: Box::new(run),
    })
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Norm {
    Layer,
    LayerBackward,
    Rms,
    RmsBackward,
}

impl Norm {
    fn name(self) -> &'static str {
        match self {
            Norm::Layer => "layer_norm",
            Norm::LayerBackward => "layer_norm_backward",
            Norm::Rms => "rms_norm",
            Norm::RmsBackward => "rms_norm_backward",
        }
    }
}

fn norm(device: &Device, dtype: DType, which: Norm, rows: usize, dim: usize) -> Result<Case> {
    let (x, w, b) = (random(device, dtype, [rows, dim])?, random(device, dtype, [dim])?, random(device, dtype, [dim])?);
    let dy = random(device, dtype, [rows, dim])?;
    let (mut mean, mut rstd) = (output(device, DType::F32, [rows])?, output(device, DType::F32, [rows])?);
    let (mut y, mut dx) = (output(device, dtype, x.shape())?, output(device, dtype, x.shape())?);
    let (mut dw, mut db) = (output(device, DType::F32, [dim])?, output(device, DType::F32, [dim])?);
    match which {
        Norm::LayerBackward => {
            let (y, mean, rstd) = (y.view_mut()?, mean.view_mut()?, rstd.view_mut()?);
            layer_norm(LayerNorm { x: x.view(), w: w.view(), b: b.view(), y, mean, rstd, eps: 1e-5 })?;
        }
        Norm::RmsBackward => rms_norm(x.view(), w.view(), &mut y.view_mut()?, &mut rstd.view_mut()?, 1e-5)?,
        Norm::Layer | Norm::Rms => {}
    }
    let arrays = if matches!(which, Norm::Layer | Norm::Rms) { 2 } else { 3 };
    let run = move || {
        let (x, w, dy) = (x.view(), w.view(), dy.view());
        match which {
            Norm::Layer => {
                let (y, mean, rstd) = (y.view_mut()?, mean.view_mut()?, rstd.view_mut()?);
                layer_norm(LayerNorm { x, w, b: b.view(), y, mean, rstd, eps: 1e-5 })?;
            }
            Norm::Rms => rms_norm(x, w, &mut y.view_mut()?, &mut rstd.view_mut()?, 1e-5)?,
            Norm::LayerBackward => {
                let (mean, rstd) = (mean.view(), rstd.view());
                let (dx, dw, db) = (dx.view_mut()?, dw.view_mut()?, db.view_mut()?);
                layer_norm_backward(LayerNormBackward { x, w, mean, rstd, dy, dx, dw, db })?;
            }
            Norm::RmsBackward => rms_norm_backward(x, w, rstd.view(), dy, &mut dx.view_mut()?, &mut dw.view_mut()?)?,
        }
        Ok(())
    };
    Ok(Case {
        family: "norm",
        kernel: which.name(),
        variant: String::new(),
        shape: vec![rows, dim],
        work: Work::Bytes((arrays * rows * dim * dtype.size()) as f64),
        run: Box::new(run),
    })
}

fn sum_of_two(device: &Device, dtype: DType, len: usize) -> Result<Case> {
    let (x, y, mut out) = (random(device, dtype, [len])?, random(device, dtype, [len])?, output(device, dtype, [len])?);
    Ok(Case {
        family: "elementwise",
        kernel: "add",
        variant: String::new(),
        shape: vec![len],
        work: Work::Bytes((3 * len * dtype.size()) as f64),
        run: Box::new(move || Ok(add(x.view(), y.view(), &mut out.view_mut()?)?)),
    })
}

fn gelu(device: &Device, dtype: DType, len: usize) -> Result<Case> {
    let (x, mut y) = (random(device, dtype, [len])?, output(device, dtype, [len])?);
    Ok(Case {
        family: "activation",
        kernel: "gelu",
        variant: String::new(),
        shape: vec![len],
        work: Work::Bytes((2 * len * dtype.size()) as f64),
        run: Box::new(move || Ok(activate(x.view(), &mut y.view_mut()?, Activation::Gelu)?)),
    })
}

fn gate(device: &Device, dtype: DType, len: usize) -> Result<Case> {
    let (x, up, mut y) = (random(device, dtype, [len])?, random(device, dtype, [len])?, output(device, dtype, [len])?);
    Ok(Case {
        family: "activation",
        kernel: "silu_mul",
        variant: String::new(),
        shape: vec![len],
        work: Work::Bytes((3 * len * dtype.size()) as f64),
        run: Box::new(move || Ok(silu_mul(x.view(), up.view(), &mut y.view_mut()?)?)),
    })
}

fn classify(device: &Device, dtype: DType, [rows, dim, vocab]: [usize; 3]) -> Result<Case> {
    let p = CrossEntropy { rows, dim, vocab, ignore_index: -100 };
    let (x, w) = (random(device, dtype, [rows, dim])?, random(device, dtype, [vocab, dim])?);
    let targets: Vec<i32> = (0..rows).map(|row| (row * 7919 % vocab) as i32).collect();
    let targets = Tensor::from_slice(device, &targets, [rows])?;
    let (mut loss, mut losses) = (output(device, DType::F32, [1])?, output(device, DType::F32, [rows])?);
    let mut predictions = Tensor::from_slice(device, &vec![0; rows], [rows])?;
    let (mut dx, mut dw) = (output(device, dtype, x.shape())?, output(device, DType::F32, [vocab, dim])?);
    let run = move || {
        let (loss, losses, predictions) = (loss.view_mut()?, losses.view_mut()?, predictions.view_mut()?);
        let (dx, dw) = (Some(dx.view_mut()?), Some(dw.view_mut()?));
        let out = Outputs { loss, losses, predictions, dx, dw };
        Ok(linear_cross_entropy(&p, x.view(), w.view(), targets.view(), out)?)
    };
    Ok(Case {
        family: "loss",
        kernel: "linear_cross_entropy",
        variant: String::new(),
        shape: vec![rows, dim, vocab],
        work: Work::Flops(6.0 * rows as f64 * dim as f64 * vocab as f64),
        run: Box::new(run),
    })
}

fn clip(device: &Device, dtype: DType, n: usize, dim: usize, backward: bool) -> Result<Case> {
    let p = Contrastive { n, dim, groups: 1 };
    let (image, text) = (random(device, dtype, [n, dim])?, random(device, dtype, [n, dim])?);
    let scale = Tensor::full(device, DType::F32, [1], 0.0)?;
    let (mut loss, mut dscale) = (output(device, DType::F32, [1])?, output(device, DType::F32, [1])?);
    let (mut row_lse, mut col_lse) = (output(device, DType::F32, [n])?, output(device, DType::F32, [n])?);
    let (mut dimage, mut dtext) = (output(device, dtype, image.shape())?, output(device, dtype, text.shape())?);
    let run = move || {
        let (loss, rows, columns) = (&mut loss.view_mut()?, &mut row_lse.view_mut()?, &mut col_lse.view_mut()?);
        let f = Features { image: image.view(), text: text.view(), log_scale: scale.view() };
        clip_loss(&p, f, loss, rows, columns)?;
        if backward {
            let (dimage, dtext, dlog_scale) = (dimage.view_mut()?, dtext.view_mut()?, dscale.view_mut()?);
            clip_loss_backward(&p, f, row_lse.view(), col_lse.view(), Gradients { dimage, dtext, dlog_scale })?;
        }
        Ok(())
    };
    let products = if backward { 8.0 } else { 2.0 };
    Ok(Case {
        family: "contrastive",
        kernel: if backward { "clip_loss_and_backward" } else { "clip_loss" },
        variant: String::new(),
        shape: vec![n, dim],
        work: Work::Flops(products * n as f64 * n as f64 * dim as f64),
        run: Box::new(run),
    })
}

fn step(device: &Device, dtype: DType, len: usize) -> Result<Case> {
    let p = AdamW { beta1: 0.9, beta2: 0.98, eps: 1e-8, step: 1, stochastic: None };
    let all = [Segment { range: 0..len, lr: 1e-3, weight_decay: 0.1 }];
    let (mut weights, grads) = (random(device, DType::F32, [len])?, random(device, DType::F32, [len])?);
    let (mut m, mut v) = (Tensor::zeros(device, DType::F32, [len])?, Tensor::zeros(device, DType::F32, [len])?);
    let mut low = (dtype == DType::BF16).then(|| output(device, dtype, [len])).transpose()?;
    // Weights, m and v are read and written, gradients read, the bf16 copy written.
    let bytes = len * (7 * 4 + if low.is_some() { 2 } else { 0 });
    let run = move || {
        let low = low.as_mut().map(Tensor::view_mut).transpose()?;
        let (weights, m, v) = (weights.view_mut()?, m.view_mut()?, v.view_mut()?);
        Ok(adamw(&p, &all, State { weights, grads: grads.view(), m, v, low }, None)?)
    };
    Ok(Case {
        family: "optimizer",
        kernel: "adamw",
        variant: String::new(),
        shape: vec![len],
        work: Work::Bytes(bytes as f64),
        run: Box::new(run),
    })
}
