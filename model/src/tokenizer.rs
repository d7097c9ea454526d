//! Text to ids and back, over the `tokenizers` crate.

mod folder;
mod safety;
mod specials;
mod stream;

pub use specials::{Roles, Specials, Starts};
pub use stream::DecodeStream;

use crate::error::{Error, Result};
use crate::files::read_up_to;
use crate::guard::guarded;
use folder::Sources;
pub(crate) use folder::folder_of;
pub(crate) use safety::{JOB, try_out};
use specials::OWN;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::wordlevel::WordLevel;
use tokenizers::normalizers::utils::Lowercase;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, OffsetReferential, OffsetType, PostProcessor,
    PostProcessorWrapper, PreTokenizedString, PreTokenizer, PreTokenizerWrapper, TokenizerBuilder, TokenizerImpl,
};

/// Byte-level BPE starts from every byte.
const BYTES: usize = 256;

/// A tokenizer that knows what its special tokens are for: one that Lenslet makes, or the one of a Hugging Face folder.
///
/// ```
/// let tokenizer = model::Tokenizer::word_level(["is", "there", "a", "red", "circle", "?"])?;
/// let ids = tokenizer.encode("Is there a RED circle?")?;
/// assert_eq!(ids, [8, 9, 10, 11, 12, 13]);
/// assert_eq!(tokenizer.decode(&ids)?, "is there a red circle ?");
/// let eos = tokenizer.specials().eos;
/// assert!(!tokenizer.encode("<eos>")?.contains(&eos)); // no user can write one,
/// assert_eq!(tokenizer.tokenize("<eos>", false)?, [eos]); // but a template can
/// # Ok::<(), model::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// Finds special tokens in texts.
    inner: Arc<tokenizers::Tokenizer>,
    /// Does not; made when first needed.
    literal: Arc<OnceLock<tokenizers::Tokenizer>>,
    /// The tokens with a part to play, as configurations name it.
    names: BTreeMap<&'static str, String>,
    specials: Specials,
    ends: Vec<u32>,
    /// What texts are read as that is no text.
    special: Arc<[String]>,
    vocab_size: usize,
    /// The files it was read from, to be written as they were.
    sources: Sources,
}

/// A text's tokens and where they stand in it.
#[derive(Debug)]
pub(crate) struct Tokens {
    /// The ids.
    pub(crate) ids: Vec<u32>,
    /// Bytes of the text from and to.
    pub(crate) places: Vec<(usize, usize)>,
}

type Builder =
    TokenizerBuilder<ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

impl Tokenizer {
    /// One id per word: lower-case, split at spaces, every punctuation mark a word of its own. Ids follow the order of
    /// `words`, after the special tokens.
    pub fn word_level<'w>(words: impl IntoIterator<Item = &'w str>) -> Result<Tokenizer> {
        let mut list: Vec<String> = OWN.map(String::from).to_vec();
        for word in words {
            list.extend(split(&word.to_lowercase())?);
        }
        let mut vocab = std::collections::HashMap::new();
        for word in list {
            let next = vocab.len() as u32;
            vocab.entry(word).or_insert(next);
        }
        let model = WordLevel::builder().vocab(vocab.into_iter().collect()).unk_token("<unk>".into());
        let inner = Builder::new()
            .with_model(model.build().map_err(refused)?.into())
            .with_normalizer(Some(Lowercase.into()))
            .with_pre_tokenizer(Some(BertPreTokenizer.into()))
            .build()
            .map_err(refused)?;
        Tokenizer::with_specials(inner.into())
    }

    /// Byte-level BPE (Sennrich et al. 2016) with up to `size` ids, learned from `texts`: any text comes back as it was.
    ///
    /// # Errors
    /// When `size` has no room for the bytes and the special tokens.
    pub fn train_bpe<'t>(texts: impl IntoIterator<Item = &'t str>, size: usize) -> Result<Tokenizer> {
        if size < BYTES + OWN.len() {
            let least = BYTES + OWN.len();
            return Err(Error::Tokenizer(format!("a vocabulary of {size}, at least {least} are needed")));
        }
        let mut trainer = BpeTrainer::builder()
            .vocab_size(size)
            .show_progress(false)
            .special_tokens(OWN.iter().map(|s| AddedToken::from(*s, true)).collect())
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let bytes = ByteLevel::new(false, true, true);
        let mut inner: TokenizerImpl<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel> =
            TokenizerBuilder::new()
                .with_model(BPE::default())
                .with_pre_tokenizer(Some(bytes))
                .with_decoder(Some(bytes))
                .build()
                .map_err(refused)?;
        let texts: Vec<&str> = texts.into_iter().collect();
        inner.train(&mut trainer, texts.into_iter()).map_err(refused)?;
        let json = inner.to_string(false).map_err(refused)?;
        Tokenizer::with_specials(tokenizers::Tokenizer::from_bytes(json).map_err(refused)?)
    }

    /// Reads a `tokenizer.json` for a new model: Lenslet's own special tokens that it lacks are added behind its own. The
    /// tokenizer of a model that has its weights is [`Tokenizer::open`]'s.
    pub fn load(path: &Path) -> Result<Tokenizer> {
        safety::tried_out(path)?;
        Tokenizer::load_here(path)
    }

    fn load_here(path: &Path) -> Result<Tokenizer> {
        let inner = folder::parse(&read_up_to(path, folder::MAX_FILE)?, path)?;
        Tokenizer::with_specials(inner)
    }

    /// Ids of what a user wrote: special tokens in it are ordinary characters, and none are added.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.literal().encode_fast(text, false).map_err(refused))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The tokenizer to which special tokens in a text are ordinary characters.
    fn literal(&self) -> &tokenizers::Tokenizer {
        self.literal.get_or_init(|| {
            let mut literal = tokenizers::Tokenizer::clone(&self.inner);
            literal.set_encode_special_tokens(true);
            literal
        })
    }

    /// Ids of a text as `transformers` gives them: special tokens in it are what they stand for, and with
    /// `add_special_tokens` there are those that the tokenizer puts around a text.
    pub fn tokenize(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guarded(|| self.inner.encode_fast(text, add_special_tokens).map_err(refused))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A special token that [`Tokenizer::tokenize`] would find in a text, if there is one.
    pub fn special_in(&self, text: &str) -> Option<&str> {
        let found = self.special.iter().filter(|token| text.contains(token.as_str()));
        found.min().map(String::as_str)
    }

    /// As [`Tokenizer::tokenize`], with the tokens' places; those that are put behind a text are left out, for the text
    /// goes on.
    pub(crate) fn tokens(&self, text: &str, add_special_tokens: bool) -> Result<Tokens> {
        let encoding = guarded(|| self.inner.encode(text, add_special_tokens).map_err(refused))?;
        let added = encoding.get_special_tokens_mask().iter().rev();
        let count = encoding.len() - added.take_while(|mask| **mask == 1).count();
        Ok(Tokens { ids: encoding.get_ids()[..count].to_vec(), places: encoding.get_offsets()[..count].to_vec() })
    }

    /// The words of a text that are not in the vocabulary: each is one and the same token to a model, whatever it says. And
    /// how many tokens the text has in all. A vocabulary that can write any text, as byte-level BPE's, lacks none.
    ///
    /// ```
    /// let tokenizer = model::Tokenizer::word_level(["what", "colour", "is", "it", "?"])?;
    /// assert_eq!(tokenizer.unknown_words("What color is it?")?, (vec!["color"], 5));
    /// # Ok::<(), model::Error>(())
    /// ```
    pub fn unknown_words<'t>(&self, text: &'t str) -> Result<(Vec<&'t str>, usize)> {
        let ids = self.encode(text)?;
        let Some(unknown) = self.specials.unk.filter(|unknown| ids.contains(unknown)) else {
            return Ok((Vec::new(), ids.len()));
        };
        // Places take longer to find than ids, and few texts need them.
        let encoding = guarded(|| self.literal().encode(text, false).map_err(refused))?;
        let places = encoding.get_ids().iter().zip(encoding.get_offsets());
        let places = places.filter(|(id, _)| **id == unknown).map(|(_, place)| *place);
        let words = places.map(|(from, to)| text.get(from..to).unwrap_or_default());
        Ok((words.collect(), ids.len()))
    }

    /// The text of ids, without special tokens; words joined by single spaces at word level, the very bytes in BPE.
    pub fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, true).map_err(refused))
    }

    /// The text of ids, special tokens too.
    pub fn decode_with_specials(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.inner.decode(ids, false).map_err(refused))
    }

    /// One id as it stands in the vocabulary, special tokens too.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Ids of the special tokens.
    pub fn specials(&self) -> Specials {
        self.specials
    }

    /// Every id that ends an answer, [`Specials::eos`] first.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    /// Number of ids, special tokens included: the highest and one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The id of a token, special or not.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The tokens with a part to play, as configurations name it: `bos_token` and so on.
    pub(crate) fn names(&self) -> &BTreeMap<&'static str, String> {
        &self.names
    }

    /// The same with one more special token, unless it is in the vocabulary already.
    ///
    /// # Errors
    /// When the token is empty.
    pub fn with_token(self, token: &str) -> Result<Tokenizer> {
        if self.id(token).is_some() {
            return Ok(self);
        }
        let mut inner = (*self.inner).clone();
        let added = AddedToken::from(token, true).normalized(false);
        inner.add_special_tokens([added]).map_err(refused)?;
        let mut sources = self.sources;
        folder::forget_vocabulary(&mut sources);
        folder::declare_added(&mut sources, &inner, &self.names)?;
        let ends = self.ends;
        let found = Tokenizer::new(inner, self.names, ends, sources)?;
        match found.id(token) {
            Some(_) => Ok(found),
            None => Err(Error::Tokenizer(format!("`{token}` cannot be added to the vocabulary"))),
        }
    }

    /// The same, with its beginning in front of every text and its end behind it where special tokens are added, as CLIP's
    /// tokenizer has them; one that adds tokens already stays as it is.
    pub fn with_ends(self) -> Result<Tokenizer> {
        if self.inner.get_post_processor().is_some_and(|post| post.added_tokens(false) > 0) {
            return Ok(self);
        }
        let specials = self.specials;
        let token = |id: u32| Some((self.token(id)?, id));
        let bos = specials.bos.and_then(token);
        let eos = token(specials.eos);
        let known: Vec<(String, u32)> = bos.iter().chain(&eos).cloned().collect();
        let names = |token: &Option<(String, u32)>| token.as_ref().map(|(name, _)| name.clone());
        let around: Vec<String> = [names(&bos), Some("$A".into()), names(&eos)].into_iter().flatten().collect();
        let template = TemplateProcessing::builder()
            .try_single(around)
            .map_err(refused)?
            .special_tokens(known)
            .build()
            .map_err(refused)?;
        let mut inner = (*self.inner).clone();
        inner.with_post_processor(Some(template));
        let mut sources = self.sources;
        folder::forget_vocabulary(&mut sources);
        Tokenizer::new(inner, self.names, self.ends, sources)
    }

    fn new(
        inner: tokenizers::Tokenizer,
        names: BTreeMap<&'static str, String>,
        more_ends: Vec<u32>,
        sources: Sources,
    ) -> Result<Tokenizer> {
        let specials = Specials::find(&inner, &names, more_ends.first().copied())?;
        let mut ends = vec![specials.eos];
        ends.extend(more_ends.into_iter().filter(|id| *id != specials.eos));
        let highest = inner.get_vocab(true).into_values().max();
        let special = inner.get_added_tokens_decoder().into_values();
        let special = special.filter(|token| token.special && !token.content.is_empty());
        Ok(Tokenizer {
            special: special.map(|token| token.content).collect(),
            inner: Arc::new(inner),
            literal: Arc::default(),
            names,
            specials,
            ends,
            vocab_size: highest.map_or(0, |id| id as usize + 1),
            sources,
        })
    }

    /// A tokenizer with Lenslet's own special tokens.
    fn with_specials(mut inner: tokenizers::Tokenizer) -> Result<Tokenizer> {
        let tokens = OWN.iter().map(|token| AddedToken::from(*token, true).normalized(false));
        inner.add_special_tokens(tokens).map_err(refused)?;
        Tokenizer::new(inner, folder::own_parts(), Vec::new(), Sources::new())
    }
}

/// Words of a text as the word-level tokenizer splits it.
fn split(text: &str) -> Result<Vec<String>> {
    let mut pieces = PreTokenizedString::from(text);
    BertPreTokenizer.pre_tokenize(&mut pieces).map_err(refused)?;
    let splits = pieces.get_splits(OffsetReferential::Original, OffsetType::Byte);
    Ok(splits.into_iter().map(|(word, ..)| word.to_string()).collect())
}

fn refused(error: impl std::fmt::Display) -> Error {
    Error::Tokenizer(error.to_string())
}
