//! The text of an answer as it comes, and the strings that end it.

use crate::error::Result;
use crate::tokenizer::{DecodeStream, Tokenizer};

/// The text so far. Without a tokenizer it stays empty.
#[derive(Debug)]
pub(super) struct Transcript<'r> {
    stream: Option<DecodeStream<'r>>,
    stops: &'r [String],
    text: String,
    /// Bytes that were given out.
    shown: usize,
    stopped: bool,
}

impl<'r> Transcript<'r> {
    pub(super) fn new(tokenizer: Option<&'r Tokenizer>, stops: &'r [String]) -> Transcript<'r> {
        Transcript { stream: tokenizer.map(Tokenizer::stream), stops, text: String::new(), shown: 0, stopped: false }
    }

    /// The text that is sure after one more token: what may be the start of a stop string is held back.
    pub(super) fn push(&mut self, token: u32) -> Result<&str> {
        let new = match &mut self.stream {
            Some(stream) => stream.push(token)?,
            None => return Ok(""),
        };
        self.extend(&new);
        let sure = if self.stopped { self.text.len() } else { self.text.len() - self.held() };
        Ok(self.show(sure))
    }

    /// What was held back, when no more tokens come.
    pub(super) fn finish(&mut self) -> Result<&str> {
        if let Some(stream) = self.stream.take().filter(|_| !self.stopped) {
            self.extend(&stream.finish()?);
        }
        Ok(self.show(self.text.len()))
    }

    /// Whether a stop string has come; the text ends before it.
    pub(super) fn stopped(&self) -> bool {
        self.stopped
    }

    pub(super) fn into_text(self) -> String {
        self.text
    }

    fn show(&mut self, to: usize) -> &str {
        let from = std::mem::replace(&mut self.shown, to);
        &self.text[from..to]
    }

    fn extend(&mut self, new: &str) {
        self.text.push_str(new);
        // What was shown is part of no stop string.
        let starts = self.stops.iter().filter_map(|stop| self.text[self.shown..].find(stop.as_str()));
        if let Some(start) = starts.min() {
            self.text.truncate(self.shown + start);
            self.stopped = true;
        }
    }

    /// Bytes at the text's end with which a stop string starts.
    fn held(&self) -> usize {
        let shared = |stop: &String| {
            (1..stop.len()).rev().find(|&n| stop.is_char_boundary(n) && self.text.ends_with(&stop[..n]))
        };
        self.stops.iter().filter_map(shared).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is shown as the bytes of `text` come one by one, then the rest, and whether it was stopped.
    fn shown(text: &str, stops: &[&str]) -> (Vec<String>, String, bool) {
        let tokenizer = Tokenizer::train_bpe([""], 264).unwrap();
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut transcript = Transcript::new(Some(&tokenizer), &stops);
        let mut pieces = Vec::new();
        for id in tokenizer.encode(text).unwrap() {
            pieces.push(transcript.push(id).unwrap().to_string());
            if transcript.stopped() {
                break;
            }
        }
        let rest = transcript.finish().unwrap().to_string();
        assert_eq!(pieces.concat() + &rest, transcript.text);
        (pieces, rest, transcript.stopped())
    }

    #[test]
    fn the_text_ends_before_a_stop_string_that_spans_tokens() {
        let (pieces, rest, stopped) = shown("ab\nUser: x", &["\nUser:", "never"]);
        assert_eq!(pieces, ["a", "b", "", "", "", "", "", ""]);
        assert_eq!((rest.as_str(), stopped), ("", true));
    }

    #[test]
    fn what_only_looked_like_one_comes_later() {
        let (pieces, rest, stopped) = shown("a##b#", &["###"]);
        assert_eq!(pieces, ["a", "", "", "##b", ""]);
        assert_eq!((rest.as_str(), stopped), ("#", false));
        // The second start holds when the first has failed.
        let (pieces, _, stopped) = shown("aab", &["ab"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("a", true));
    }

    #[test]
    fn letters_of_several_tokens_stay_whole() {
        let (pieces, _, stopped) = shown("ï→é", &["é!", "→x"]);
        assert_eq!(pieces.concat(), "ï→");
        assert!(!stopped);
        let (pieces, _, stopped) = shown("ï→é", &["é"]);
        assert_eq!((pieces.concat().as_str(), stopped), ("ï→", true));
    }

    #[test]
    fn the_first_of_several_counts() {
        let (pieces, _, _) = shown("one two", &["two", "e t"]);
        assert_eq!(pieces.concat(), "on");
    }
}
