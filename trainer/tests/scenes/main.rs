//! The built-in scenes, checked against a plain reading of their geometry.

mod balance;
mod captions;
mod geometry;
mod plain;
mod questions;

use lenslet::data::scenes::{Scenes, World};

/// The scenes most checks look at.
pub(crate) const SCENES: Scenes = Scenes { seed: 2024, image_size: 48, world: World::Full };

/// Both worlds, for the checks of what sets them apart.
pub(crate) const WORLDS: [Scenes; 2] = [SCENES, Scenes { world: World::Small, ..SCENES }];
