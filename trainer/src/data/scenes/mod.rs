//! Built-in scenes: images of a few coloured shapes, with captions, questions and true answers about them.
//!
//! Nothing is stored: a scene, its pixels and every text about it follow from a seed, a [`Split`] and an index.
//! Five of the thirty (colour, shape) pairs are held out of training altogether, so that [`Split::Compositional`]
//! measures whether a model can recombine what it has seen.

mod captions;
mod dialogue;
mod existence;
mod language;
mod pairs;
mod placement;
mod questions;
mod render;
mod scene;
mod split;
mod world;

pub use captions::CaptionKind;
pub use dialogue::{QuestionWeights, dialogue};
pub use language::{Caption, hallucinated, is_true, mentions, vocabulary};
pub use pairs::{Colour, Pair, PairSet, Shape};
pub use questions::{Negatives, QuestionKind, Turn, balanced_questions, evaluation};
pub(super) use render::quantise;
pub use scene::{Axis, Object, Relation, Scene};
pub use split::{Scenes, Split};
pub use world::World;
