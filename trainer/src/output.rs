//! Lines for whoever reads them, at a terminal that takes no orders from data. A reader who has gone (`lenslet train … | head`) is no reason to lose hours of work, so that a
//! line that nobody takes is dropped, where `println!` would panic.

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// A line on standard output, as `println!` writes it.
macro_rules! outln {
    ($($line:tt)*) => { $crate::output::line(&mut std::io::stdout(), format_args!($($line)*)) };
}

/// A line on standard error, as `eprintln!` writes it.
macro_rules! errln {
    ($($line:tt)*) => { $crate::output::line(&mut std::io::stderr(), format_args!($($line)*)) };
}

/// Writes a line, as [`visible`] shows it.
pub fn line(out: &mut dyn Write, line: Arguments<'_>) {
    let _ = writeln!(out, "{}", visible(&line.to_string()));
}

/// A text as a terminal may show it: control characters, but for the ends of lines and tabs, and those that change the direction
/// of writing are spelt out.
pub fn visible(text: &str) -> Cow<'_, str> {
    let hidden = |c: char| {
        let marks = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') || marks.contains(&c);
        c.is_control() && c != '\n' && c != '\t' || turns
    };
    if !text.contains(hidden) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match hidden(c) {
            true => shown.extend(c.escape_unicode()),
            false => shown.push(c),
        }
    }
    shown.into()
}

/// Whether a command failed because nobody reads its output any more.
pub fn unread(error: &anyhow::Error) -> bool {
    let closed = |error: &io::Error| error.kind() == ErrorKind::BrokenPipe;
    error.chain().any(|cause| cause.downcast_ref().is_some_and(closed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_spelt_out() {
        assert_eq!(visible("two\nlines\tand größer 赤 🙂"), "two\nlines\tand größer 赤 🙂");
        let orders = "a\u{1b}]0;x\u{7}\r\u{9b}2J\u{7f}\u{202e}\u{2066}\u{200f}\u{2028}b";
        let shown = r"a\u{1b}]0;x\u{7}\u{d}\u{9b}2J\u{7f}\u{202e}\u{2066}\u{200f}\u{2028}b";
        assert_eq!(visible(orders), shown);
        let mut out = Vec::new();
        line(&mut out, format_args!("{orders}"));
        assert_eq!(String::from_utf8(out).unwrap(), format!("{shown}\n"));
    }
}
