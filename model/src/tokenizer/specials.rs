//! Which ids of a vocabulary have a part to play.

use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// The special tokens of Lenslet's own vocabularies, in the order of their ids in a new one.
pub(super) const OWN: [&str; 8] = ["<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", "<cls>", "<dec>"];

/// Ids of the special tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Specials {
    /// Fills rows up; `eos` where a vocabulary has nothing for it.
    pub pad: u32,
    /// Starts a text, where a vocabulary has a token for it.
    pub bos: Option<u32>,
    /// Ends an answer.
    pub eos: u32,
    /// A word that is not in the vocabulary, where that can happen.
    pub unk: Option<u32>,
    /// Who speaks, where the vocabulary is for Lenslet's own format of conversations.
    pub roles: Option<Roles>,
    /// What starts the Q-Former's texts, where the vocabulary has two tokens to tell them apart by.
    pub starts: Option<Starts>,
}

/// Who speaks, in Lenslet's own format of conversations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Starts a question.
    pub user: u32,
    /// Starts an answer.
    pub assistant: u32,
}

/// What starts the Q-Former's texts: two different ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Starts {
    /// Of a text to be compared or matched: `<cls>`, else the vocabulary's own classification token, beginning or padding.
    pub cls: u32,
    /// Of a text to be generated: `<dec>`, else the vocabulary's beginning (where another one is `cls`) or end.
    pub dec: u32,
}

impl Specials {
    /// From the tokens that play each part (`bos_token`, …, as configurations call them); `eos` where none ends a text.
    pub(super) fn find(
        inner: &tokenizers::Tokenizer,
        names: &BTreeMap<&'static str, String>,
        eos: Option<u32>,
    ) -> Result<Specials> {
        let named = |part: &str| names.get(part).and_then(|token| inner.token_to_id(token));
        let special = |token: &str| inner.get_added_vocabulary().is_special_token(token);
        let own = |token: &str| inner.token_to_id(token).filter(|_| special(token));
        let Some(eos) = named("eos_token").or_else(|| named("sep_token")).or(eos) else {
            let message = "no token ends a text: tokenizer_config.json needs `eos_token`, or generation_config.json \
                           `eos_token_id`";
            return Err(Error::Tokenizer(message.into()));
        };
        let bos = named("bos_token");
        let pad = named("pad_token").unwrap_or(eos);
        let both = |user, assistant| Some(Roles { user: user?, assistant: assistant? });
        Ok(Specials {
            pad,
            bos,
            eos,
            unk: named("unk_token"),
            roles: both(own("<user>"), own("<assistant>")),
            starts: starts([own("<cls>"), named("cls_token"), bos, Some(pad)], [own("<dec>"), bos, Some(eos)]),
        })
    }
}

/// The first candidates that differ.
fn starts(cls: [Option<u32>; 4], dec: [Option<u32>; 3]) -> Option<Starts> {
    let pairs = cls.into_iter().flatten();
    let mut pairs = pairs.flat_map(|cls| dec.into_iter().flatten().map(move |dec| Starts { cls, dec }));
    pairs.find(|pair| pair.cls != pair.dec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::models::wordlevel::WordLevel;

    fn find(names: &[(&'static str, &str)], vocabulary: &[&str]) -> Result<Specials> {
        let vocabulary = vocabulary.iter().enumerate();
        let vocabulary = vocabulary.map(|(i, token)| (token.to_string(), i as u32)).collect();
        let model = WordLevel::builder().vocab(vocabulary).build().unwrap();
        let names = names.iter().map(|(part, token)| (*part, token.to_string())).collect();
        Specials::find(&tokenizers::Tokenizer::new(model), &names, None)
    }

    #[test]
    fn parts_fall_back_to_what_a_vocabulary_has() {
        let bert = [("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("pad_token", "[PAD]"), ("bos_token", "[DEC]")];
        let found = find(&bert, &["[PAD]", "[CLS]", "[SEP]", "[DEC]"]).unwrap();
        assert_eq!((found.eos, found.pad, found.starts), (2, 0, Some(Starts { cls: 1, dec: 3 })));
        let llama = find(&[("bos_token", "<s>"), ("eos_token", "</s>")], &["<unk>", "<s>", "</s>"]).unwrap();
        assert_eq!((llama.pad, llama.unk, llama.starts), (2, None, Some(Starts { cls: 1, dec: 2 })));
        let qwen = find(&[("pad_token", "<text>"), ("eos_token", "<end>")], &["<text>", "<end>"]).unwrap();
        assert_eq!((qwen.bos, qwen.starts), (None, Some(Starts { cls: 0, dec: 1 })));
        let gpt2 =
            find(&[("bos_token", "<end>"), ("eos_token", "<end>")], &["<end>", "<user>", "<assistant>"]).unwrap();
        assert_eq!((gpt2.bos, gpt2.starts), (Some(0), None));
        assert_eq!(gpt2.roles, None, "ordinary words are nobody's role");
        assert!(find(&[], &["a"]).unwrap_err().to_string().contains("eos_token"));
    }
}
