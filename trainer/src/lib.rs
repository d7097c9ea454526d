//! Training: where the data comes from.

pub mod data;
