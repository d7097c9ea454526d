//! One forward pass over a model's parameters.

use crate::error::Result;
use crate::ops::recompute::Recompute;
use crate::tape::{Tape, Var, record};
use crate::{GradientArena, ParamId, Params, Tensor};
use std::cell::{Cell, RefCell};

/// A forward pass: hands out parameters as variables, seeds for dropout, and knows whether gradients are wanted.
///
/// ```
/// use engine::{DType, Device, Graph, Init, ParamBuilder, Tensor, ops};
/// # fn main() -> engine::Result<()> {
/// let mut builder = ParamBuilder::new();
/// let w = builder.add("w", [2, 3], Init::Ones)?;
/// let params = builder.build(&Device::cpu(), DType::F32, 0)?;
/// let graph = Graph::inference(&params);
/// let x = graph.input(Tensor::from_slice(params.device(), &[1.0f32, 2.0, 3.0], [1, 3])?);
/// assert_eq!(ops::linear(&x, &graph.param(w), None)?.tensor().to_vec::<f32>()?, [6.0, 6.0]);
/// # Ok(())
/// # }
/// ```
pub struct Graph<'p> {
    params: &'p Params,
    tape: Option<Tape>,
    training: bool,
    leaves: RefCell<Vec<Option<Var>>>,
    seed: u64,
    drawn: Cell<u64>,
    recompute: bool,
}

impl<'p> Graph<'p> {
    /// A pass that records for gradients; `seed` drives dropout.
    pub fn training(params: &'p Params, seed: u64) -> Graph<'p> {
        Graph { tape: Some(Tape::new()), training: true, seed, ..Graph::inference(params) }
    }

    /// A pass that records nothing and drops nothing out.
    pub fn inference(params: &'p Params) -> Graph<'p> {
        let leaves = RefCell::new(vec![None; params.len()]);
        Graph { params, tape: None, training: false, leaves, seed: 0, drawn: Cell::new(0), recompute: false }
    }

    /// The pass of one block within this one: the same seeds, from the `drawn`-th on.
    pub(crate) fn replay(params: &'p Params, tape: Option<Tape>, seed: u64, drawn: u64) -> Graph<'p> {
        Graph { tape, training: true, seed, drawn: Cell::new(drawn), ..Graph::inference(params) }
    }

    /// The same pass with [`Graph::block`] keeping only each block's input and computing the rest again in backward.
    pub fn with_recomputation(mut self, recompute: bool) -> Graph<'p> {
        self.recompute = recompute;
        self
    }

    /// The same pass without a record for gradients: what is kept of it is its result.
    pub fn without_gradients(mut self) -> Graph<'p> {
        self.tape = None;
        self
    }

    /// The parameters.
    pub fn params(&self) -> &'p Params {
        self.params
    }

    /// Whether this pass trains: dropout applies.
    pub fn is_training(&self) -> bool {
        self.training
    }

    /// A parameter; recorded as a leaf the first time it is used, unless frozen.
    pub fn param(&self, id: ParamId) -> Var {
        let mut leaves = self.leaves.borrow_mut();
        leaves[id.index()]
            .get_or_insert_with(|| {
                let tensor = self.params.tensor(id);
                match &self.tape {
                    Some(tape) if !self.params.is_frozen(id) => tape.param(id.index(), tensor),
                    _ => Var::constant(tensor),
                }
            })
            .clone()
    }

    /// A tensor no gradient flows to.
    pub fn input(&self, tensor: Tensor) -> Var {
        Var::constant(tensor)
    }

    /// A new seed for dropout; the n-th call of a pass always gets the same.
    pub fn dropout_seed(&self) -> u64 {
        self.drawn.set(self.drawn.get() + 1);
        self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ self.drawn.get().wrapping_mul(0xd1b5_4a32_d192_ed03)
    }

    /// Runs one block of a model on its inputs. With recomputation on, only the inputs are kept and the block runs
    /// again in backward (Chen et al. 2016, "Training deep nets with sublinear memory cost").
    ///
    /// Everything that needs a gradient must come in through `inputs` or be a parameter.
    pub fn block(&self, inputs: &[&Var], run: impl Fn(&Graph<'_>, &[Var]) -> Result<Var> + 'static) -> Result<Var> {
        let tape = match &self.tape {
            Some(tape) if self.recompute => tape,
            _ => return run(self, &inputs.iter().copied().cloned().collect::<Vec<_>>()),
        };
        let detached: Vec<Var> = inputs.iter().map(|v| v.detach()).collect();
        let forward = Graph::replay(self.params, None, self.seed, self.drawn.get());
        let y = run(&forward, &detached)?;
        // The block's parameters want gradients even when no input does: an anchor puts the block on the tape.
        let anchor = tape.leaf(Tensor::empty(self.params.device(), y.dtype(), [1])?);
        let mut recorded = inputs.to_vec();
        recorded.push(&anchor);
        let (seed, drawn) = (self.seed, self.drawn.replace(forward.drawn.get()));
        Ok(record(&recorded, y.tensor().clone(), || Recompute { inputs: detached, seed, drawn, run: Box::new(run) }))
    }

    /// Backward from the loss; the parameters' gradients are added to `gradients`.
    pub fn backward(&self, loss: &Var, gradients: &mut GradientArena) -> Result<()> {
        let Some(tape) = &self.tape else { return Ok(()) };
        self.leaves.borrow_mut().fill(None);
        tape.backward(loss, Some((self.params, gradients)))?;
        Ok(())
    }
}
