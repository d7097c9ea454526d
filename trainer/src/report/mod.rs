//! What a run shows for itself: curves, pictures, samples and tables.

pub mod attention_png;
pub mod card;
pub mod loss_svg;
pub mod samples;
pub mod table;
pub mod tree;
