//! The two training phases and the loop they share.

pub mod align;
pub mod fit;
pub mod instruct;
mod negatives;
