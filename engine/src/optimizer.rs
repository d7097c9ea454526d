//! AdamW and Muon over the trainable arena, with gradient clipping and accumulation.

use crate::error::{Error, Result};
use crate::{DType, GroupSpec, Kind, Params, Shape, Tensor, Update, muon};
use kernels::optimizer as kernel;
use kernels::optimizer::NormScale;
use kernels::{View, ViewMut, elementwise};
use rayon::prelude::*;
use std::ops::Range;

/// Matrices that Muon works on at once, whose updates take memory together.
const TOGETHER: usize = 16;

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
    /// Seed by which the weights that AdamW steps are rounded to bf16 at random, up or down by chances that keep the mean;
    /// None: to nearest.
    pub stochastic: Option<u64>,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW {
            beta1: 0.9,
            beta2: 0.98,
            eps: 1e-8,
            clip: Some(1.0),
            stochastic: None,
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
    /// At least one, as long as the trainable parameters.
    gradients: Vec<Tensor>,
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
            gradients: vec![zeros()?],
            first: zeros()?,
            second: zeros()?,
            steps: 0,
        })
    }

    /// The arena [`crate::Graph::backward`] adds gradients to; several backward passes before a step accumulate.
    pub fn gradients(&mut self) -> &mut Tensor {
        &mut self.gradients[0]
    }

    /// `count` such arenas, for backward passes side by side; the step is taken on their sum.
    pub fn separate_gradients(&mut self, count: usize) -> Result<&mut [Tensor]> {
        while self.gradients.len() < count {
            let first = &self.gradients[0];
            let zeros = Tensor::zeros(first.device(), first.dtype(), first.shape())?;
            self.gradients.push(zeros);
        }
        Ok(&mut self.gradients[..count])
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// One step with learning rate `lr`, then zeroes the gradients.
    ///
    /// # Errors
    /// [`Error::NotFinite`], with nothing changed, when a gradient is not finite.
    pub fn step(&mut self, params: &mut Params, lr: f64) -> Result<StepReport> {
        let (sum, others) = self.gradients.split_at_mut(1);
        for other in others {
            elementwise::axpy(other.view(), &mut sum[0].view_mut()?, 1.0)?;
            elementwise::fill(&mut other.view_mut()?, 0.0)?;
        }
        let squares = sum_squares(sum[0].view())?;
        let limit = self.settings.clip.unwrap_or(f64::INFINITY);
        let mut grad_scale = Tensor::empty(params.device(), sum[0].dtype(), [1])?;
        kernel::norm_scale(squares.view(), NormScale::Clip(limit), &mut grad_scale.view_mut()?)?;
        self.update(params, lr, &grad_scale)?;
        // The only number that comes back to the host, after all work has been handed out: where it is not finite, the
        // kernels have changed nothing.
        let grad_norm = squares.item()?.sqrt();
        if !grad_norm.is_finite() {
            return Err(Error::NotFinite {
                name: self.first_bad(params)?,
            });
        }
        self.steps += 1;
        elementwise::fill(&mut self.gradients[0].view_mut()?, 0.0)?;
        Ok(StepReport { grad_norm })
    }

    /// Every group by its rule; nothing changes where `grad_scale` is NaN.
    fn update(&mut self, params: &mut Params, lr: f64, grad_scale: &Tensor) -> Result<()> {
        let (mut segments, mut matrices) = (Vec::new(), Vec::new());
        for (group, range) in params.trainable_groups() {
            let mut segment = |range| {
                segments.push(kernel::Segment {
                    range,
                    lr: lr * group.lr_scale,
                    weight_decay: group.weight_decay,
                });
            };
            match group.update {
                Update::AdamW => segment(range),
                Update::Muon => {
                    let (two, others): (Vec<_>, Vec<_>) = params
                        .entries_within(&range)
                        .into_iter()
                        .partition(|(shape, _)| shape.len() == 2);
                    others.into_iter().for_each(|(_, range)| segment(range));
                    matrices.push((group, two));
                }
            }
        }
        segments.sort_by_key(|segment| segment.range.start);
        self.adamw(params, &segments, grad_scale)?;
        for (group, matrices) in matrices {
            for few in matrices.chunks(TOGETHER) {
                self.muon(params, &group, few, lr, grad_scale)?;
            }
        }
        Ok(())
    }

    fn adamw(&mut self, params: &mut Params, segments: &[kernel::Segment], grad_scale: &Tensor) -> Result<()> {
        let AdamW {
            beta1,
            beta2,
            eps,
            stochastic,
            ..
        } = self.settings;
        let step = self.steps + 1;
        let p = kernel::AdamW {
            beta1,
            beta2,
            eps,
            step,
            stochastic: stochastic.map(|seed| seed.wrapping_add(step)),
        };
        let len = params.trainable_elements();
        let (master, low) = params.arenas_mut();
        let mut low = low.map(|low| low.range_mut("the parameters", 0, len)).transpose()?;
        kernel::adamw(
            &p,
            segments,
            &mut master.range_mut("the parameters", 0, len)?,
            self.gradients[0].view(),
            Some(grad_scale.view()),
            &mut self.first.view_mut()?,
            &mut self.second.view_mut()?,
            low.as_mut(),
        )?;
        Ok(())
    }

    /// Matrices side by side: each alone is too small to share out. Their momentum lies where AdamW's first moment would.
    fn muon(
        &mut self,
        params: &mut Params,
        group: &GroupSpec,
        matrices: &[(Shape, Range<usize>)],
        lr: f64,
        grad_scale: &Tensor,
    ) -> Result<()> {
        let lr = lr * group.lr_scale;
        let (gradients, first) = (&self.gradients[0], &self.first);
        let direction = |(shape, range): &(Shape, Range<usize>)| {
            let mut momentum = first.slice_flat(range.start, *shape).copy()?;
            let step = muon::direction(&gradients.slice_flat(range.start, *shape), &mut momentum, grad_scale)?;
            Ok((step, momentum))
        };
        // A GPU's work comes in the same order each step.
        let least = if params.device().kind() == Kind::Cpu {
            1
        } else {
            TOGETHER
        };
        let directions: Vec<Result<(Tensor, Tensor)>> =
            matrices.par_iter().with_min_len(least).map(direction).collect();
        for ((shape, range), direction) in matrices.iter().zip(directions) {
            let ((step, momentum), start, len) = (direction?, range.start, range.len());
            let replace =
                |new: &Tensor, old: &mut ViewMut<'_>| elementwise::cast_unless_nan(new.view(), grad_scale.view(), old);
            replace(&momentum, &mut self.first.range_mut("optimiser state", start, len)?)?;
            let (master, low) = params.arenas_mut();
            let mut weights = Tensor::empty(master.device(), master.dtype(), *shape)?;
            elementwise::scale(
                master.slice_flat(start, *shape).view(),
                &mut weights.view_mut()?,
                1.0 - lr * group.weight_decay,
            )?;
            elementwise::axpy(step.view(), &mut weights.view_mut()?, lr)?;
            replace(&weights, &mut master.range_mut("the parameters", start, len)?)?;
            if let Some(low) = low {
                replace(&weights, &mut low.range_mut("the parameters", start, len)?)?;
            }
        }
        Ok(())
    }

    fn first_bad(&self, params: &Params) -> Result<String> {
        for (name, range) in params.trainable_entries() {
            let part = self.gradients[0].slice_flat(range.start, [range.len()].into());
            if !sum_squares(part.view())?.item()?.is_finite() {
                return Ok(name.to_string());
            }
        }
        Ok("the gradient norm".into())
    }
}

fn sum_squares(view: View<'_>) -> Result<Tensor> {
    let mut squares = Tensor::empty(view.device(), DType::F64, [1])?;
    kernel::sum_squares(view, &mut squares.view_mut()?)?;
    Ok(squares)
}
