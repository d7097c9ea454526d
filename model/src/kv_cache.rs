//! Keys and values of tokens already seen, so that the next token costs one token's work.

use crate::error::shape;
use engine::{Params, Result, Shape, Tensor, Var, ops};

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
        Ok(KvCache {
            layers,
            shape: shape.into(),
            len: 0,
        })
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
        let [_, capacity, heads, head_dim] = self.shape[..] else {
            return shape("cache", "a cache has four dimensions");
        };
        let take = |x: &Tensor| -> Result<Tensor> {
            let ids = Tensor::from_slice(x.device(), entries, [entries.len()])?;
            Ok(ops::embedding(&Var::constant(x.clone()), &ids)?.tensor().clone())
        };
        let layers = self.layers.iter().map(|[k, v]| Ok([take(k)?, take(v)?]));
        Ok(KvCache {
            layers: layers.collect::<Result<_>>()?,
            shape: Shape::from([entries.len(), capacity, heads, head_dim]),
            len: self.len,
        })
    }

    /// Makes room for `tokens` more and hands out each block's part.
    pub(crate) fn reserve(&mut self, tokens: usize) -> Result<impl Iterator<Item = LayerCache<'_>>> {
        let (start, capacity) = (self.len, self.shape[1]);
        if start + tokens > capacity {
            return shape(
                "cache",
                format!("{tokens} tokens after {start} do not fit a capacity of {capacity}"),
            );
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
                0,
                self.start * width,
                batch,
                block,
                block,
                capacity * width,
            )?;
        }
        Ok((Var::constant(held_k.clone()), Var::constant(held_v.clone())))
    }
}
