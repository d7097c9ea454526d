//! Rows of a table, by id.

use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use crate::{Shape, Tensor};
use kernels::embedding as kernel;

/// `table[ids]`: table (vocab, dim), ids (…) I32 → (…, dim). Also gathers entries of a batch:
/// the table may have more dimensions, `(entries, …)`, and whole entries are taken.
///
/// # Errors
/// When an id is outside the table.
pub fn embedding(table: &Var, ids: &Tensor) -> Result<Var> {
    let out = table.tensor().select(ids)?;
    let (ids, shape) = (ids.clone(), table.shape());
    let (vocab, dim) = (shape[0], shape[1..].iter().product());
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
