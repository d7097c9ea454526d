//! What the verbs do, one file each.

mod env;

use crate::cli::{Cli, Verb};
use anyhow::Result;

/// Does what the command line says.
///
/// # Errors
/// Whatever went wrong, in words for the one who typed it.
pub fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Env => env::run(),
    }
}
