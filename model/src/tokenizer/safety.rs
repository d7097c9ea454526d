//! Tokenizers of strangers: what they may do to a text is bounded, and those that come from files are tried out first.

use super::folder::{VOCABULARY, folder_of};
use super::{Tokenizer, refused};
use crate::error::{Error, Result, at};
use crate::sandbox::{self, Process};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tokenizers::ModelWrapper;

/// What a process that serves is called that tries a tokenizer out.
pub(crate) const JOB: &str = "tokenizer";
/// How many times as long a text may become on its way through one part of a tokenizer.
const MAX_GROWTH: f64 = 256.0;

/// The longest word that is cut into pieces: the time it takes grows with the third power.
const MAX_WORD: usize = 512;

/// Fails where a text may become very long: every other part of a tokenizer leaves it about as long as it was.
///
/// # Errors
/// The part to blame, and what is wrong with it.
pub(super) fn check(inner: &tokenizers::Tokenizer) -> std::result::Result<(), String> {
    let parts = [
        ("normalizer", json!(inner.get_normalizer())),
        ("pre_tokenizer", json!(inner.get_pre_tokenizer())),
        ("decoder", json!(inner.get_decoder())),
    ];
    for (name, part) in &parts {
        let growth = growth(part);
        if growth > MAX_GROWTH {
            return Err(format!(
                "{name}: makes a text up to {growth:.0} times as long, {MAX_GROWTH} at most are taken"
            ));
        }
    }
    if let ModelWrapper::WordPiece(model) = inner.get_model()
        && model.max_input_chars_per_word > MAX_WORD
    {
        let found = model.max_input_chars_per_word;
        return Err(format!("model: max_input_chars_per_word: {found}, {MAX_WORD} at most are taken"));
    }
    one_text(&json!(inner.get_post_processor()))
}

/// How many times as long a text may become.
fn growth(part: &Value) -> f64 {
    let length = |text: &Value| text.as_str().map_or(0, str::len) as f64;
    let own = match part["type"].as_str() {
        Some("Replace") => match length(&part["pattern"]["String"]) {
            // A pattern may match between any two letters.
            0.0 => length(&part["content"]) + 1.0,
            pattern => length(&part["content"]) / pattern,
        },
        // A byte becomes a letter of one or two.
        Some("ByteLevel") => 2.0,
        // U+FDFA becomes 18 letters.
        Some("Precompiled" | "NFKC" | "NFKD") => 11.0,
        _ => 1.0,
    };
    own.max(1.0) * children(part).map(growth).product::<f64>()
}

/// Fails where a template of tokens around one text holds that text several times, or another.
fn one_text(part: &Value) -> std::result::Result<(), String> {
    if let Some(template) = part["single"].as_array() {
        let texts = template.iter().filter_map(|piece| piece["Sequence"]["id"].as_str());
        let texts: Vec<&str> = texts.collect();
        if texts != ["A"] {
            let found = texts.join(", ");
            return Err(format!("post_processor: single: expected one text `A`, found `{found}`"));
        }
    }
    children(part).try_for_each(one_text)
}

fn children(part: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match part {
        Value::Array(values) => Box::new(values.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        _ => Box::new(std::iter::empty()),
    }
}

/// What is tried out: a model's folder, or a `tokenizer.json` by itself.
#[derive(Serialize, Deserialize)]
struct Trial(PathBuf);

/// Reads a tokenizer in a process of its own and has it read and write texts there, where that may fail in any way.
///
/// # Errors
/// Names the file, if the tokenizer cannot be used. One that cannot be read is not this one's to tell.
pub(super) fn tried_out(path: &Path) -> Result<()> {
    if !sandbox::enabled() {
        return Ok(());
    }
    let trial = Process::start(JOB, &Trial(path.to_path_buf()));
    let Err(why) = trial else { return Ok(()) };
    let file = match path.is_dir() {
        true => folder_of(path)?.join(VOCABULARY),
        false => path.to_path_buf(),
    };
    Err(at(&file)(format!("the tokenizer cannot be used: {why}")))
}

/// The other side of [`tried_out`].
pub(crate) fn try_out(request: &[u8]) -> std::result::Result<Value, String> {
    let Trial(path) = serde_json::from_slice(request).map_err(|error| error.to_string())?;
    let read = match path.is_dir() {
        true => Tokenizer::open_here(&path),
        false => Tokenizer::load_here(&path),
    };
    if let Ok(tokenizer) = read {
        tokenizer.reads_and_writes().map_err(|error| match error {
            Error::Tokenizer(message) => message,
            other => other.to_string(),
        })?;
    }
    Ok(Value::Null)
}

impl Tokenizer {
    /// Reads texts of all kinds, and writes its own tokens.
    fn reads_and_writes(&self) -> Result<()> {
        /// Tokens that are written.
        const TOKENS: u32 = 1000;
        let ascii: String = (' '..='~').collect();
        let texts = [
            "",
            " ",
            "  two  spaces\t\r\n\nlines",
            "What is it? It's a naïve café, e\u{301}tc. ﬁne \u{fdfa}\u{200b}\u{0}\u{7f}\u{fffd}",
            "日本語 한국어 العربية हिन्दी 🙂👩\u{200d}👩\u{200d}👧 \u{10ffff}",
            &ascii,
            &ascii.repeat(40),
            &"a".repeat(4000),
            &" ".repeat(4000),
            &self.special.concat(),
        ];
        let mut known: Vec<u32> = (0..TOKENS.min(self.vocab_size as u32)).collect();
        for text in texts {
            let ids = [self.encode(text)?, self.tokenize(text, true)?, self.tokens(text, true)?.ids];
            self.unknown_words(text)?;
            for ids in ids {
                self.decode(&ids)?;
                self.decode_with_specials(&ids)?;
                known.extend(&ids);
            }
        }
        if let Some(id) = known.iter().find(|id| **id as usize >= self.vocab_size) {
            return Err(refused(format!("gives the id {id}, the vocabulary has {}", self.vocab_size)));
        }
        for id in known.iter().take(TOKENS as usize).chain([&u32::MAX]) {
            self.decode_with_specials(&[*id])?;
        }
        self.decode_with_specials(&known)?;
        Ok(())
    }
}
