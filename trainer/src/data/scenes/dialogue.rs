//! Several questions about one scene, their kinds drawn by weights that may change during training.

use anyhow::ensure;
use rand::Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::placement::choose_weighted;
use super::questions::{self, Asked, Turn};
use super::scene::Scene;

/// How often each kind of question is drawn, up to a common factor. A kind left out of a recipe is never drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuestionWeights {
    /// Whether something exists.
    #[serde(default)]
    pub existence: f64,
    /// How many.
    #[serde(default)]
    pub count: f64,
    /// What colour.
    #[serde(default)]
    pub colour: f64,
    /// What shape.
    #[serde(default)]
    pub shape: f64,
    /// Whether a relation holds.
    #[serde(default)]
    pub spatial: f64,
    /// Which of two opposite relations holds.
    #[serde(default)]
    pub choice: f64,
    /// Where something is.
    #[serde(default)]
    pub r#where: f64,
    /// What lies in a relation to something.
    #[serde(default)]
    pub which: f64,
    /// List everything.
    #[serde(default)]
    pub describe: f64,
    /// Name any relation.
    #[serde(default)]
    pub describe_relation: f64,
}

impl QuestionWeights {
    /// Every kind as often as any other.
    pub const EVEN: Self = Self::from_array([1.0; 10]);

    const fn from_array(weights: [f64; 10]) -> Self {
        let [existence, count, colour, shape, spatial, choice, r#where, which, describe, describe_relation] = weights;
        Self { existence, count, colour, shape, spatial, choice, r#where, which, describe, describe_relation }
    }

    fn to_array(self) -> [f64; 10] {
        let Self { existence, count, colour, shape, spatial, choice, r#where, which, describe, describe_relation } =
            self;
        [existence, count, colour, shape, spatial, choice, r#where, which, describe, describe_relation]
    }

    /// The weights the fraction `t` of the way from these to `end`.
    pub fn lerp(self, end: Self, t: f64) -> Self {
        let (start, end) = (self.to_array(), end.to_array());
        Self::from_array(std::array::from_fn(|i| start[i] * (1.0 - t) + end[i] * t))
    }

    /// Checks that kinds can be drawn by these weights.
    ///
    /// # Errors
    /// If a weight is negative or not finite, or none is above zero.
    pub fn check(&self) -> anyhow::Result<()> {
        let weights = self.to_array();
        ensure!(
            weights.iter().all(|weight| weight.is_finite() && *weight >= 0.0),
            "a question weight is not a number from zero up"
        );
        ensure!(weights.iter().any(|&weight| weight > 0.0), "no question weight is above zero");
        Ok(())
    }
}

/// Up to `turns` questions about the scene with their answers, kinds drawn by `weights`, which pass
/// [`QuestionWeights::check`]. No question occurs twice. Unless the turns are `independent`, each answered without the
/// others in sight, no two ask after the same pair's existence, and no two compare the same objects along the same axis.
/// There are fewer only where such questions are hard to find.
///
/// Yes and no are equally frequent at every turn, and for every question text as well, but for existence questions after
/// the first of a dialogue: leaving out pairs asked after before shifts theirs by a few per cent.
pub fn dialogue(
    scene: &Scene,
    weights: &QuestionWeights,
    turns: usize,
    independent: bool,
    rng: &mut impl Rng,
) -> Vec<Turn> {
    const TRIES_PER_TURN: usize = 8;
    let weights = weights.to_array();
    let mut asked = Asked::default();
    let mut dialogue: Vec<Turn> = Vec::with_capacity(turns);
    for _ in 0..turns * TRIES_PER_TURN {
        if dialogue.len() == turns {
            break;
        }
        if independent {
            asked = Asked::default();
        }
        let turn = match choose_weighted(&weights, rng) {
            0 => questions::ask_existence(scene, &mut asked, rng),
            1 => Some(questions::count(scene, rng)),
            2 => questions::colour(scene, rng),
            3 => questions::shape(scene, rng),
            4 => questions::ask_spatial(scene, &mut asked, rng),
            5 => questions::ask_choice(scene, &mut asked, rng),
            6 => questions::where_is(scene, rng),
            7 => questions::which(scene, rng),
            8 => Some(questions::describe(scene)),
            _ => questions::describe_relation(scene, rng),
        };
        dialogue.extend(turn.filter(|turn| dialogue.iter().all(|earlier| earlier.question != turn.question)));
    }
    dialogue
}
