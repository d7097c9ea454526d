//! Commands that are printed to be pasted into a shell.

use std::ffi::OsStr;
use std::fmt;

/// A command line of this program, in which every value is one word to a POSIX shell, whatever is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command(String);

impl Command {
    /// This program as it was started (after `cargo run` it is not on the path) with a verb, such as `data check`.
    pub fn new(verb: &str) -> Command {
        let program = std::env::args_os().next().unwrap_or_else(|| "lenslet".into());
        Command(format!("{} {verb}", quote(&program)))
    }

    /// Adds a flag and its value.
    #[must_use]
    pub fn flag(mut self, flag: &str, value: impl AsRef<OsStr>) -> Command {
        let value = quote(value.as_ref());
        // A value that begins with a dash would be taken for a flag.
        let between = if value.trim_start_matches(['\'', '$']).starts_with('-') { '=' } else { ' ' };
        self.0 += &format!(" {flag}{between}{value}");
        self
    }

    /// Adds what needs no quoting.
    #[must_use]
    pub fn plain(mut self, words: &str) -> Command {
        self.0 += &format!(" {words}");
        self
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value as one word of a shell. Control characters and bytes that are no UTF-8 are escaped, so that a terminal shows them.
pub fn quote(value: impl AsRef<OsStr>) -> String {
    let value = value.as_ref();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:,@%+".contains(c);
    match value.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_string(),
        Some(text) if !text.contains(char::is_control) => format!("'{}'", text.replace('\'', r"'\''")),
        _ => escaped(value.as_encoded_bytes()),
    }
}

/// `$'…'`, which bash, zsh, ksh and POSIX of 2024 read.
fn escaped(bytes: &[u8]) -> String {
    let mut word = String::from("$'");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => word.extend(['\\', c]),
                '\n' => word += "\\n",
                c if c.is_control() => c.to_string().bytes().for_each(|byte| word += &format!("\\x{byte:02x}")),
                c => word.push(c),
            }
        }
        chunk.invalid().iter().for_each(|byte| word += &format!("\\x{byte:02x}"));
    }
    word + "'"
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [&str; 10] = [
        "",
        "runs/demo",
        "what is it ?",
        "it's",
        "$(touch x) `touch y` ${HOME} $HOME",
        "a\\'b\\",
        "two\nlines\tand \u{1b}[31m red, \u{9b}",
        "--prompt",
        "~/x *.png {a,b} !! # & | ; < >",
        "größer 赤",
    ];

    #[test]
    fn a_word_is_quoted_only_where_it_must_be_and_shows_no_control_characters() {
        assert_eq!(quote("runs/demo-2"), "runs/demo-2");
        assert_eq!(quote("it's $x"), r"'it'\''s $x'");
        assert_eq!(quote("a\u{1b}b'"), r"$'a\x1bb\''");
        assert!(VALUES.iter().all(|value| !quote(value).contains(char::is_control)));
    }

    #[test]
    fn a_shell_takes_every_value_for_one_word_as_it_is() {
        use std::os::unix::ffi::OsStrExt;
        let mut values: Vec<&OsStr> = VALUES.iter().map(OsStr::new).collect();
        values.push(OsStr::from_bytes(b"\xff'\n\x80"));
        for value in values {
            let script = format!("printf %s {}", quote(value));
            let output = std::process::Command::new("bash").args(["-c", &script]).output();
            assert_eq!(output.unwrap().stdout, value.as_encoded_bytes(), "{script}");
        }
    }

    #[test]
    fn a_value_like_a_flag_stays_a_value() {
        let line = Command::new("generate").flag("--prompt", "-x y").flag("--model", "m").to_string();
        assert!(line.ends_with(" generate --prompt='-x y' --model m"), "{line}");
    }
}
