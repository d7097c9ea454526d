//! How rich scenes are: few colours and shapes, seldom overlapping, or all of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::pairs::{Pair, PairSet};
use super::split::Split;

/// A kind of scenes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum World {
    /// Four colours, four shapes, one to three larger objects: learned within minutes on two cores.
    Small,
    /// Six colours, five shapes, one to four objects, half of the scenes with an overlap.
    #[default]
    Full,
}

impl World {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Small, Self::Full];

    /// Every pair its scenes may show.
    pub const fn pairs(self) -> PairSet {
        match self {
            Self::Small => PairSet::of_first(4, 4),
            Self::Full => PairSet::ALL,
        }
    }

    /// The pairs kept out of training.
    pub const fn held_out(self) -> PairSet {
        PairSet::HELD_OUT.and(self.pairs())
    }

    /// The pairs that scenes of `split` and texts about them may have.
    pub const fn pairs_of(self, split: Split) -> PairSet {
        match split {
            Split::Train | Split::HeldOut => self.pairs().without(PairSet::HELD_OUT),
            Split::Compositional => self.pairs(),
        }
    }

    /// The training pairs scenes draw most often: about a third of them.
    pub(super) const fn popular(self) -> PairSet {
        let training = self.pairs_of(Split::Train);
        let (mut set, mut rank) = (PairSet::EMPTY, 0);
        while set.len() * 3 < training.len() {
            let pair = Pair::of_rank(rank);
            if training.contains(pair) {
                set = set.with(pair);
            }
            rank += 1;
        }
        set
    }

    /// Chance of 1, 2, 3 and 4 objects.
    pub(super) const fn count_weights(self) -> [f64; 4] {
        match self {
            Self::Small => [0.25, 0.40, 0.35, 0.0],
            Self::Full => [0.15, 0.30, 0.30, 0.25],
        }
    }

    /// Chance that two objects of a scene overlap, where there are two.
    pub(super) const fn overlap(self) -> f64 {
        match self {
            Self::Small => 0.2,
            Self::Full => 0.5,
        }
    }

    /// Least and largest radius of an object, in image sides.
    pub(super) const fn radii(self) -> [f32; 2] {
        match self {
            Self::Small => [0.15, 0.20],
            Self::Full => [0.11, 0.16],
        }
    }
}
