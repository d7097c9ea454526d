//! The training phases and the loop they share.

mod ahead;
pub mod align;
mod contrast;
pub mod dual;
pub mod fit;
pub mod instruct;

use crate::recipe::{ContrastPhase, Phase1, Phase2, Recipe, Training};
use serde::{Deserialize, Serialize};

/// A phase of training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Contrastive training of a dual encoder.
    #[serde(rename = "contrast")]
    Contrast,
    /// Contrastive learning, matching and captioning.
    #[serde(rename = "phase1")]
    Align,
    /// Instruction tuning.
    #[serde(rename = "phase2")]
    Instruct,
}

impl Phase {
    /// All, in order.
    pub const ALL: [Phase; 3] = [Phase::Contrast, Phase::Align, Phase::Instruct];

    /// Those a recipe has, in order.
    pub fn of(recipe: &Recipe) -> impl Iterator<Item = Phase> + use<> {
        let here = Phase::ALL.map(|phase| phase.training(recipe).map(|_| phase));
        here.into_iter().flatten()
    }

    /// The phase's table in a recipe and its name in the metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Contrast => "contrast",
            Phase::Align => "phase1",
            Phase::Instruct => "phase2",
        }
    }

    /// Whether it is trained behind `other`.
    pub fn comes_after(self, other: Phase) -> bool {
        let place = |phase| Phase::ALL.iter().position(|&each| each == phase);
        place(self) > place(other)
    }

    /// The recipe's settings for it; none where it is left out.
    pub fn training(self, recipe: &Recipe) -> Option<Training> {
        match self {
            Phase::Contrast => recipe.contrast.as_ref().map(ContrastPhase::training),
            Phase::Align => recipe.phase1.as_ref().map(Phase1::training),
            Phase::Instruct => recipe.phase2.as_ref().map(Phase2::training),
        }
    }
}
