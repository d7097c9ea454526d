//! Conversations as ids: `<user> question <assistant> answer <eos>`, again and again.

use crate::error::{Error, Result};
use crate::texts::{Texts, Turn};
use crate::tokenizer::{Starts, Tokenizer};

impl Turn {
    /// A conversation of questions and answers; the answers and the `<eos>` behind each are to be learned.
    ///
    /// ```
    /// use model::{Tokenizer, Turn};
    /// let tokenizer = Tokenizer::word_level(["what", "is", "it", "red"])?;
    /// let turn = Turn::conversation(&tokenizer, &[("what is it", "red")])?;
    /// assert_eq!(turn.learn, [false, false, false, false, false, true, true]);
    /// assert_eq!(turn.ids.last(), Some(&tokenizer.specials().eos));
    /// # Ok::<(), model::Error>(())
    /// ```
    pub fn conversation<S: AsRef<str>>(tokenizer: &Tokenizer, exchanges: &[(S, S)]) -> Result<Turn> {
        let mut turn = Turn::default();
        for (question, answer) in exchanges {
            turn.push(&question_ids(tokenizer, question.as_ref())?, false);
            turn.push(&tokenizer.encode(answer.as_ref())?, true);
            turn.push(&[tokenizer.specials().eos], true);
        }
        Ok(turn)
    }

    fn push(&mut self, ids: &[u32], learn: bool) {
        self.ids.extend_from_slice(ids);
        self.learn.resize(self.ids.len(), learn);
    }
}

/// A conversation so far and a new question, up to where the answer starts: what generation continues.
pub fn prompt<S: AsRef<str>>(tokenizer: &Tokenizer, so_far: &[(S, S)], question: &str) -> Result<Vec<u32>> {
    let mut ids = Turn::conversation(tokenizer, so_far)?.ids;
    ids.extend(question_ids(tokenizer, question)?);
    Ok(ids)
}

fn question_ids(tokenizer: &Tokenizer, question: &str) -> Result<Vec<u32>> {
    let roles = tokenizer.specials().roles.ok_or_else(|| {
        Error::Tokenizer("the vocabulary has no <user> and <assistant>; conversations take its chat template".into())
    })?;
    let mut ids = vec![roles.user];
    ids.extend(tokenizer.encode(question)?);
    ids.push(roles.assistant);
    Ok(ids)
}

fn starts(tokenizer: &Tokenizer) -> Result<Starts> {
    let missing = "the vocabulary has no two different special tokens for the Q-Former's texts to start with; \
                   `Tokenizer::load` adds <cls> and <dec>";
    tokenizer
        .specials()
        .starts
        .ok_or_else(|| Error::Tokenizer(missing.into()))
}

impl Texts {
    /// Texts to be compared or matched with images: `<cls> text`.
    pub fn for_matching<S: AsRef<str>>(tokenizer: &Tokenizer, texts: &[S]) -> Result<Texts> {
        let cls = starts(tokenizer)?.cls;
        let start = |text: &S| {
            let mut ids = vec![cls];
            ids.extend(tokenizer.encode(text.as_ref())?);
            Ok(ids)
        };
        let rows: Vec<_> = texts.iter().map(start).collect::<Result<_>>()?;
        Ok(Texts::pad(&rows, tokenizer.specials().pad))
    }

    /// Texts the Q-Former learns to say: `<dec> text <eos>`; the targets are [`Texts::next_tokens`].
    pub fn for_captioning<S: AsRef<str>>(tokenizer: &Tokenizer, texts: &[S]) -> Result<Texts> {
        let specials = tokenizer.specials();
        let dec = starts(tokenizer)?.dec;
        let whole = |text: &S| {
            let mut ids = vec![dec];
            ids.extend(tokenizer.encode(text.as_ref())?);
            ids.push(specials.eos);
            Ok(ids)
        };
        let rows: Vec<_> = texts.iter().map(whole).collect::<Result<_>>()?;
        Ok(Texts::pad(&rows, specials.pad))
    }
}
