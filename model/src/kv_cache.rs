//! Keys and values of tokens already seen, so that the next token costs one token's work.

use crate::error::shape;
use engine::{Blocks, Device, Params, Result, Shape, Tensor, Var};

/// Keys and values of every block, (batch, capacity, kv_heads, head_dim) each; the first [`KvCache::len`] tokens count.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<[Tensor; 2]>,
    shape: Shape,
    len: usize,
}

/// One block's part of a cache, open for new tokens.
pub(crate) struct LayerCache<'a> {
    kv: &'a mut [Tensor; 2],
    start: usize,
}

impl KvCache {
    pub(crate) fn new(params: &Params, layers: usize, shape: [usize; 4]) -> Result<KvCache> {
        let empty = || Tensor::zeros(params.device(), params.dtype(), shape);
        let layers = (0..layers).map(|_| Ok([empty()?, empty()?])).collect::<Result<_>>()?;
        Ok(KvCache { layers, shape: shape.into(), len: 0 })
    }

    /// Tokens held, of each sequence.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// A cache whose sequence `i` starts as sequence `entries[i]` of this one.
    pub fn gather(&self, entries: &[i32]) -> Result<KvCache> {
        let ids = |device: &Device| Tensor::from_slice(device, entries, [entries.len()]);
        self.rebuilt([entries.len(), self.shape[1]], |x| x.select(&ids(x.device())?))
    }

    /// Moves sequence `i` by `by[i]` tokens towards the end; what then stands in front of it means nothing.
    pub(crate) fn shift(&mut self, by: &[usize]) -> Result<()> {
        let [batch, capacity, heads, head_dim] = self.shape[..] else {
            return shape("cache", "a cache has four dimensions");
        };
        let sources = |(entry, &by): (usize, &usize)| {
            (0..capacity).map(move |token| (entry * capacity + token.saturating_sub(by)) as i32)
        };
        let sources: Vec<i32> = by.iter().enumerate().flat_map(sources).collect();
        *self = self.rebuilt([batch, capacity], |x| {
            let tokens = x.reshape([batch * capacity, heads * head_dim])?;
            tokens.select(&Tensor::from_slice(x.device(), &sources, [batch, capacity])?)
        })?;
        Ok(())
    }

    /// Forgets all tokens but the first `len`.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Makes room for at least `capacity` tokens in all.
    pub(crate) fn grow(&mut self, capacity: usize) -> Result<()> {
        let [batch, held, heads, head_dim] = self.shape[..] else {
            return shape("cache", "a cache has four dimensions");
        };
        if held >= capacity {
            return Ok(());
        }
        let width = heads * head_dim;
        *self = self.rebuilt([batch, capacity], |x| {
            let mut larger = Tensor::zeros(x.device(), x.dtype(), [batch, capacity, heads, head_dim])?;
            larger.write(
                x,
                Blocks {
                    outer: batch,
                    block: held * width,
                    src_stride: held * width,
                    dst_stride: capacity * width,
                    ..Blocks::default()
                },
            )?;
            Ok(larger)
        })?;
        Ok(())
    }

    /// A cache of (batch, capacity) whose keys and values are made from these.
    fn rebuilt(&self, [batch, capacity]: [usize; 2], make: impl Fn(&Tensor) -> Result<Tensor>) -> Result<KvCache> {
        let shape = Shape::from([batch, capacity, self.shape[2], self.shape[3]]);
        let remake = |x: &Tensor| make(x)?.reshape(shape);
        let layers = self.layers.iter().map(|[k, v]| Ok([remake(k)?, remake(v)?]));
        Ok(KvCache { layers: layers.collect::<Result<_>>()?, shape, len: self.len })
    }

    /// Makes room for `tokens` more and hands out each block's part.
    pub(crate) fn reserve(&mut self, tokens: usize) -> Result<impl Iterator<Item = LayerCache<'_>>> {
        let (start, capacity) = (self.len, self.shape[1]);
        if start + tokens > capacity {
            return shape("cache", format!("{tokens} tokens after {start} do not fit a capacity of {capacity}"));
        }
        self.len += tokens;
        Ok(self.layers.iter_mut().map(move |kv| LayerCache { kv, start }))
    }
}

impl LayerCache<'_> {
    /// Writes keys and values (batch, new tokens, kv_heads, head_dim) behind those held; returns all of them.
    pub(crate) fn append(self, k: &Var, v: &Var) -> Result<(Var, Var)> {
        let [held_k, held_v] = self.kv;
        for (held, new) in [(&mut *held_k, k), (&mut *held_v, v)] {
            if new.needs_gradient() {
                return shape("cache", "gradients do not flow through a cache; use an inference graph");
            }
            let ([batch, capacity, ..], [new_batch, tokens, ..]) = (&held.shape()[..], &new.shape()[..]) else {
                return shape("cache", "keys and values have four dimensions");
            };
            if batch != new_batch {
                return shape("cache", format!("holds {batch} sequences, was given {new_batch}"));
            }
            let (batch, capacity, tokens) = (*batch, *capacity, *tokens);
            let width = held.shape()[2] * held.shape()[3];
            let block = tokens * width;
            held.write(
                new.tensor(),
                Blocks {
                    outer: batch,
                    block,
                    src_stride: block,
                    dst_offset: self.start * width,
                    dst_stride: capacity * width,
                    ..Blocks::default()
                },
            )?;
        }
        Ok((Var::constant(held_k.clone()), Var::constant(held_v.clone())))
    }
}
