//! The binary `lenslet`.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match lenslet::commands::run(lenslet::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
