//! The binary `lenslet`.

use clap::Parser;
use lenslet::{interrupt, output};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == model::sandbox::ARGUMENT) {
        let job = arguments.next().unwrap_or_default();
        return match model::sandbox::serve(&job.to_string_lossy()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    model::sandbox::enable();
    // Where it cannot be, such a file ends the process as it always has.
    let _ = interrupt::outlive_full_files();
    let cli = match lenslet::cli::Cli::try_parse() {
        Ok(cli) => cli,
        // What was typed may stand in it.
        Err(error) if error.use_stderr() => {
            output::line(&mut std::io::stderr(), format_args!("{}", error.render().to_string().trim_end()));
            return ExitCode::from(2);
        }
        Err(asked) => asked.exit(),
    };
    match lenslet::commands::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is::<interrupt::Stopped>() => {
            output::line(&mut std::io::stderr(), format_args!("{error}"));
            ExitCode::from(interrupt::STATUS)
        }
        Err(error) if output::unread(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::line(&mut std::io::stderr(), format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
