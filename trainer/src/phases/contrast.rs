//! One contrastive loss over parts that do not fit into memory together, with the gradients of the whole.
//!
//! GradCache (Gao et al. 2021): a first pass over the parts keeps their features alone; the loss over all of them gives each
//! feature's gradient; a second pass, part by part, takes it further back. Both passes draw the same dropout.

use anyhow::{Context, Result};
use engine::{Tape, Tensor, Var, ops};

/// A loss over all parts, and its gradients where the parts' features enter it.
pub struct Contrast {
    /// The loss of all parts together.
    loss: Tensor,
    parts: Vec<[Tensor; 2]>,
    /// Gradients of what else the loss depends on: temperature, bias.
    others: Vec<Tensor>,
    /// All features of images and of texts, each (all, …).
    whole: [Tensor; 2],
}

impl Contrast {
    /// Of the features of each part's images and texts, (part, …) each, by `loss`, which also takes `others`.
    ///
    /// # Errors
    /// Those of `loss`; features of different shapes.
    pub(super) fn of(
        parts: &[[Tensor; 2]],
        others: &[Tensor],
        loss: impl Fn(&Var, &Var, &[Var]) -> Result<Var>,
    ) -> Result<Contrast> {
        let tape = Tape::new();
        let side = |side: usize| -> Result<(Var, Vec<Var>)> {
            let leaves: Vec<Var> = parts.iter().map(|part| tape.leaf(part[side].clone())).collect();
            Ok((stacked(&leaves)?, leaves))
        };
        let ((image, images), (text, texts)) = (side(0)?, side(1)?);
        let others: Vec<Var> = others.iter().map(|other| tape.leaf(other.clone())).collect();
        let value = loss(&image, &text, &others)?;
        let gradients = tape.gradients(&value)?;
        let of = |leaf: &Var| gradients.of(leaf)?.cast(leaf.dtype());
        let pairs = images.iter().zip(&texts).map(|(a, b)| Ok([of(a)?, of(b)?]));
        Ok(Contrast {
            loss: value.tensor().clone(),
            parts: pairs.collect::<engine::Result<_>>()?,
            others: others.iter().map(of).collect::<engine::Result<_>>()?,
            whole: [image.tensor().clone(), text.tensor().clone()],
        })
    }

    /// All images' and all texts' features.
    pub(super) fn features(&self) -> [Var; 2] {
        self.whole.clone().map(Var::constant)
    }

    /// A scalar that has the value of the whole loss and, by the features of part `number` and by `others`, a gradient of
    /// which the mean over the parts is that of the whole loss.
    ///
    /// # Errors
    /// When the features are not those of that part.
    pub(super) fn part(&self, number: usize, features: [&Var; 2], others: &[Var]) -> Result<Var> {
        let of = self.parts.get(number).context("a part that was not there before")?;
        let mut along = ops::add(&inner(features[0], &of[0])?, &inner(features[1], &of[1])?)?;
        along = ops::scale(&along, self.parts.len() as f64)?;
        for (other, gradient) in others.iter().zip(&self.others) {
            along = ops::add(&along, &inner(other, gradient)?)?;
        }
        // The value of what runs along the gradients says nothing: the loss's own takes its place.
        let value = Var::constant(self.loss.cast(along.dtype())?.reshape(along.shape())?);
        let own = ops::scale(&along.detach(), -1.0)?;
        Ok(ops::add(&along, &ops::add(&value, &own)?)?)
    }
}

/// The sum of products with a constant, in f32 at least.
fn inner(x: &Var, gradient: &Tensor) -> Result<Var> {
    let flat = |x: &Var| {
        let wide = x.dtype().accumulator();
        ops::cast(&ops::reshape(x, [x.shape().elements()])?, wide)
    };
    Ok(ops::sum(&ops::mul(&flat(x)?, &flat(&Var::constant(gradient.clone()))?)?)?)
}

fn stacked(parts: &[Var]) -> Result<Var> {
    let first = parts.first().context("no parts")?.shape();
    let width = first.elements() / first[0].max(1);
    let rows: Vec<Var> =
        parts.iter().map(|part| ops::reshape(part, [1, part.shape()[0], width])).collect::<engine::Result<_>>()?;
    let all: usize = parts.iter().map(|part| part.shape()[0]).sum();
    let joined = ops::concat(&rows.iter().collect::<Vec<_>>())?;
    let mut shape = first.to_vec();
    shape[0] = all;
    Ok(ops::reshape(&joined, engine::Shape::new(&shape))?)
}
