//! Words that a vocabulary lacks: a model reads and says one and the same token for all of them.

use anyhow::Result;
use model::Tokenizer;

/// Words that are named; the others are only counted.
const NAMED: usize = 5;

/// What of some texts a vocabulary lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UnknownWords {
    /// Tokens of all texts.
    pub tokens: usize,
    /// Of these, words that are not in the vocabulary.
    pub count: usize,
    /// The first few, each once.
    pub first: Vec<String>,
}

impl UnknownWords {
    /// Of these texts.
    ///
    /// # Errors
    /// Those of the tokenizer.
    pub fn of<'t>(tokenizer: &Tokenizer, texts: impl IntoIterator<Item = &'t str>) -> Result<UnknownWords> {
        let mut found = UnknownWords::default();
        for text in texts {
            let (words, tokens) = tokenizer.unknown(text)?;
            found.tokens += tokens;
            found.count += words.len();
            for word in words {
                if found.first.len() < NAMED && !found.first.iter().any(|named| named == word) {
                    found.first.push(word.into());
                }
            }
        }
        Ok(found)
    }

    /// How many they are and which, as in `2 of 40 words (5.0 %) are not in the vocabulary: color, grey`; None where there are
    /// none.
    pub fn message(&self) -> Option<String> {
        let share = 100.0 * self.count as f64 / self.tokens.max(1) as f64;
        let more = if self.count > self.first.len() { ", …" } else { "" };
        (self.count > 0).then(|| {
            format!(
                "{} of {} words ({share:.1} %) are not in the vocabulary: {}{more}",
                self.count,
                self.tokens,
                self.first.join(", ")
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_the_vocabulary_lacks_are_counted_and_named() {
        let tokenizer = Tokenizer::word_level(["what", "colour", "is", "it", "?"]).unwrap();
        let found = UnknownWords::of(&tokenizer, ["What color is it?", "is it Grey, what color"]).unwrap();
        assert_eq!((found.tokens, found.count), (11, 4));
        let message = found.message().unwrap();
        assert_eq!(
            message,
            "4 of 11 words (36.4 %) are not in the vocabulary: color, Grey, ,, …"
        );
        assert_eq!(UnknownWords::of(&tokenizer, ["what is it"]).unwrap().message(), None);
        let bytes = Tokenizer::train_bpe(["abc"], 300).unwrap();
        assert_eq!(UnknownWords::of(&bytes, ["日本 grey"]).unwrap().count, 0);
    }
}
