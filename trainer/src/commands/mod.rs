//! What the verbs do, one file each.

mod assistant;
mod bench;
mod chat;
mod data;
mod demo;
mod env;
mod eval;
mod generate;
mod inspect;
mod kernels;
mod report;
mod train;

use crate::cli::{Cli, Verb};
use anyhow::Result;

/// Does what the command line says.
///
/// # Errors
/// Whatever went wrong, in words for the one who typed it.
pub fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Demo(args) => demo::run(args),
        Verb::Train(args) => train::run(args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Chat(args) => chat::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Eval(args) => eval::run(&args),
        Verb::Data(verb) => data::run(&verb),
        Verb::Report(args) => report::run(&args),
        Verb::Bench(args) => bench::run(&args),
        Verb::Kernels(verb) => kernels::run(verb),
        Verb::Env => env::run(),
    }
}
