//! The models of `models.py` in candle, written as its users write them. Its fused norms, softmax and rotary positions have no
//! derivatives: what trains is put together from operations that have.

use candle_core::{D, DType, Module, Result, Tensor};
use candle_nn::ops::{layer_norm_slow, rms_norm_slow, softmax};
use candle_nn::{Embedding, Init, Linear, VarBuilder};

/// So small that the first loss is near the logarithm of the vocabulary.
const WEIGHTS: Init = Init::Randn { mean: 0.0, stdev: 0.02 };
const THETA: f32 = 1000.0;
const EPS: f32 = 1e-5;

/// `models.py` names the same shapes.
pub struct Shape {
    pub image: usize,
    pub patch: usize,
    /// Width, blocks, heads.
    pub vit: (usize, usize, usize),
    /// Queries, width, blocks, heads.
    pub qformer: (usize, usize, usize, usize),
    /// Width, blocks, heads, heads of keys and values, width of the gated layer.
    pub decoder: (usize, usize, usize, usize, usize),
    pub vocab: usize,
    pub text: usize,
    pub batch: usize,
}

impl Shape {
    pub fn named(size: &str) -> Option<Shape> {
        Some(match size {
            "S" => Shape {
                image: 64,
                patch: 8,
                vit: (128, 4, 4),
                qformer: (8, 128, 2, 4),
                decoder: (128, 4, 4, 4, 344),
                vocab: 512,
                text: 32,
                batch: 32,
            },
            "M" => Shape {
                image: 96,
                patch: 8,
                vit: (256, 6, 8),
                qformer: (8, 256, 4, 8),
                decoder: (256, 6, 8, 8, 688),
                vocab: 2048,
                text: 64,
                batch: 16,
            },
            "L" => Shape {
                image: 224,
                patch: 16,
                vit: (768, 12, 12),
                qformer: (32, 768, 4, 12),
                decoder: (576, 30, 9, 3, 1536),
                vocab: 49152,
                text: 128,
                batch: 1,
            },
            _ => return None,
        })
    }
}

fn linear(input: usize, output: usize, bias: bool, vb: VarBuilder) -> Result<Linear> {
    let weight = vb.get_with_hints((output, input), "weight", WEIGHTS)?;
    let zeros = |vb: VarBuilder| vb.get_with_hints(output, "bias", Init::Const(0.0));
    Ok(Linear::new(weight, bias.then(|| zeros(vb)).transpose()?))
}

/// `(batch, tokens, heads * n)` to `(batch, heads, tokens, n)`.
fn split(x: &Tensor, heads: usize) -> Result<Tensor> {
    let (batch, tokens, dim) = x.dims3()?;
    x.reshape((batch, tokens, heads, dim / heads))?
        .transpose(1, 2)?
        .contiguous()
}

fn join(x: &Tensor) -> Result<Tensor> {
    x.transpose(1, 2)?.flatten_from(2)
}

fn attend(q: &Tensor, k: &Tensor, v: &Tensor, mask: Option<&Tensor>) -> Result<Tensor> {
    let scale = (q.dim(D::Minus1)? as f64).sqrt().recip();
    let scores = (q * scale)?.matmul(&k.t()?)?;
    let scores = match mask {
        Some(mask) => scores.broadcast_add(mask)?,
        None => scores,
    };
    softmax(&scores, D::Minus1)?.matmul(v)
}

struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    fn new(dim: usize, vb: VarBuilder) -> Result<LayerNorm> {
        Ok(LayerNorm {
            weight: vb.get_with_hints(dim, "weight", Init::Const(1.0))?,
            bias: vb.get_with_hints(dim, "bias", Init::Const(0.0))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm_slow(x, &self.weight, &self.bias, EPS)
    }
}

struct RmsNorm {
    weight: Tensor,
}

impl RmsNorm {
    fn new(dim: usize, vb: VarBuilder) -> Result<RmsNorm> {
        let weight = vb.get_with_hints(dim, "weight", Init::Const(1.0))?;
        Ok(RmsNorm { weight })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        rms_norm_slow(x, &self.weight, EPS)
    }
}

struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn new(dim: usize, source: usize, heads: usize, vb: VarBuilder) -> Result<Attention> {
        Ok(Attention {
            q: linear(dim, dim, true, vb.pp("q"))?,
            k: linear(source, dim, true, vb.pp("k"))?,
            v: linear(source, dim, true, vb.pp("v"))?,
            out: linear(dim, dim, true, vb.pp("out"))?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor, source: &Tensor) -> Result<Tensor> {
        let q = split(&self.q.forward(x)?, self.heads)?;
        let k = split(&self.k.forward(source)?, self.heads)?;
        let v = split(&self.v.forward(source)?, self.heads)?;
        self.out.forward(&join(&attend(&q, &k, &v, None)?)?)
    }
}

struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn new(dim: usize, vb: VarBuilder) -> Result<FeedForward> {
        Ok(FeedForward {
            up: linear(dim, 4 * dim, true, vb.pp("up"))?,
            down: linear(4 * dim, dim, true, vb.pp("down"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.forward(x)?.gelu_erf()?)
    }
}

struct VitBlock {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    feed: FeedForward,
}

impl VitBlock {
    fn new(dim: usize, heads: usize, vb: VarBuilder) -> Result<VitBlock> {
        Ok(VitBlock {
            norm1: LayerNorm::new(dim, vb.pp("norm1"))?,
            attention: Attention::new(dim, dim, heads, vb.pp("attention"))?,
            norm2: LayerNorm::new(dim, vb.pp("norm2"))?,
            feed: FeedForward::new(dim, vb.pp("feed"))?,
        })
    }

    fn forward(&self, x: Tensor) -> Result<Tensor> {
        let y = self.norm1.forward(&x)?;
        let x = (x + self.attention.forward(&y, &y)?)?;
        let y = self.feed.forward(&self.norm2.forward(&x)?)?;
        x + y
    }
}

struct Vit {
    patches: Linear,
    class_token: Tensor,
    positions: Tensor,
    blocks: Vec<VitBlock>,
    norm: LayerNorm,
    patch: usize,
}

impl Vit {
    fn new(shape: &Shape, vb: VarBuilder) -> Result<Vit> {
        let (dim, blocks, heads) = shape.vit;
        let tokens = (shape.image / shape.patch).pow(2) + 1;
        let block = |i| VitBlock::new(dim, heads, vb.pp(format!("blocks.{i}")));
        Ok(Vit {
            patches: linear(3 * shape.patch * shape.patch, dim, true, vb.pp("patches"))?,
            class_token: vb.get_with_hints((1, 1, dim), "class_token", WEIGHTS)?,
            positions: vb.get_with_hints((tokens, dim), "positions", WEIGHTS)?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            norm: LayerNorm::new(dim, vb.pp("norm"))?,
            patch: shape.patch,
        })
    }

    /// Pixels (batch, 3, height, width) to (batch, patches, numbers of a patch): what a convolution whose stride is its
    /// kernel's width sees, so that a matrix product can do it.
    fn cut(&self, pixels: &Tensor) -> Result<Tensor> {
        let (batch, colours, height, width) = pixels.dims4()?;
        let (p, rows, columns) = (self.patch, height / self.patch, width / self.patch);
        pixels
            .reshape(&[batch, colours, rows, p, columns, p][..])?
            .permute([0, 2, 4, 1, 3, 5])?
            .reshape((batch, rows * columns, colours * p * p))
    }

    fn forward(&self, pixels: &Tensor) -> Result<Tensor> {
        let x = self.patches.forward(&self.cut(pixels)?)?;
        let (batch, _, dim) = x.dims3()?;
        let x = Tensor::cat(&[&self.class_token.expand((batch, 1, dim))?, &x], 1)?;
        let x = x.broadcast_add(&self.positions)?;
        let x = self.blocks.iter().try_fold(x, |x, block| block.forward(x))?;
        self.norm.forward(&x)
    }
}

struct QFormerBlock {
    attention: Attention,
    norm1: LayerNorm,
    cross: Option<(Attention, LayerNorm)>,
    feed: FeedForward,
    norm3: LayerNorm,
}

impl QFormerBlock {
    fn new(dim: usize, heads: usize, source: Option<usize>, vb: VarBuilder) -> Result<QFormerBlock> {
        let cross = |source| {
            let attention = Attention::new(dim, source, heads, vb.pp("cross"))?;
            Result::Ok((attention, LayerNorm::new(dim, vb.pp("norm2"))?))
        };
        Ok(QFormerBlock {
            attention: Attention::new(dim, dim, heads, vb.pp("attention"))?,
            norm1: LayerNorm::new(dim, vb.pp("norm1"))?,
            cross: source.map(cross).transpose()?,
            feed: FeedForward::new(dim, vb.pp("feed"))?,
            norm3: LayerNorm::new(dim, vb.pp("norm3"))?,
        })
    }

    fn forward(&self, x: Tensor, image: &Tensor) -> Result<Tensor> {
        let mut x = self.norm1.forward(&(&x + self.attention.forward(&x, &x)?)?)?;
        if let Some((cross, norm)) = &self.cross {
            x = norm.forward(&(&x + cross.forward(&x, image)?)?)?;
        }
        self.norm3.forward(&(&x + self.feed.forward(&x)?)?)
    }
}

struct QFormer {
    queries: Tensor,
    norm: LayerNorm,
    blocks: Vec<QFormerBlock>,
}

impl QFormer {
    fn new(shape: &Shape, vb: VarBuilder) -> Result<QFormer> {
        let (queries, dim, blocks, heads) = shape.qformer;
        // Every other block looks at the image.
        let source = |i| (i % 2 == 0).then_some(shape.vit.0);
        let block = |i| QFormerBlock::new(dim, heads, source(i), vb.pp(format!("blocks.{i}")));
        Ok(QFormer {
            queries: vb.get_with_hints((1, queries, dim), "queries", WEIGHTS)?,
            norm: LayerNorm::new(dim, vb.pp("norm"))?,
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
        })
    }

    fn forward(&self, image: &Tensor) -> Result<Tensor> {
        let x = self.norm.forward(&self.queries)?;
        let (_, queries, dim) = x.dims3()?;
        let x = x.expand((image.dim(0)?, queries, dim))?.contiguous()?;
        self.blocks.iter().try_fold(x, |x, block| block.forward(x, image))
    }
}

/// What all blocks of the decoder share: rotary positions by halves, and the mask of what comes later.
struct Places {
    cos: Tensor,
    sin: Tensor,
    mask: Tensor,
}

impl Places {
    fn new(tokens: usize, head_dim: usize, vb: &VarBuilder) -> Result<Places> {
        let angle = |place, i| place as f32 * THETA.powf(-((2 * i % head_dim) as f32) / head_dim as f32);
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> = (0..tokens * head_dim)
                .map(|at| function(angle(at / head_dim, at % head_dim)))
                .collect();
            Tensor::from_vec(values, (tokens, head_dim), vb.device())?.to_dtype(vb.dtype())
        };
        let later = |at: usize| {
            if at % tokens > at / tokens {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        };
        let mask: Vec<f32> = (0..tokens * tokens).map(later).collect();
        Ok(Places {
            cos: table(f32::cos)?,
            sin: table(f32::sin)?,
            mask: Tensor::from_vec(mask, (tokens, tokens), vb.device())?.to_dtype(vb.dtype())?,
        })
    }

    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let half = x.dim(D::Minus1)? / 2;
        let (first, second) = (x.narrow(D::Minus1, 0, half)?, x.narrow(D::Minus1, half, half)?);
        let turned = Tensor::cat(&[&second.neg()?, &first], D::Minus1)?;
        x.broadcast_mul(&self.cos)? + turned.broadcast_mul(&self.sin)?
    }
}

struct DecoderBlock {
    norm1: RmsNorm,
    norm2: RmsNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    gate: Linear,
    up: Linear,
    down: Linear,
    heads: usize,
    kv_heads: usize,
}

impl DecoderBlock {
    fn new(shape: &Shape, vb: VarBuilder) -> Result<DecoderBlock> {
        let (dim, _, heads, kv_heads, gated) = shape.decoder;
        let linear = |input, output, name| linear(input, output, false, vb.pp(name));
        let kv_dim = dim / heads * kv_heads;
        Ok(DecoderBlock {
            norm1: RmsNorm::new(dim, vb.pp("norm1"))?,
            norm2: RmsNorm::new(dim, vb.pp("norm2"))?,
            q: linear(dim, dim, "q")?,
            k: linear(dim, kv_dim, "k")?,
            v: linear(dim, kv_dim, "v")?,
            out: linear(dim, dim, "out")?,
            gate: linear(dim, gated, "gate")?,
            up: linear(dim, gated, "up")?,
            down: linear(gated, dim, "down")?,
            heads,
            kv_heads,
        })
    }

    /// Gives every query its key or value: each serves a group of neighbours.
    fn repeat(&self, x: Tensor) -> Result<Tensor> {
        let (batch, heads, tokens, dim) = x.dims4()?;
        let group = self.heads / self.kv_heads;
        if group == 1 {
            return Ok(x);
        }
        x.unsqueeze(2)?
            .expand((batch, heads, group, tokens, dim))?
            .reshape((batch, self.heads, tokens, dim))
    }

    fn forward(&self, x: Tensor, places: &Places) -> Result<Tensor> {
        let y = self.norm1.forward(&x)?;
        let q = places.turn(&split(&self.q.forward(&y)?, self.heads)?)?;
        let k = places.turn(&split(&self.k.forward(&y)?, self.kv_heads)?)?;
        let v = split(&self.v.forward(&y)?, self.kv_heads)?;
        let y = attend(&q, &self.repeat(k)?, &self.repeat(v)?, Some(&places.mask))?;
        let x = (x + self.out.forward(&join(&y)?)?)?;
        let y = self.norm2.forward(&x)?;
        let y = (self.gate.forward(&y)?.silu()? * self.up.forward(&y)?)?;
        x + self.down.forward(&y)?
    }
}

pub struct Vlm {
    vision: Vit,
    qformer: QFormer,
    project: Linear,
    embed: Embedding,
    blocks: Vec<DecoderBlock>,
    norm: RmsNorm,
    places: Places,
    slots: usize,
}

impl Vlm {
    pub fn new(shape: &Shape, vb: VarBuilder) -> Result<Vlm> {
        let (dim, blocks, heads, ..) = shape.decoder;
        let (slots, width, ..) = shape.qformer;
        let block = |i| DecoderBlock::new(shape, vb.pp(format!("blocks.{i}")));
        let table = vb.get_with_hints((shape.vocab, dim), "embed", WEIGHTS)?;
        Ok(Vlm {
            vision: Vit::new(shape, vb.pp("vision"))?,
            qformer: QFormer::new(shape, vb.pp("qformer"))?,
            project: linear(width, dim, true, vb.pp("project"))?,
            embed: Embedding::new(table, dim),
            blocks: (0..blocks).map(block).collect::<Result<_>>()?,
            norm: RmsNorm::new(dim, vb.pp("norm"))?,
            places: Places::new(slots + shape.text, dim / heads, &vb)?,
            slots,
        })
    }

    /// The mean loss of every text token but the first.
    pub fn forward(&self, pixels: &Tensor, ids: &Tensor) -> Result<Tensor> {
        let image = self
            .project
            .forward(&self.qformer.forward(&self.vision.forward(pixels)?)?)?;
        let x = Tensor::cat(&[&image, &self.embed.forward(ids)?], 1)?;
        let x = self
            .blocks
            .iter()
            .try_fold(x, |x, block| block.forward(x, &self.places))?;
        let seen = ids.dim(1)? - 1;
        let hidden = self.norm.forward(&x.narrow(1, self.slots, seen)?)?;
        let logits = hidden.flatten(0, 1)?.matmul(&self.embed.embeddings().t()?)?;
        let targets = ids.narrow(1, 1, seen)?.flatten_all()?;
        candle_nn::loss::cross_entropy(&logits.to_dtype(DType::F32)?, &targets)
    }
}
