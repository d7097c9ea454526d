//! Gradients of the trainable parameters, in an arena laid out as theirs.

use crate::error::Result;
use crate::{Device, Params, Tensor};
use kernels::{ViewMut, elementwise};
use std::ops::Range;

/// What [`crate::Graph::backward`] adds gradients to. A parameter's first gradient is written over what was there and
/// later ones are added, so that clearing costs nothing, and products write their results to where they stay.
#[derive(Debug)]
pub struct GradientArena {
    arena: Tensor,
    /// By the parameter's number; a frozen one has no place.
    slots: Vec<Slot>,
}

#[derive(Debug)]
struct Slot {
    place: Range<usize>,
    written: bool,
}

impl GradientArena {
    /// Zeros for the trainable parameters as they lie now.
    pub(crate) fn new(params: &Params) -> Result<GradientArena> {
        let dtype = params.dtype().accumulator();
        let slot = |place| Slot { place, written: false };
        Ok(GradientArena {
            arena: Tensor::empty(params.device(), dtype, [params.trainable_elements()])?,
            slots: params.places().map(slot).collect(),
        })
    }

    /// Where they lie.
    pub fn device(&self) -> &Device {
        self.arena.device()
    }

    /// All gradients; those of parameters that none was added to are zero.
    pub fn tensor(&mut self) -> Result<&Tensor> {
        for slot in self.slots.iter_mut().filter(|slot| !slot.written) {
            let (start, len) = (slot.place.start, slot.place.len());
            elementwise::fill(&mut self.arena.range_mut("the gradients", start, len)?, 0.0)?;
            slot.written = true;
        }
        Ok(&self.arena)
    }

    /// Makes all zero.
    pub(crate) fn clear(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.written = false);
    }

    /// Has a parameter's gradient written to where it belongs; `write` hears whether to add it to what is there.
    pub(crate) fn write(
        &mut self,
        param: usize,
        write: impl FnOnce(&mut ViewMut<'_>, bool) -> Result<()>,
    ) -> Result<()> {
        let Slot { place, written } = &mut self.slots[param];
        let mut target = self.arena.range_mut("the gradients", place.start, place.len())?;
        write(&mut target, std::mem::replace(written, true))
    }

    /// Adds to a parameter's gradient.
    pub(crate) fn add(&mut self, param: usize, gradient: &Tensor) -> Result<()> {
        self.write(param, |target, add| match add {
            true => Ok(elementwise::axpy(gradient.view(), target, 1.0)?),
            false => Ok(elementwise::cast(gradient.view(), target)?),
        })
    }

    /// Adds all of another's, and clears it.
    pub(crate) fn absorb(&mut self, other: &mut GradientArena) -> Result<()> {
        self.tensor()?;
        elementwise::axpy(other.tensor()?.view(), &mut self.arena.view_mut()?, 1.0)?;
        other.clear();
        Ok(())
    }
}
