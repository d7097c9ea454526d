//! What the verbs do, one file each.

mod assistant;
mod bench;
mod chat;
mod compare;
mod data;
mod demo;
mod env;
mod eval;
mod generate;
mod inspect;
mod kernels;
mod recipe;
mod report;
mod train;

use crate::cli::{Cli, Verb};
use crate::compute::with_threads;
use anyhow::Result;

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<()> {
    warn_of_unknown_variables();
    match cli.verb {
        Verb::Demo(args) => demo::run(args),
        Verb::Train(args) => train::run(args),
        Verb::Generate(args) => generate::run(&args),
        Verb::Chat(args) => chat::run(&args),
        Verb::Inspect(args) => with_threads(None, || inspect::run(&args)),
        Verb::Eval(args) => eval::run(&args),
        Verb::Data(verb) => data::run(&verb),
        Verb::Recipe(verb) => recipe::run(&verb),
        Verb::Report(args) => with_threads(None, || report::run(&args)),
        Verb::Compare(args) => with_threads(None, || compare::run(&args)),
        Verb::Bench(args) => bench::run(&args),
        Verb::Kernels(verb) => kernels::run(verb),
        Verb::Env => with_threads(None, env::run),
    }
}

/// The environment's variables that begin with `LENSLET_`, as docs/environment.md has them.
const VARIABLES: [&str; 6] =
    ["LENSLET_CACHE", "LENSLET_CUDA_SOURCES", "LENSLET_CXX", "LENSLET_DATA", "LENSLET_ISA", "LENSLET_NVRTC"];

/// One that is misspelt would change nothing, and nobody would know. A recipe's paths may name others.
fn warn_of_unknown_variables() {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("LENSLET_") && !VARIABLES.contains(&&*name) {
            errln!("warning: {name} is none of lenslet's variables: {}", VARIABLES.join(", "));
        }
    }
}
