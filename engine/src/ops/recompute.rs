//! A block whose inside is computed again in backward instead of being kept.

use crate::error::Result;
use crate::tape::{Context, Op, Tape, Var};
use crate::{Graph, Tensor};

/// A block as a function of its inputs.
pub(crate) type Block = Box<dyn Fn(&Graph<'_>, &[Var]) -> Result<Var>>;

/// Recorded by [`Graph::block`].
pub(crate) struct Recompute {
    pub(crate) inputs: Vec<Var>,
    /// The pass's seed and how many dropout seeds it had drawn before the block: the masks come out the same.
    pub(crate) seed: u64,
    pub(crate) drawn: u64,
    pub(crate) run: Block,
}

impl Op for Recompute {
    fn name(&self) -> &'static str {
        "recompute"
    }

    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        let Some((params, gradients)) = context.model.take() else {
            return Ok(vec![None; self.inputs.len() + 1]);
        };
        let tape = Tape::new();
        let graph = Graph::replay(params, Some(tape.clone()), self.seed, self.drawn);
        let leaf = |(input, needed): (&Var, &bool)| {
            if *needed { tape.leaf(input.tensor().clone()) } else { input.clone() }
        };
        let inputs: Vec<Var> = self.inputs.iter().zip(&context.needs).map(leaf).collect();
        let y = (self.run)(&graph, &inputs)?;
        let mut found = tape.backward_from(&y, dy, Some((params, gradients)))?;
        let anchor = None;
        Ok(inputs.iter().map(|input| found.take(input)).chain([anchor]).collect())
    }
}
