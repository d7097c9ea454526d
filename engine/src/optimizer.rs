//! AdamW and Muon over the trainable arena, with gradient clipping and accumulation.

use crate::error::{Error, Result};
use crate::{DType, GroupSpec, Params, Shape, Tensor, Update, muon};
use kernels::optimizer as kernel;
use kernels::{View, elementwise};
use std::ops::Range;

/// AdamW's constants (Loshchilov and Hutter 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to the root of the second moment.
    pub eps: f64,
    /// The gradients' largest norm; larger ones are scaled down to it. None: no clipping.
    pub clip: Option<f64>,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW {
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            clip: Some(1.0),
        }
    }
}

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepReport {
    /// The gradients' L2 norm before clipping.
    pub grad_norm: f64,
}

/// Optimiser state for the trainable parameters as they lay when it was made.
#[derive(Debug)]
pub struct Optimizer {
    settings: AdamW,
    gradients: Tensor,
    first: Tensor,
    second: Tensor,
    steps: u64,
}

impl Optimizer {
    /// Zeroed state for the trainable parameters.
    pub fn new(params: &Params, settings: AdamW) -> Result<Optimizer> {
        let zeros = || {
            Tensor::zeros(
                params.device(),
                params.dtype().accumulator(),
                [params.trainable_elements()],
            )
        };
        Ok(Optimizer {
            settings,
            gradients: zeros()?,
            first: zeros()?,
            second: zeros()?,
            steps: 0,
        })
    }

    /// The arena [`crate::Graph::backward`] adds gradients to; several backward passes before a step accumulate.
    pub fn gradients(&mut self) -> &mut Tensor {
        &mut self.gradients
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step with learning rate `lr`, then zeroes the gradients.
    ///
    /// # Errors
    /// [`Error::NotFinite`], before anything changed, when a gradient is not finite.
    pub fn step(&mut self, params: &mut Params, lr: f64) -> Result<StepReport> {
        let grad_norm = sum_squares(self.gradients.view())?.sqrt();
        if !grad_norm.is_finite() {
            return Err(Error::NotFinite {
                name: self.first_bad(params)?,
            });
        }
        let grad_scale = match self.settings.clip {
            Some(limit) if grad_norm > limit => limit / grad_norm,
            _ => 1.0,
        };
        self.steps += 1;
        for (group, range) in params.trainable_groups() {
            match group.update {
                Update::AdamW => self.adamw(params, &group, range, lr, grad_scale)?,
                Update::Muon => {
                    for (shape, range) in params.entries_within(&range) {
                        match shape.len() {
                            2 => self.muon(params, &group, (shape, range), lr, grad_scale)?,
                            _ => self.adamw(params, &group, range, lr, grad_scale)?,
                        }
                    }
                }
            }
        }
        elementwise::fill(&mut self.gradients.view_mut()?, 0.0)?;
        Ok(StepReport { grad_norm })
    }

    fn adamw(
        &mut self,
        params: &mut Params,
        group: &GroupSpec,
        range: Range<usize>,
        lr: f64,
        grad_scale: f64,
    ) -> Result<()> {
        let AdamW { beta1, beta2, eps, .. } = self.settings;
        let step = kernel::AdamW {
            lr: lr * group.lr_scale,
            beta1,
            beta2,
            eps,
            weight_decay: group.weight_decay,
            step: self.steps,
            grad_scale,
        };
        let (start, len) = (range.start, range.len());
        let gradients = self.gradients.slice_flat(start, [len].into());
        let (master, low) = params.arenas_mut();
        let mut low = low.map(|low| low.range_mut("the parameters", start, len)).transpose()?;
        kernel::adamw(
            &step,
            &mut master.range_mut("the parameters", start, len)?,
            gradients.view(),
            &mut self.first.range_mut("optimiser state", start, len)?,
            &mut self.second.range_mut("optimiser state", start, len)?,
            low.as_mut(),
        )?;
        Ok(())
    }

    /// One matrix; its momentum lies where AdamW's first moment would.
    fn muon(
        &mut self,
        params: &mut Params,
        group: &GroupSpec,
        (shape, range): (Shape, Range<usize>),
        lr: f64,
        grad_scale: f64,
    ) -> Result<()> {
        let (start, len, lr) = (range.start, range.len(), lr * group.lr_scale);
        let mut momentum = self.first.slice_flat(start, shape).copy()?;
        let step = muon::direction(&self.gradients.slice_flat(start, shape), &mut momentum, grad_scale)?;
        self.first.write(&momentum, 0, start, 1, len, 0, 0)?;
        let (master, low) = params.arenas_mut();
        let mut weights = Tensor::empty(master.device(), master.dtype(), shape)?;
        elementwise::scale(
            master.slice_flat(start, shape).view(),
            &mut weights.view_mut()?,
            1.0 - lr * group.weight_decay,
        )?;
        elementwise::axpy(step.view(), &mut weights.view_mut()?, lr)?;
        master.write(&weights, 0, start, 1, len, 0, 0)?;
        if let Some(low) = low {
            elementwise::cast(weights.view(), &mut low.range_mut("the parameters", start, len)?)?;
        }
        Ok(())
    }

    fn first_bad(&self, params: &Params) -> Result<String> {
        for (name, range) in params.trainable_entries() {
            let part = self.gradients.slice_flat(range.start, [range.len()].into());
            if !sum_squares(part.view())?.is_finite() {
                return Ok(name.to_string());
            }
        }
        Ok("the gradient norm".into())
    }
}

fn sum_squares(view: View<'_>) -> Result<f64> {
    let mut squares = Tensor::empty(view.device(), DType::F64, [1])?;
    kernel::sum_squares(view, &mut squares.view_mut()?)?;
    squares.item()
}
