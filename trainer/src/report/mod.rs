//! What a run shows for itself: curves, pictures, samples and tables.

pub mod attention_png;
pub mod card;
pub mod html;
pub mod losses;
pub mod samples;
pub mod summary;
pub mod table;
pub mod tensorboard;
pub mod tree;
