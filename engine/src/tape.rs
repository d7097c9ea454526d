//! The tape: an append-only list of what was computed, walked in reverse for gradients.
//!
//! Execution order is already topological, so the walk needs no search. Nodes are consumed on the way, so the
//! activations they saved go back to the pool during the backward pass.

use crate::error::{Error, Result, mismatch};
use crate::{DType, GradientArena, Params, Shape, Tensor};
use kernels::{ViewMut, elementwise};
use std::cell::RefCell;
use std::rc::Rc;

/// A recorded computation: whatever its derivative needs, and the derivative.
///
/// There is no default for `backward`: an op without a derivative is recorded as `NoDerivative`, whose `backward` is an error.
pub(crate) trait Op {
    /// The op's name in errors and profiles.
    fn name(&self) -> &'static str;
    /// From the gradient of the output to those of the inputs, in the order recorded; `None` for an input that
    /// needs none (`context.needs[i]`). Gradients of weights may be in the accumulator's type.
    fn backward(self: Box<Self>, dy: Tensor, context: &mut Context<'_>) -> Result<Vec<Option<Tensor>>>;
}

/// The derivative of an op that has none: meeting it with a gradient is an error that names the op.
pub(crate) struct NoDerivative(pub(crate) &'static str);

impl Op for NoDerivative {
    fn name(&self) -> &'static str {
        self.0
    }
    fn backward(self: Box<Self>, _: Tensor, _: &mut Context<'_>) -> Result<Vec<Option<Tensor>>> {
        Err(Error::NoDerivative { op: self.0 })
    }
}

/// What an op's derivative may ask for.
pub(crate) struct Context<'a> {
    /// Which inputs want a gradient.
    pub(crate) needs: Vec<bool>,
    /// Which inputs are parameters, by number.
    params: Vec<Option<usize>>,
    /// The model that the parameters are of.
    pub(crate) model: Option<Model<'a>>,
}

/// The parameters of a pass, for blocks that are computed again, and where their gradients go.
pub(crate) type Model<'a> = (&'a Params, &'a mut GradientArena);

impl Context<'_> {
    /// The gradient of input `i`, which is `weight`, if it wants one: made by `write`, which hears whether to add it to what is
    /// there. A parameter's goes to where the optimiser finds it, and is not returned.
    pub(crate) fn gradient(
        &mut self,
        i: usize,
        weight: &Tensor,
        write: impl FnOnce(&mut ViewMut<'_>, bool) -> Result<()>,
    ) -> Result<Option<Tensor>> {
        if !self.needs[i] {
            return Ok(None);
        }
        if let (Some(param), Some((_, gradients))) = (self.params[i], &mut self.model) {
            gradients.write(param, write)?;
            return Ok(None);
        }
        let mut gradient = Tensor::empty(weight.device(), weight.dtype().accumulator(), weight.shape())?;
        write(&mut gradient.view_mut()?, false)?;
        Ok(Some(gradient))
    }
}

enum Entry {
    /// A variable made with [`Tape::leaf`].
    Leaf,
    /// A parameter of the model, by number.
    Param(usize),
    Computed {
        op: Box<dyn Op>,
        inputs: Vec<Option<usize>>,
    },
}

struct Node {
    entry: Entry,
    dtype: DType,
    shape: Shape,
}

/// The record of a forward pass; clones share it.
#[derive(Clone, Default)]
pub struct Tape {
    nodes: Rc<RefCell<Vec<Node>>>,
}

/// A tensor and, when gradients are wanted, its place on a tape.
#[derive(Clone)]
pub struct Var {
    tensor: Tensor,
    node: Option<(Tape, usize)>,
}

impl Var {
    /// A tensor no gradient flows to.
    pub fn constant(tensor: Tensor) -> Var {
        Var { tensor, node: None }
    }

    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// The value's shape.
    pub fn shape(&self) -> Shape {
        self.tensor.shape()
    }

    /// The value's type.
    pub fn dtype(&self) -> DType {
        self.tensor.dtype()
    }

    /// The same value, off the tape.
    pub fn detach(&self) -> Var {
        Var::constant(self.tensor.clone())
    }

    /// Whether gradients flow to it.
    pub fn needs_gradient(&self) -> bool {
        self.node.is_some()
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Tape {
        Tape::default()
    }

    /// A variable whose gradient [`Tape::gradients`] returns.
    pub fn leaf(&self, tensor: Tensor) -> Var {
        self.push(Entry::Leaf, tensor)
    }

    pub(crate) fn param(&self, index: usize, tensor: Tensor) -> Var {
        self.push(Entry::Param(index), tensor)
    }

    fn push(&self, entry: Entry, tensor: Tensor) -> Var {
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node { entry, dtype: tensor.dtype(), shape: tensor.shape() });
        let node = Some((self.clone(), nodes.len() - 1));
        Var { tensor, node }
    }

    /// Gradients of a scalar with respect to every leaf. The tape is empty afterwards.
    pub fn gradients(&self, loss: &Var) -> Result<Gradients> {
        self.backward(loss, None)
    }

    /// Walks back from a scalar: parameters' gradients are added to those of `model`, other leaves' are returned.
    pub(crate) fn backward(&self, loss: &Var, model: Option<Model<'_>>) -> Result<Gradients> {
        if loss.shape().elements() != 1 {
            return mismatch("backward", format!("the loss has shape {}, expected a scalar", loss.shape()));
        }
        let one = Tensor::full(loss.tensor.device(), loss.dtype(), loss.shape(), 1.0)?;
        self.backward_from(loss, one, model)
    }

    /// As [`Tape::backward`], from any variable and its gradient.
    pub(crate) fn backward_from(
        &self,
        output: &Var,
        gradient: Tensor,
        mut model: Option<Model<'_>>,
    ) -> Result<Gradients> {
        let mut found = Gradients(Vec::new());
        let Some((tape, start)) = &output.node else {
            return Ok(found);
        };
        debug_assert!(Rc::ptr_eq(&tape.nodes, &self.nodes), "the variable is on another tape");
        let mut nodes = std::mem::take(&mut *self.nodes.borrow_mut());
        nodes.truncate(start + 1);
        let mut slots: Vec<Option<Tensor>> = Vec::new();
        slots.resize_with(start + 1, || None);
        slots[*start] = Some(gradient);
        while let Some(node) = nodes.pop() {
            let Some(dy) = slots.pop().flatten() else { continue };
            match node.entry {
                Entry::Leaf => found.0.push((nodes.len(), dy)),
                Entry::Param(param) => {
                    if let Some((_, gradients)) = &mut model {
                        gradients.add(param, &dy)?;
                    }
                }
                Entry::Computed { op, inputs } => {
                    let needs = inputs.iter().map(Option::is_some).collect();
                    let param = |input: &Option<usize>| match nodes[(*input)?].entry {
                        Entry::Param(param) => Some(param),
                        _ => None,
                    };
                    let params = inputs.iter().map(param).collect();
                    let model = model.as_mut().map(|(params, gradients)| (*params, &mut **gradients));
                    let dy = if dy.dtype() == node.dtype { dy } else { dy.cast(node.dtype)? };
                    let name = op.name();
                    let gradients = op.backward(dy, &mut Context { needs, params, model })?;
                    debug_assert_eq!(gradients.len(), inputs.len(), "{name} returned the wrong number of gradients");
                    for (input, gradient) in inputs.into_iter().zip(gradients) {
                        if let (Some(input), Some(gradient)) = (input, gradient) {
                            debug_assert_eq!(gradient.shape().elements(), nodes[input].shape.elements(), "{name}");
                            accumulate(&mut slots[input], gradient)?;
                        }
                    }
                }
            }
        }
        Ok(found)
    }
}

/// The first gradient is moved in; later ones are added in place.
fn accumulate(slot: &mut Option<Tensor>, gradient: Tensor) -> Result<()> {
    let Some(mut sum) = slot.take() else {
        *slot = Some(gradient);
        return Ok(());
    };
    if sum.dtype() != gradient.dtype() {
        let wide = sum.dtype().accumulator();
        sum = sum.cast(wide)?;
        return accumulate_same(slot, sum, gradient.cast(wide)?);
    }
    accumulate_same(slot, sum, gradient)
}

fn accumulate_same(slot: &mut Option<Tensor>, mut sum: Tensor, gradient: Tensor) -> Result<()> {
    if sum.is_unique() {
        elementwise::axpy(gradient.view(), &mut sum.view_mut()?, 1.0)?;
        *slot = Some(sum);
    } else {
        let mut out = sum.like()?;
        elementwise::add(sum.view(), gradient.view(), &mut out.view_mut()?)?;
        *slot = Some(out);
    }
    Ok(())
}

/// Gradients of the leaves made with [`Tape::leaf`].
pub struct Gradients(Vec<(usize, Tensor)>);

impl Gradients {
    /// The gradient of `var`.
    ///
    /// # Errors
    /// When `var` is no leaf of the tape, or did not take part.
    pub fn of(&self, var: &Var) -> Result<Tensor> {
        match self.place(var) {
            Some(place) => self.0[place].1.reshape(var.shape()),
            None => mismatch("gradients", "the variable is not a leaf that took part in the loss"),
        }
    }

    /// Gives away the gradient of `var`, if it is a leaf that took part.
    pub(crate) fn take(&mut self, var: &Var) -> Option<Tensor> {
        self.place(var).map(|place| self.0.swap_remove(place).1)
    }

    fn place(&self, var: &Var) -> Option<usize> {
        let (_, wanted) = var.node.as_ref()?;
        self.0.iter().position(|(leaf, _)| leaf == wanted)
    }
}

/// Puts `tensor` on the tape of its inputs, if any of them is on one.
pub(crate) fn record<O: Op + 'static>(inputs: &[&Var], tensor: Tensor, op: impl FnOnce() -> O) -> Var {
    let Some((tape, _)) = inputs.iter().find_map(|v| v.node.as_ref()) else {
        return Var::constant(tensor);
    };
    let inputs = inputs.iter().map(|v| v.node.as_ref().map(|(_, index)| *index)).collect();
    tape.push(Entry::Computed { op: Box::new(op()), inputs }, tensor)
}
