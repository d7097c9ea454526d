//! A block whose inside is computed again in backward instead of being kept.

use crate::error::Result;
use crate::tape::{Context, Leaf, Op, Tape, Var};
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
        let Some(params) = context.params else {
            return Ok(vec![None; self.inputs.len() + 1]);
        };
        let tape = Tape::new();
        let graph = Graph::replay(params, Some(tape.clone()), self.seed, self.drawn);
        let leaf = |(input, needed): (&Var, &bool)| {
            if *needed {
                tape.leaf(input.tensor().clone())
            } else {
                input.clone()
            }
        };
        let inputs: Vec<Var> = self.inputs.iter().zip(&context.needs).map(leaf).collect();
        let y = (self.run)(&graph, &inputs)?;
        let mut found: Vec<(usize, Tensor)> = Vec::new();
        let sink = &mut *context.sink;
        tape.backward_from(&y, dy, Some(params), &mut |leaf, gradient| match leaf {
            Leaf::Node(index) => {
                found.push((index, gradient));
                Ok(())
            }
            param => sink(param, gradient),
        })?;
        let mut take = |input: &Var| {
            let place = found.iter().position(|(index, _)| input.is_leaf(*index))?;
            Some(found.swap_remove(place).1)
        };
        let mut gradients: Vec<Option<Tensor>> = inputs.iter().map(&mut take).collect();
        gradients.push(None);
        Ok(gradients)
    }
}
