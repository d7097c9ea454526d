"""The models of `lenslet bench step` in PyTorch, written as its users write them: nn.Linear, scaled_dot_product_attention, the fused
AdamW."""

import torch
from torch import nn
from torch.nn import functional as F

SIZES = {
    "S": dict(image=64, patch=8, vit=(128, 4, 4), qformer=(8, 128, 2, 4), decoder=(128, 4, 4, 4, 344), vocab=512, text=32, batch=32),
    "M": dict(image=96, patch=8, vit=(256, 6, 8), qformer=(8, 256, 4, 8), decoder=(256, 6, 8, 8, 688), vocab=2048, text=64, batch=16),
    "L": dict(
        image=224, patch=16, vit=(768, 12, 12), qformer=(32, 768, 4, 12), decoder=(576, 30, 9, 3, 1536), vocab=49152, text=128, batch=1
    ),
}


def split(x, heads):
    return x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def join(x):
    return x.transpose(1, 2).flatten(2)


class Attention(nn.Module):
    def __init__(self, dim, heads, source=None):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k, self.v = nn.Linear(source or dim, dim), nn.Linear(source or dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x, source=None):
        source = x if source is None else source
        q, k, v = split(self.q(x), self.heads), split(self.k(source), self.heads), split(self.v(source), self.heads)
        return self.out(join(F.scaled_dot_product_attention(q, k, v)))


class FeedForward(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class VitBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.feed = nn.LayerNorm(dim), FeedForward(dim)

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class Vit(nn.Module):
    def __init__(self, image, patch, dim, blocks, heads):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, patch, patch)
        self.class_token = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.positions = nn.Parameter(torch.randn((image // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.ModuleList(VitBlock(dim, heads) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)

    def forward(self, pixels):
        x = self.patches(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.norm(x)


class QFormerBlock(nn.Module):
    def __init__(self, dim, heads, source):
        super().__init__()
        self.attention, self.norm1 = Attention(dim, heads), nn.LayerNorm(dim)
        self.cross = Attention(dim, heads, source) if source else None
        self.norm2 = nn.LayerNorm(dim) if source else None
        self.feed, self.norm3 = FeedForward(dim), nn.LayerNorm(dim)

    def forward(self, x, image):
        x = self.norm1(x + self.attention(x))
        if self.cross is not None:
            x = self.norm2(x + self.cross(x, image))
        return self.norm3(x + self.feed(x))


class QFormer(nn.Module):
    def __init__(self, queries, dim, blocks, heads, source):
        super().__init__()
        self.queries, self.norm = nn.Parameter(torch.randn(1, queries, dim) * 0.02), nn.LayerNorm(dim)
        self.blocks = nn.ModuleList(QFormerBlock(dim, heads, source if i % 2 == 0 else None) for i in range(blocks))

    def forward(self, image):
        x = self.norm(self.queries).expand(len(image), -1, -1)
        for block in self.blocks:
            x = block(x, image)
        return x


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    turned = torch.cat([-x[..., half:], x[..., :half]], -1)
    return x * cos + turned * sin


class DecoderBlock(nn.Module):
    def __init__(self, dim, heads, kv_heads, gated):
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        width = dim // heads * kv_heads
        self.norm1, self.norm2 = nn.RMSNorm(dim, eps=1e-5), nn.RMSNorm(dim, eps=1e-5)
        self.q, self.out = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.k, self.v = nn.Linear(dim, width, bias=False), nn.Linear(dim, width, bias=False)
        self.gate, self.up = nn.Linear(dim, gated, bias=False), nn.Linear(dim, gated, bias=False)
        self.down = nn.Linear(gated, dim, bias=False)

    def forward(self, x, cos, sin):
        y = self.norm1(x)
        q, k = rotate(split(self.q(y), self.heads), cos, sin), rotate(split(self.k(y), self.kv_heads), cos, sin)
        v = split(self.v(y), self.kv_heads)
        grouped = self.heads != self.kv_heads
        x = x + self.out(join(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)))
        y = self.norm2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Vlm(nn.Module):
    def __init__(self, image, patch, vit, qformer, decoder, vocab, text, batch):
        super().__init__()
        dim, blocks, heads, kv_heads, gated = decoder
        self.vision = Vit(image, patch, *vit)
        self.qformer = QFormer(*qformer, vit[0])
        self.project = nn.Linear(qformer[1], dim)
        self.embed = nn.Embedding(vocab, dim)
        nn.init.normal_(self.embed.weight, std=0.02)
        self.blocks = nn.ModuleList(DecoderBlock(dim, heads, kv_heads, gated) for _ in range(blocks))
        self.norm = nn.RMSNorm(dim, eps=1e-5)
        angles = torch.outer(torch.arange(qformer[0] + text).float(), 1000.0 ** (-torch.arange(0, dim // heads, 2) / (dim // heads)))
        self.register_buffer("cos", torch.cat([angles, angles], -1).cos())
        self.register_buffer("sin", torch.cat([angles, angles], -1).sin())
        self.slots = qformer[0]

    def forward(self, pixels, ids):
        x = torch.cat([self.project(self.qformer(self.vision(pixels))), self.embed(ids)], 1)
        for block in self.blocks:
            x = block(x, self.cos.to(x.dtype), self.sin.to(x.dtype))
        hidden = self.norm(x[:, self.slots : -1])
        logits = F.linear(hidden, self.embed.weight)
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
