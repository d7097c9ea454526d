//! The binary `lenslet`.

use clap::Parser;
use lenslet::{interrupt, say};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match lenslet::commands::run(lenslet::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Stopped>() => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::from(interrupt::STATUS)
        }
        Err(error) if say::unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
