//! Lines for whoever reads them. A reader who has gone (`lenslet train … | head`) is no reason to lose hours of work, so that a
//! line that nobody takes is dropped, where `println!` would panic.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// A line on standard output, as `println!` writes it.
macro_rules! say {
    ($($line:tt)*) => { $crate::say::line(&mut std::io::stdout(), format_args!($($line)*)) };
}

/// A line on standard error, as `eprintln!` writes it.
macro_rules! say_aside {
    ($($line:tt)*) => { $crate::say::line(&mut std::io::stderr(), format_args!($($line)*)) };
}

pub(crate) fn line(out: &mut dyn Write, line: Arguments<'_>) {
    let _ = writeln!(out, "{line}");
}

/// Whether a command failed because nobody reads its output any more.
pub fn unread(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(closed))
}
