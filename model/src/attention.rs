//! Multi-head attention as the encoder and the Q-Former use it, and the split into heads all share.

use crate::error::shape;
use crate::linear::{Linear, LinearSpec};
use engine::ops::Attend;
use engine::{Graph, ParamBuilder, Result, Var, ops};

/// Attention of one sequence to another or itself, with four linear layers.
#[derive(Debug, Clone)]
pub(crate) struct MultiHead {
    q: Linear,
    k: Linear,
    v: Linear,
    out: Linear,
    heads: usize,
    dropout: f64,
    attention_dropout: f64,
}

/// How a [`MultiHead`] is made.
pub(crate) struct MultiHeadSpec<'a> {
    /// Names of the query, key, value and output layers.
    pub(crate) names: [&'a str; 4],
    /// The query, key and value layers, from the queries' width.
    pub(crate) query: LinearSpec<'a>,
    /// Width of keys and values.
    pub(crate) key_dim: usize,
    /// The output layer.
    pub(crate) out: LinearSpec<'a>,
    pub(crate) heads: usize,
    /// On the layer's output.
    pub(crate) dropout: f64,
    /// On the weights of attention.
    pub(crate) attention_dropout: f64,
}

impl MultiHead {
    pub(crate) fn new(b: &mut ParamBuilder, spec: MultiHeadSpec<'_>) -> Result<MultiHead> {
        let [q, k, v, out] = spec.names;
        let key = LinearSpec { input: spec.key_dim, ..spec.query };
        Ok(MultiHead {
            q: Linear::new(b, q, spec.query)?,
            k: Linear::new(b, k, key)?,
            v: Linear::new(b, v, key)?,
            out: Linear::new(b, out, spec.out)?,
            heads: spec.heads,
            dropout: spec.dropout,
            attention_dropout: spec.attention_dropout,
        })
    }

    /// `residual + out(attention)`: x (batch, queries, dim), keys and values (batch, tokens, key_dim).
    pub(crate) fn forward(
        &self,
        g: &Graph<'_>,
        x: &Var,
        keys: &Var,
        values: &Var,
        residual: &Var,
        attend: Attend,
    ) -> Result<Var> {
        let heads = self.attend_heads(g, x, keys, values, attend)?;
        self.out.add_to(g, &heads, residual, self.dropout)
    }

    /// `out(attention)`, without a residual.
    pub(crate) fn attend(&self, g: &Graph<'_>, x: &Var, keys: &Var, values: &Var, attend: Attend) -> Result<Var> {
        self.out.forward(g, &self.attend_heads(g, x, keys, values, attend)?)
    }

    fn attend_heads(&self, g: &Graph<'_>, x: &Var, keys: &Var, values: &Var, mut attend: Attend) -> Result<Var> {
        if g.is_training() && self.attention_dropout > 0.0 {
            attend.dropout = (self.attention_dropout, g.dropout_seed());
        }
        let q = split_heads(&self.q.forward(g, x)?, self.heads)?;
        let k = split_heads(&self.k.forward(g, keys)?, self.heads)?;
        let v = split_heads(&self.v.forward(g, values)?, self.heads)?;
        merge_heads(&ops::attention(&q, &k, &v, attend)?)
    }
}

/// (batch, tokens, heads·head_dim) → (batch, tokens, heads, head_dim).
pub(crate) fn split_heads(x: &Var, heads: usize) -> Result<Var> {
    match x.shape()[..] {
        [batch, tokens, dim] if heads > 0 && dim % heads == 0 => ops::reshape(x, [batch, tokens, heads, dim / heads]),
        _ => shape("split_heads", format!("{} does not split into {heads} heads", x.shape())),
    }
}

/// (batch, tokens, heads, head_dim) → (batch, tokens, heads·head_dim).
pub(crate) fn merge_heads(x: &Var) -> Result<Var> {
    match x.shape()[..] {
        [batch, tokens, heads, head_dim] => ops::reshape(x, [batch, tokens, heads * head_dim]),
        _ => shape("merge_heads", format!("{}, expected four dimensions", x.shape())),
    }
}
