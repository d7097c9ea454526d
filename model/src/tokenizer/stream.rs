//! Text from ids that come one by one.

use super::Tokenizer;
use crate::error::Result;

/// Decodes an answer while it is generated. A letter may be made of several tokens and what a token says may hang on the
/// one before it, so text is given out once whole letters are there.
///
/// ```
/// let tokenizer = model::Tokenizer::train_bpe(["naïve"], 264)?; // no merges: one token per byte
/// let mut stream = tokenizer.stream();
/// let mut pieces = Vec::new();
/// for id in tokenizer.encode("aï")? {
///     pieces.push(stream.push(id)?);
/// }
/// assert_eq!(pieces, ["a", "", "ï"]);
/// assert_eq!(stream.finish()?, "");
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug)]
pub struct DecodeStream<'t> {
    tokenizer: &'t Tokenizer,
    /// What was said last and what came since: what comes next is read in its company.
    ids: Vec<u32>,
    /// How many of `ids` have been said.
    said: usize,
    /// Their text.
    text: String,
}

impl DecodeStream<'_> {
    /// The text that `id` completes; empty while a letter is incomplete.
    pub fn push(&mut self, id: u32) -> Result<String> {
        self.ids.push(id);
        let text = self.tokenizer.decode(&self.ids)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        let new = behind(&self.text, &text).to_string();
        if !new.is_empty() {
            self.ids.drain(..self.said);
            self.said = self.ids.len();
            self.text = self.tokenizer.decode(&self.ids)?;
        }
        Ok(new)
    }

    /// The rest, when no more ids come: letters that stayed incomplete, as U+FFFD.
    pub fn finish(self) -> Result<String> {
        let text = self.tokenizer.decode(&self.ids)?;
        Ok(behind(&self.text, &text).to_string())
    }
}

impl Tokenizer {
    /// Decodes ids one by one, without special tokens.
    pub fn stream(&self) -> DecodeStream<'_> {
        DecodeStream { tokenizer: self, ids: Vec::new(), said: 0, text: String::new() }
    }
}

/// What `text` has beyond what it shares with `said`. It may not start with all of it: bytes that were a letter stop being
/// one when a stray byte follows and the decoder reads them as one run.
fn behind<'s>(said: &str, text: &'s str) -> &'s str {
    let mut shared = 0;
    for (old, new) in said.chars().zip(text.chars()) {
        if old != new {
            break;
        }
        shared += new.len_utf8();
    }
    &text[shared..]
}
