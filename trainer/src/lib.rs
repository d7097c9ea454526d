//! Trains small vision-language models from raw pixels to answers: recipe, data, run folder, report, command line.

pub mod cli;
pub mod commands;
pub mod compute;
pub mod data;
pub mod memory;
pub mod metrics;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod run_folder;
