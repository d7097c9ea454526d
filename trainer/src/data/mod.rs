//! Data to train and evaluate on.

mod prepare;
pub mod scenes;
mod source;

pub use prepare::Prepare;
pub use source::{Conversation, Pair, SceneSource, Source};
