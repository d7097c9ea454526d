//! AdamW and Muon over the trainable arena, with gradient clipping and accumulation.

use crate::error::{Error, Result};
use crate::params::clamp;
use crate::{DType, GradientArena, GroupSpec, Kind, Params, Shape, Tensor, Update, muon};
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
    /// Decay of the running average of the weights; None: none is kept.
    pub average: Option<f64>,
}

impl Default for AdamW {
    fn default() -> AdamW {
        AdamW { beta1: 0.9, beta2: 0.98, eps: 1e-8, clip: Some(1.0), stochastic: None, average: None }
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
    gradients: Vec<GradientArena>,
    first: Tensor,
    second: Tensor,
    /// The running average of the weights, at full precision.
    average: Option<Tensor>,
    /// The 16-bit weights while those of the average are in their place.
    raw_weights: Option<Tensor>,
    steps: u64,
}

impl Optimizer {
    /// Zeroed state for the trainable parameters; a running average starts from their values.
    pub fn new(params: &Params, settings: AdamW) -> Result<Optimizer> {
        let zeros = || Tensor::zeros(params.device(), params.dtype().accumulator(), [params.trainable_elements()]);
        Ok(Optimizer {
            settings,
            gradients: vec![GradientArena::new(params)?],
            first: zeros()?,
            second: zeros()?,
            average: settings.average.map(|_| params.arenas().0.copy()).transpose()?,
            raw_weights: None,
            steps: 0,
        })
    }

    /// The arena [`crate::Graph::backward`] adds gradients to; several backward passes before a step accumulate.
    pub fn gradients(&mut self) -> &mut GradientArena {
        &mut self.gradients[0]
    }

    /// `count` such arenas, for backward passes side by side; the step is taken on their sum.
    pub fn separate_gradients(&mut self, params: &Params, count: usize) -> Result<&mut [GradientArena]> {
        while self.gradients.len() < count {
            self.gradients.push(GradientArena::new(params)?);
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
            sum[0].absorb(other)?;
        }
        let gradients = sum[0].tensor()?.clone();
        let squares = sum_squares(gradients.view())?;
        let limit = self.settings.clip.unwrap_or(f64::INFINITY);
        let mut grad_scale = Tensor::empty(params.device(), gradients.dtype(), [1])?;
        kernel::norm_scale(squares.view(), NormScale::Clip(limit), &mut grad_scale.view_mut()?)?;
        self.update(params, lr, &gradients, &grad_scale)?;
        params.apply_bounds()?;
        // The only number that comes back to the host, after all work has been handed out: where it is not finite, the
        // kernels have changed nothing.
        let grad_norm = squares.item()?.sqrt();
        if !grad_norm.is_finite() {
            return Err(Error::NotFinite { name: first_bad(params, &gradients)? });
        }
        self.steps += 1;
        self.gradients[0].clear();
        self.update_ema(params)?;
        Ok(StepReport { grad_norm })
    }

    /// Moves the running average towards the weights: `a += (1 - decay) (w - a)`.
    fn update_ema(&mut self, params: &Params) -> Result<()> {
        if let (Some(average), Some(decay)) = (&mut self.average, self.settings.average) {
            let mut way = params.arenas().0.copy()?;
            elementwise::axpy(average.view(), &mut way.view_mut()?, -1.0)?;
            elementwise::axpy(way.view(), &mut average.view_mut()?, 1.0 - decay)?;
        }
        Ok(())
    }

    /// Exchanges the weights and their running average, where one is kept; a second time brings the weights back.
    pub fn swap_average(&mut self, params: &mut Params) -> Result<()> {
        let Some(average) = &mut self.average else {
            return Ok(());
        };
        let (master, low) = params.arenas_mut();
        std::mem::swap(master, average);
        if let Some(low) = low {
            match self.raw_weights.take() {
                Some(own) => *low = own,
                None => self.raw_weights = Some(std::mem::replace(low, master.cast(low.dtype())?)),
            }
        }
        Ok(())
    }

    /// All numbers that the next step depends on, by name and parameter (`exp_avg.<name>`), sharing the arenas: master
    /// weights, moments, the running average, and the rounded weights where chance had a part in them. With the number of
    /// steps and the same groups, [`Optimizer::restore`] goes on from them as if nothing had been between.
    pub fn state(&self, params: &Params) -> Vec<(String, Tensor)> {
        let (master, low) = params.arenas();
        let arenas = [
            ("master", Some(master)),
            ("rounded", low.filter(|_| self.settings.stochastic.is_some())),
            ("exp_avg", Some(&self.first)),
            ("exp_avg_sq", Some(&self.second)),
            ("average", self.average.as_ref()),
        ];
        let mut state = Vec::new();
        for (kind, arena) in arenas.into_iter().filter_map(|(kind, arena)| Some((kind, arena?))) {
            let part =
                |(name, shape, start): (&str, Shape, usize)| (format!("{kind}.{name}"), arena.slice_flat(start, shape));
            state.extend(params.trainable_places().map(part));
        }
        state
    }

    /// Goes on after `steps` steps from the numbers that [`Optimizer::state`] named.
    ///
    /// # Errors
    /// Those of `value`, and when it gives another shape; the state is void then.
    pub fn restore(&mut self, params: &mut Params, steps: u64, value: impl Fn(&str) -> Result<Tensor>) -> Result<()> {
        let places: Vec<(String, Shape, usize)> =
            params.trainable_places().map(|(name, shape, start)| (name.to_string(), shape, start)).collect();
        let random = self.settings.stochastic.is_some();
        let (master, low) = params.arenas_mut();
        let fill = |kind: &str, arena: &mut Tensor| -> Result<()> {
            for (name, shape, start) in &places {
                let value = value(&format!("{kind}.{name}"))?;
                if value.shape() != *shape {
                    let message = format!("{kind} of shape {}, expected {shape}", value.shape());
                    return Err(Error::Param { name: name.clone(), message });
                }
                elementwise::cast(value.view(), &mut arena.range_mut("optimiser state", *start, shape.elements())?)?;
            }
            Ok(())
        };
        fill("master", master)?;
        fill("exp_avg", &mut self.first)?;
        fill("exp_avg_sq", &mut self.second)?;
        if let Some(average) = &mut self.average {
            fill("average", average)?;
        }
        if let Some(low) = low {
            match random {
                true => fill("rounded", low)?,
                false => elementwise::cast(master.view(), &mut low.view_mut()?)?,
            }
        }
        // A state of older versions may be beyond them.
        params.apply_bounds()?;
        if let Some(average) = &mut self.average {
            clamp(average, &params.trainable_bounds().collect::<Vec<_>>())?;
        }
        self.steps = steps;
        Ok(())
    }

    /// Every group by its rule; nothing changes where `grad_scale` is NaN.
    fn update(&mut self, params: &mut Params, lr: f64, gradients: &Tensor, grad_scale: &Tensor) -> Result<()> {
        let (mut segments, mut matrices) = (Vec::new(), Vec::new());
        for (group, range) in params.trainable_groups() {
            let mut segment = |range| {
                segments.push(kernel::Segment { range, lr: lr * group.lr_scale, weight_decay: group.weight_decay });
            };
            match group.update {
                Update::AdamW => segment(range),
                Update::Muon => {
                    let (two, others): (Vec<_>, Vec<_>) =
                        params.entries_within(&range).into_iter().partition(|(shape, _)| shape.len() == 2);
                    others.into_iter().for_each(|(_, range)| segment(range));
                    matrices.push((group, two));
                }
            }
        }
        segments.sort_by_key(|segment| segment.range.start);
        self.adamw(params, &segments, gradients, grad_scale)?;
        for (group, matrices) in matrices {
            for few in matrices.chunks(TOGETHER) {
                self.muon(params, &group, few, lr, gradients, grad_scale)?;
            }
        }
        Ok(())
    }

    fn adamw(
        &mut self,
        params: &mut Params,
        segments: &[kernel::Segment],
        gradients: &Tensor,
        grad_scale: &Tensor,
    ) -> Result<()> {
        let AdamW { beta1, beta2, eps, stochastic, .. } = self.settings;
        let step = self.steps + 1;
        let p = kernel::AdamW { beta1, beta2, eps, step, stochastic: stochastic.map(|seed| seed.wrapping_add(step)) };
        let len = params.trainable_elements();
        let (master, low) = params.arenas_mut();
        let state = kernel::State {
            weights: master.range_mut("the parameters", 0, len)?,
            grads: gradients.view(),
            m: self.first.view_mut()?,
            v: self.second.view_mut()?,
            low: low.map(|low| low.range_mut("the parameters", 0, len)).transpose()?,
        };
        Ok(kernel::adamw(&p, segments, state, Some(grad_scale.view()))?)
    }

    /// Matrices side by side: each alone is too small to share out. Their momentum lies where AdamW's first moment would.
    fn muon(
        &mut self,
        params: &mut Params,
        group: &GroupSpec,
        matrices: &[(Shape, Range<usize>)],
        lr: f64,
        gradients: &Tensor,
        grad_scale: &Tensor,
    ) -> Result<()> {
        let lr = lr * group.lr_scale;
        let first = &self.first;
        let direction = |(shape, range): &(Shape, Range<usize>)| {
            let mut momentum = first.slice_flat(range.start, *shape).copy()?;
            let step = muon::direction(&gradients.slice_flat(range.start, *shape), &mut momentum, grad_scale)?;
            Ok((step, momentum))
        };
        // A GPU's work comes in the same order each step.
        let least = if params.device().kind() == Kind::Cpu { 1 } else { TOGETHER };
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
}

/// The first parameter whose gradient is not finite.
fn first_bad(params: &Params, gradients: &Tensor) -> Result<String> {
    for (name, shape, start) in params.trainable_places() {
        let part = gradients.slice_flat(start, shape);
        if !sum_squares(part.view())?.item()?.is_finite() {
            return Ok(name.to_string());
        }
    }
    Ok("the gradient norm".into())
}

fn sum_squares(view: View<'_>) -> Result<Tensor> {
    let mut squares = Tensor::empty(view.device(), DType::F64, [1])?;
    kernel::sum_squares(view, &mut squares.view_mut()?)?;
    Ok(squares)
}
