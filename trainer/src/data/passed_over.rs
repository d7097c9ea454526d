//! What of a data set is passed over without being a bad record: counted by reason, the first few named.

use serde::Serialize;
use std::collections::BTreeMap;

/// Things that are named for each reason.
const NAMED: usize = 3;
/// Reasons that are told apart; further ones are one.
const REASONS: usize = 40;

/// Files, members, entries and turns that nothing is learnt from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PassedOver(BTreeMap<String, Counted>);

/// How many there are of a reason, and the first few.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// All of them.
    pub count: usize,
    /// The first few.
    pub first: Vec<String>,
}

impl PassedOver {
    /// Counts one more; `what` is in the plural, `members without a suffix`.
    pub fn add(&mut self, what: impl Into<String>, name: impl Into<String>) {
        let mut what = what.into();
        if self.0.len() >= REASONS && !self.0.contains_key(&what) {
            what = "of other reasons".into();
        }
        let counted = self.0.entry(what).or_default();
        counted.count += 1;
        if counted.first.len() < NAMED {
            counted.first.push(name.into());
        }
    }

    /// Counts all of another's, too.
    pub fn extend(&mut self, other: PassedOver) {
        for (what, Counted { count, first }) in other.0 {
            let counted = self.0.entry(what).or_default();
            counted.count += count;
            let room = NAMED.saturating_sub(counted.first.len());
            counted.first.extend(first.into_iter().take(room));
        }
    }

    /// A line for each reason.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(what, Counted { count, first })| {
            let more = if *count > first.len() { ", …" } else { "" };
            format!("passed over: {count} {what}: {}{more}", first.join(", "))
        })
    }
}
