//! Trains small vision-language models from raw pixels to answers: recipe, data, run folder, report, command line.
#![allow(missing_docs, reason = "a program: only its own tests call it as a library")]

#[macro_use]
pub mod output;

pub mod bench;
pub mod checkpoint;
pub mod cli;
pub mod commands;
pub mod compute;
pub mod course;
pub mod data;
pub mod dual;
pub mod estimate;
pub mod eval;
pub mod flops;
pub mod interrupt;
pub mod memory;
pub mod metrics;
mod next;
pub mod peak;
pub mod phases;
pub mod pipeline;
pub mod preflight;
pub mod pretrained_parts;
pub mod profile;
pub mod progress;
pub mod recipe;
pub mod report;
pub mod run_folder;
pub mod sample_predictions;
pub mod session;
pub mod shell;
pub mod similarity;
pub mod step_logger;
pub mod step_time;
