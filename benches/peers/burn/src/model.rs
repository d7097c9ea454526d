//! The models of `models.py` in burn, written as its users write them.

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::nn::{
    Embedding, EmbeddingConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig,
};
use burn::prelude::*;
use burn::tensor::activation::{gelu, silu};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;

/// So small that the first loss is near the logarithm of the vocabulary.
const WEIGHTS: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };
const THETA: f32 = 1000.0;

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

fn linear(input: usize, output: usize, bias: bool, device: &Device) -> Linear {
    LinearConfig::new(input, output)
        .with_bias(bias)
        .with_initializer(WEIGHTS)
        .init(device)
}

fn layer_norm(dim: usize, device: &Device) -> LayerNorm {
    LayerNormConfig::new(dim).init(device)
}

/// `[batch, tokens, heads * n]` to `[batch, heads, tokens, n]`.
fn split(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, dim] = x.dims();
    x.reshape([batch, tokens, heads, dim / heads]).swap_dims(1, 2)
}

fn join(x: Tensor<4>) -> Tensor<3> {
    x.swap_dims(1, 2).flatten(2, 3)
}

/// burn's own attention: one kernel where nothing is differentiated; here matrix products and their softmax, no slower than written
/// out.
fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, is_causal: bool) -> Tensor<4> {
    let options = AttentionModuleOptions {
        is_causal,
        ..Default::default()
    };
    attention(q, k, v, None, None, options)
}

#[derive(Module, Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
}

impl Attention {
    fn new(dim: usize, source: usize, heads: usize, device: &Device) -> Attention {
        let [q, out] = [dim, dim].map(|input| linear(input, dim, true, device));
        let [k, v] = [source, source].map(|input| linear(input, dim, true, device));
        Attention { q, k, v, out, heads }
    }

    fn forward(&self, x: Tensor<3>, source: Tensor<3>) -> Tensor<3> {
        let q = split(self.q.forward(x), self.heads);
        let k = split(self.k.forward(source.clone()), self.heads);
        let v = split(self.v.forward(source), self.heads);
        self.out.forward(join(attend(q, k, v, false)))
    }
}

#[derive(Module, Debug)]
struct FeedForward {
    up: Linear,
    down: Linear,
}

impl FeedForward {
    fn new(dim: usize, device: &Device) -> FeedForward {
        FeedForward {
            up: linear(dim, 4 * dim, true, device),
            down: linear(4 * dim, dim, true, device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.down.forward(gelu(self.up.forward(x)))
    }
}

#[derive(Module, Debug)]
struct VitBlock {
    norm1: LayerNorm,
    attention: Attention,
    norm2: LayerNorm,
    feed: FeedForward,
}

impl VitBlock {
    fn new(dim: usize, heads: usize, device: &Device) -> VitBlock {
        let [norm1, norm2] = [dim, dim].map(|dim| layer_norm(dim, device));
        let attention = Attention::new(dim, dim, heads, device);
        VitBlock {
            norm1,
            attention,
            norm2,
            feed: FeedForward::new(dim, device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.norm1.forward(x.clone());
        let x = x + self.attention.forward(y.clone(), y);
        x.clone() + self.feed.forward(self.norm2.forward(x))
    }
}

#[derive(Module, Debug)]
struct Vit {
    patches: Conv2d,
    class_token: Param<Tensor<3>>,
    positions: Param<Tensor<2>>,
    blocks: Vec<VitBlock>,
    norm: LayerNorm,
}

impl Vit {
    fn new(shape: &Shape, device: &Device) -> Vit {
        let (dim, blocks, heads) = shape.vit;
        let kernel = [shape.patch; 2];
        Vit {
            patches: Conv2dConfig::new([3, dim], kernel)
                .with_stride(kernel)
                .with_initializer(WEIGHTS)
                .init(device),
            class_token: WEIGHTS.init([1, 1, dim], device),
            positions: WEIGHTS.init([(shape.image / shape.patch).pow(2) + 1, dim], device),
            blocks: (0..blocks).map(|_| VitBlock::new(dim, heads, device)).collect(),
            norm: layer_norm(dim, device),
        }
    }

    fn forward(&self, pixels: Tensor<4>) -> Tensor<3> {
        let x = self.patches.forward(pixels).flatten(2, 3).swap_dims(1, 2);
        let [batch, _, dim] = x.dims();
        let x = Tensor::cat(vec![self.class_token.val().expand([batch, 1, dim]), x], 1);
        let x = x + self.positions.val().unsqueeze();
        self.norm
            .forward(self.blocks.iter().fold(x, |x, block| block.forward(x)))
    }
}

#[derive(Module, Debug)]
struct QFormerBlock {
    attention: Attention,
    norm1: LayerNorm,
    cross: Option<Attention>,
    norm2: Option<LayerNorm>,
    feed: FeedForward,
    norm3: LayerNorm,
}

impl QFormerBlock {
    fn new(dim: usize, heads: usize, source: Option<usize>, device: &Device) -> QFormerBlock {
        QFormerBlock {
            attention: Attention::new(dim, dim, heads, device),
            norm1: layer_norm(dim, device),
            cross: source.map(|source| Attention::new(dim, source, heads, device)),
            norm2: source.map(|_| layer_norm(dim, device)),
            feed: FeedForward::new(dim, device),
            norm3: layer_norm(dim, device),
        }
    }

    fn forward(&self, x: Tensor<3>, image: Tensor<3>) -> Tensor<3> {
        let mut x = self.norm1.forward(x.clone() + self.attention.forward(x.clone(), x));
        if let (Some(cross), Some(norm)) = (&self.cross, &self.norm2) {
            x = norm.forward(x.clone() + cross.forward(x, image));
        }
        self.norm3.forward(x.clone() + self.feed.forward(x))
    }
}

#[derive(Module, Debug)]
struct QFormer {
    queries: Param<Tensor<3>>,
    norm: LayerNorm,
    blocks: Vec<QFormerBlock>,
}

impl QFormer {
    fn new(shape: &Shape, device: &Device) -> QFormer {
        let (queries, dim, blocks, heads) = shape.qformer;
        // Every other block looks at the image.
        let block = |i| QFormerBlock::new(dim, heads, (i % 2 == 0).then_some(shape.vit.0), device);
        QFormer {
            queries: WEIGHTS.init([1, queries, dim], device),
            norm: layer_norm(dim, device),
            blocks: (0..blocks).map(block).collect(),
        }
    }

    fn forward(&self, image: Tensor<3>) -> Tensor<3> {
        let x = self.norm.forward(self.queries.val());
        let [_, queries, dim] = x.dims();
        let x = x.expand([image.dims()[0], queries, dim]);
        self.blocks.iter().fold(x, |x, block| block.forward(x, image.clone()))
    }
}

/// Rotary positions by halves: both halves of a head turn by the same angles. (burn's RotaryEncoding turns neighbours.)
#[derive(Module, Debug)]
struct Rotary {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl Rotary {
    fn new(tokens: usize, head_dim: usize, device: &Device) -> Rotary {
        let angle = |place, i| place as f32 * THETA.powf(-((2 * i % head_dim) as f32) / head_dim as f32);
        let angles: Vec<f32> = (0..tokens * head_dim)
            .map(|at| angle(at / head_dim, at % head_dim))
            .collect();
        let table = |function: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().copied().map(function).collect();
            Tensor::from_data(TensorData::new(values, [1, 1, tokens, head_dim]), device)
        };
        Rotary {
            cos: table(f32::cos),
            sin: table(f32::sin),
        }
    }

    fn turn(&self, x: Tensor<4>) -> Tensor<4> {
        let dim = x.dims()[3];
        let [first, second] = [0..dim / 2, dim / 2..dim].map(|half| x.clone().slice_dim(3, half));
        x * self.cos.clone() + Tensor::cat(vec![-second, first], 3) * self.sin.clone()
    }
}

#[derive(Module, Debug)]
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
    fn new(shape: &Shape, device: &Device) -> DecoderBlock {
        let (dim, _, heads, kv_heads, gated) = shape.decoder;
        let linear = |input, output| linear(input, output, false, device);
        let [norm1, norm2] = [dim, dim].map(|dim| RmsNormConfig::new(dim).init(device));
        let [q, out] = [dim, dim].map(|output| linear(dim, output));
        let [k, v] = [dim / heads * kv_heads; 2].map(|output| linear(dim, output));
        let [gate, up] = [gated, gated].map(|output| linear(dim, output));
        DecoderBlock {
            norm1,
            norm2,
            q,
            k,
            v,
            out,
            gate,
            up,
            down: linear(gated, dim),
            heads,
            kv_heads,
        }
    }

    /// Gives every query its key or value: each serves a group of neighbours.
    fn repeat(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, heads, tokens, dim] = x.dims();
        let group = self.heads / self.kv_heads;
        if group == 1 {
            return x;
        }
        x.unsqueeze_dim::<5>(2)
            .expand([batch, heads, group, tokens, dim])
            .reshape([batch, self.heads, tokens, dim])
    }

    fn forward(&self, x: Tensor<3>, rotary: &Rotary) -> Tensor<3> {
        let y = self.norm1.forward(x.clone());
        let q = rotary.turn(split(self.q.forward(y.clone()), self.heads));
        let k = rotary.turn(split(self.k.forward(y.clone()), self.kv_heads));
        let v = split(self.v.forward(y), self.kv_heads);
        let y = attend(q, self.repeat(k), self.repeat(v), true);
        let x = x + self.out.forward(join(y));
        let y = self.norm2.forward(x.clone());
        x + self
            .down
            .forward(silu(self.gate.forward(y.clone())) * self.up.forward(y))
    }
}

#[derive(Module, Debug)]
pub struct Vlm {
    vision: Vit,
    qformer: QFormer,
    project: Linear,
    embed: Embedding,
    blocks: Vec<DecoderBlock>,
    norm: RmsNorm,
    rotary: Rotary,
    slots: usize,
}

impl Vlm {
    pub fn new(shape: &Shape, device: &Device) -> Vlm {
        let (dim, blocks, heads, ..) = shape.decoder;
        let (slots, width, ..) = shape.qformer;
        Vlm {
            vision: Vit::new(shape, device),
            qformer: QFormer::new(shape, device),
            project: linear(width, dim, true, device),
            embed: EmbeddingConfig::new(shape.vocab, dim)
                .with_initializer(WEIGHTS)
                .init(device),
            blocks: (0..blocks).map(|_| DecoderBlock::new(shape, device)).collect(),
            norm: RmsNormConfig::new(dim).init(device),
            rotary: Rotary::new(slots + shape.text, dim / heads, device),
            slots,
        }
    }

    /// The mean loss of every text token but the first.
    pub fn forward(&self, pixels: Tensor<4>, ids: Tensor<2, Int>) -> Tensor<1> {
        let image = self.project.forward(self.qformer.forward(self.vision.forward(pixels)));
        let x = Tensor::cat(vec![image, self.embed.forward(ids.clone())], 1);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x, &self.rotary));
        let last = x.dims()[1] - 1;
        let hidden = self.norm.forward(x.slice_dim(1, self.slots..last));
        let logits = hidden.flatten::<2>(0, 1).matmul(self.embed.weight.val().transpose());
        let targets = ids.slice_dim(1, 1..).flatten::<1>(0, 1);
        CrossEntropyLossConfig::new()
            .init(&logits.device())
            .forward(logits, targets)
    }
}
