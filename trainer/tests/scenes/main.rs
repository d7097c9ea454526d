//! The built-in scenes, checked against a plain reading of their geometry.

mod balance;
mod captions;
mod geometry;
mod plain;
mod questions;

use lenslet::data::scenes::{Scenes, World};

/// The scenes all checks look at.
pub(crate) const SCENES: Scenes = Scenes {
    seed: 2024,
    image_size: 48,
    world: World::Full,
};
