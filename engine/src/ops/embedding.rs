//! Rows of a table, by id.

use crate::error::{Result, mismatch};
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};
use kernels::embedding as kernel;

/// `table[ids]`: table (vocab, dim), ids (…) I32 → (…, dim). Also gathers entries of a batch:
/// the table may have more dimensions, `(entries, …)`, and whole entries are taken.
///
/// # Errors
/// When an id is outside the table.
pub fn embedding(table: &Var, ids: &Tensor) -> Result<Var> {
    let Some((&vocab, rest)) = table.shape()[..].split_first().map(|(v, r)| (v, r.to_vec())) else {
        return mismatch("embedding", "the table is a scalar, expected (vocab, dim)");
    };
    let shape = Shape::new(&[&ids.shape()[..], &rest[..]].concat());
    let mut out = Tensor::empty(table.tensor().device(), table.dtype(), shape)?;
    let dim = rest.iter().product();
    kernel::embedding(table.tensor().view(), ids.view(), &mut out.view_mut()?, vocab, dim)?;
    let (ids, shape) = (ids.clone(), table.shape());
    Ok(record(&[table], out, || Embedding { ids, shape, vocab, dim }))
}

struct Embedding {
    ids: Tensor,
    shape: Shape,
    vocab: usize,
    dim: usize,
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn backward(self: Box<Self>, dy: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let mut dtable = Tensor::empty(dy.device(), dy.dtype().accumulator(), self.shape)?;
        kernel::embedding_backward(
            self.ids.view(),
            dy.view(),
            &mut dtable.view_mut()?,
            self.vocab,
            self.dim,
        )?;
        Ok(vec![Some(dtable)])
    }
}
