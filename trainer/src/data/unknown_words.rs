//! Words that a vocabulary lacks: a model reads and says one and the same token for all of them.

use super::record::MARK;
use anyhow::Result;
use model::Tokenizer;
use serde::Serialize;
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Words that are named; the others are only counted.
const NAMED: usize = 5;

/// What of some texts a vocabulary lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct UnknownWords {
    /// Tokens of all texts.
    pub tokens: usize,
    /// Words that are not in the vocabulary, and how often each occurs.
    pub words: BTreeMap<String, usize>,
}

impl UnknownWords {
    /// Of these texts; the marks of images in them are no words.
    pub fn of<'t>(tokenizer: &Tokenizer, texts: impl IntoIterator<Item = &'t str>) -> Result<UnknownWords> {
        let mut found = UnknownWords::default();
        for text in texts.into_iter().flat_map(|text| text.split(MARK)) {
            let (words, tokens) = tokenizer.unknown_words(text)?;
            found.tokens += tokens;
            for word in words {
                *found.words.entry(word.into()).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// Counts those of other texts in.
    pub fn add(&mut self, other: UnknownWords) {
        self.tokens += other.tokens;
        for (word, count) in other.words {
            *self.words.entry(word).or_default() += count;
        }
    }

    /// How many of the tokens are such words.
    pub fn count(&self) -> usize {
        self.words.values().sum()
    }

    /// How many they are and which, the most frequent first, as in `3 of 40 words (7.5 %) are not in the vocabulary: `color` 2,
    /// `grey` 1`; None where there are none.
    pub fn message(&self) -> Option<String> {
        let count = self.count();
        let share = 100.0 * count as f64 / self.tokens.max(1) as f64;
        let mut words: Vec<(&String, &usize)> = self.words.iter().collect();
        words.sort_by_key(|(_, count)| Reverse(**count));
        let named = words.iter().take(NAMED).map(|(word, count)| format!("`{word}` {count}"));
        let named = named.collect::<Vec<_>>().join(", ");
        let more = match words.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let all = self.tokens;
        (count > 0).then(|| format!("{count} of {all} words ({share:.1} %) are not in the vocabulary: {named}{more}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_the_vocabulary_lacks_are_counted_and_named() {
        let tokenizer = Tokenizer::word_level(["what", "colour", "is", "it", "?"]).unwrap();
        let of = |texts: &[&str]| UnknownWords::of(&tokenizer, texts.iter().copied()).unwrap();
        let mut found = of(&["What color is it?", "<image>is it Grey, what color"]);
        assert_eq!((found.tokens, found.count()), (11, 4));
        assert_eq!(
            found.message().unwrap(),
            "4 of 11 words (36.4 %) are not in the vocabulary: `color` 2, `,` 1, `Grey` 1"
        );
        found.add(of(&["a b c d"]));
        assert_eq!(
            found.message().unwrap(),
            "8 of 15 words (53.3 %) are not in the vocabulary: `color` 2, `,` 1, `Grey` 1, `a` 1, `b` 1 and 2 more"
        );
        assert_eq!(of(&["what is it"]).message(), None);
        let bytes = Tokenizer::train_bpe(["abc"], 300).unwrap();
        assert_eq!(UnknownWords::of(&bytes, ["日本 grey"]).unwrap().count(), 0);
    }
}
