//! Data to train and evaluate on.

pub mod scenes;
