//! Records of a data set that cannot be used: counted, the first few named, and too many refused.

use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Bad records that are named; the others are only counted.
pub(super) const NAMED: usize = 5;
/// Kinds that are told apart; further ones are one.
const KINDS: usize = 40;
/// Characters of a fault that its kind goes by.
const LONGEST: usize = 120;

/// A record that cannot be used. Printed as `file:line: record `id`: field: what is wrong`, without what is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadRecord {
    /// The file of records, or their folder.
    pub file: PathBuf,
    /// Its line, counted from 1; 0 where there are no lines.
    pub line: usize,
    /// The record's `id`, where it could be read.
    pub id: Option<String>,
    /// The field to blame; empty for the record as a whole.
    pub field: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl std::fmt::Display for BadRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        f.write_str(": ")?;
        if let Some(id) = &self.id {
            write!(f, "record `{id}`: ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

impl BadRecord {
    /// Field and message without what is of this record only: numbers, quotations, paths.
    fn kind(&self) -> String {
        let message = self.message.rsplit(": ").next().unwrap_or_default();
        let field = if self.field.is_empty() { "record" } else { &self.field };
        let (mut kind, mut quoted, mut number, mut before) = (String::new(), false, false, ' ');
        for c in format!("{field}: {message}").chars().take(LONGEST) {
            // The digits of `UTF-8` are no number's.
            let goes_on = before.is_ascii_digit();
            number = c.is_ascii_digit() && if goes_on { number } else { before != '-' };
            if c == '`' {
                quoted = !quoted;
                kind += if quoted { "`…" } else { "`" };
            } else if !(quoted || number && goes_on) {
                kind.push(if number { 'N' } else { c });
            }
            before = c;
        }
        kind
    }
}

/// Bad records: all counted, the first few named.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BadRecords {
    pub count: usize,
    /// The first few.
    pub first: Vec<BadRecord>,
    pub kinds: BTreeMap<String, usize>,
}

impl BadRecords {
    /// Counts one more.
    pub fn add(&mut self, record: BadRecord) {
        self.count += 1;
        let mut kind = record.kind();
        if self.kinds.len() >= KINDS && !self.kinds.contains_key(&kind) {
            kind = "of other kinds".into();
        }
        *self.kinds.entry(kind).or_default() += 1;
        if self.first.len() < NAMED {
            self.first.push(record);
        }
    }

    /// Counts others behind these.
    pub fn append(&mut self, others: BadRecords) {
        self.count += others.count;
        self.first.extend(others.first);
        self.first.truncate(NAMED);
        for (kind, count) in others.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
    }

    /// The named ones, one a line, and how many more there are.
    pub fn list(&self) -> String {
        let mut lines: Vec<String> = self.first.iter().map(|bad| format!("  {bad}")).collect();
        if self.count > self.first.len() {
            lines.push(format!("  and {} more", self.count - self.first.len()));
        }
        lines.join("\n")
    }

    /// Fails when more than the share `max_bad` of `records` is bad.
    ///
    /// # Errors
    /// Says how many are bad and names the first few.
    pub fn check(&self, records: usize, max_bad: f64) -> Result<()> {
        ensure!(
            self.count as f64 <= max_bad * records as f64,
            "{} of {records} records are bad, more than {} %:\n{}",
            self.count,
            max_bad * 100.0,
            self.list()
        );
        Ok(())
    }
}
