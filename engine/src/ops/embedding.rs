//! Rows of a table, by id.

use crate::Tensor;
use crate::error::Result;
use crate::tape::{Context, Op, Var, record};
use kernels::embedding as kernel;

/// `table[ids]`: table (vocab, dim), ids (…) I32 → (…, dim). Also gathers entries of a batch:
/// the table may have more dimensions, `(entries, …)`, and whole entries are taken.
///
/// # Errors
/// When an id is outside the table.
pub fn embedding(table: &Var, ids: &Tensor) -> Result<Var> {
    let out = table.tensor().select(ids)?;
    let (ids, table_tensor) = (ids.clone(), table.tensor().clone());
    Ok(record(&[table], out, || Embedding { ids, table: table_tensor }))
}

struct Embedding {
    ids: Tensor,
    table: Tensor,
}

impl Op for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let Embedding { ids, table } = *self;
        let (vocab, dim) = (table.shape()[0], table.shape()[1..].iter().product());
        let dtable = context.gradient(0, &table, |dtable, add| {
            Ok(kernel::embedding_backward(ids.view(), dy.view(), dtable, vocab, dim, add)?)
        })?;
        Ok(vec![dtable])
    }
}
