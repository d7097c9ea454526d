//! Tokenizers in Hugging Face's folders: `tokenizer.json`, and beside it what its tokens are for.

use super::{Tokenizer, refused, safety};
use crate::error::{Error, Result, at};
use crate::files::{parse_json, read_up_to, write_atomically};
use crate::guard::guarded;
use crate::hf::{self, Fields};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, PreTokenizerWrapper};

/// Largest file read, in bytes.
pub(super) const MAX_FILE: u64 = 64 << 20;
/// The vocabulary and how text is split by it.
pub(super) const VOCABULARY: &str = "tokenizer.json";
/// Names of the special tokens, and what `transformers` sets besides.
const CONFIG: &str = "tokenizer_config.json";
/// Names of the special tokens, as older folders have them.
const MAP: &str = "special_tokens_map.json";
/// The parts that tokens play, as configurations name them.
const PARTS: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokens added to the older tokenizers' vocabularies, where the newer configuration does not list them.
const OLD_ADDED: &str = "added_tokens.json";
/// The field of the newer configuration that lists them.
const ADDED: &str = "added_tokens_decoder";

/// The tokens with a part to play.
type Names = BTreeMap<&'static str, String>;

/// The files that a tokenizer came from.
pub(super) type Sources = BTreeMap<&'static str, Arc<Vec<u8>>>;

/// Has the vocabulary written anew, as it is now.
pub(super) fn forget_vocabulary(sources: &mut Sources) {
    sources.remove(VOCABULARY);
}

/// Has the configuration say which tokens were added, and the part of each: `transformers` 5 makes some classes anew from
/// the words of `tokenizer.json` and the added tokens of `tokenizer_config.json`, and would not find the others.
pub(super) fn declare_added(sources: &mut Sources, inner: &tokenizers::Tokenizer, names: &Names) -> Result<()> {
    let Some(source) = sources.get(CONFIG) else {
        return Ok(());
    };
    let mut config: Map<String, Value> = parse_json(Path::new(CONFIG), source)?;
    config.insert(ADDED.into(), added(inner));
    // Where that field is, the older file is not asked for them.
    for (part, token) in names {
        config.entry(*part).or_insert_with(|| json!(token));
    }
    let text = format!("{:#}\n", Value::Object(config));
    sources.insert(CONFIG, Arc::new(text.into_bytes()));
    Ok(())
}

/// The added tokens of a vocabulary, as a configuration lists them.
fn added(inner: &tokenizers::Tokenizer) -> Value {
    let all = inner.get_added_tokens_decoder().into_iter();
    let sorted: BTreeMap<u32, AddedToken> = all.collect();
    json!(sorted)
}

/// The parts of the vocabularies that Lenslet makes.
pub(super) fn own_parts() -> Names {
    let own = [("pad_token", "<pad>"), ("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>")];
    own.map(|(part, token)| (part, token.to_string())).into()
}

/// Where the tokenizer of a model's folder is: an adapter's may be its base's.
pub(crate) fn folder_of(model: &Path) -> Result<PathBuf> {
    let vocabulary = hf::file(model, VOCABULARY)?;
    Ok(vocabulary.parent().unwrap_or(model).to_path_buf())
}

/// Names the file that a tokenizer is from.
fn in_file(path: &Path) -> impl Fn(Error) -> Error {
    move |error| match error {
        Error::Tokenizer(message) => at(path)(message),
        other => other,
    }
}

/// A `tokenizer.json` that reads whole texts and pads none, whatever its file was last used for.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<tokenizers::Tokenizer> {
    let read = || tokenizers::Tokenizer::from_bytes(bytes).map_err(refused);
    let mut inner = guarded(read).map_err(in_file(path))?;
    inner.with_truncation(None).map_err(at(path))?;
    inner.with_padding(None);
    safety::check(&inner).map_err(at(path))?;
    Ok(inner)
}

impl Tokenizer {
    /// Reads the tokenizer of a Hugging Face folder as `transformers` does: `tokenizer.json`, the special tokens from
    /// `tokenizer_config.json` or `special_tokens_map.json`, and from `generation_config.json` what else ends an answer.
    /// No token gets a new id, for a model's embedding table has the size it has.
    ///
    /// # Errors
    /// When a file is missing or malformed, a special token is not in the vocabulary, or none ends a text; each names the
    /// file and the field.
    pub fn open(folder: &Path) -> Result<Tokenizer> {
        safety::tried_out(folder)?;
        Tokenizer::open_here(folder)
    }

    pub(super) fn open_here(folder: &Path) -> Result<Tokenizer> {
        let (model, folder) = (folder, folder_of(folder)?);
        let folder = folder.as_path();
        let mut sources = Sources::new();
        for name in [VOCABULARY, CONFIG, MAP] {
            let path = folder.join(name);
            if name == VOCABULARY || path.exists() {
                sources.insert(name, Arc::new(read_up_to(&path, MAX_FILE)?));
            }
        }
        let path = folder.join(VOCABULARY);
        let mut inner = parse(&sources[VOCABULARY], &path)?;
        let config = Fields::open_if_there(&folder.join(CONFIG))?;
        declare(&mut inner, folder, &config)?;
        let names = names(&mut inner, folder, &config)?;
        split_as_configured(&mut inner, &config, &names)?;
        let ends = ends(model)?;
        Tokenizer::new(inner, names, ends, sources).map_err(in_file(&path))
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json` and `special_tokens_map.json`, which [`Tokenizer::open`] and
    /// `transformers.AutoTokenizer` read, to a folder. Files that the tokenizer came from are written as they were.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(at(folder))?;
        let made = |name: &str| match name {
            VOCABULARY => self.inner.to_string(true).map_err(refused),
            CONFIG => Ok(format!("{:#}\n", self.config())),
            _ => Ok(format!("{:#}\n", json!(self.names))),
        };
        for name in [VOCABULARY, CONFIG, MAP] {
            // A configuration of its own says what the older file would.
            if name == MAP && self.sources.contains_key(CONFIG) && !self.sources.contains_key(MAP) {
                continue;
            }
            let content = match self.sources.get(name) {
                Some(source) => source.to_vec(),
                None => made(name)?.into_bytes(),
            };
            let path = folder.join(name);
            write_atomically(&path, |file| file.write_all(&content)).map_err(at(&path))?;
        }
        Ok(())
    }

    /// The `tokenizer_config.json` of a tokenizer that came without one.
    fn config(&self) -> Value {
        let mut config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
            // Without it `transformers` also gives token types, which no language model takes.
            "model_input_names": ["input_ids", "attention_mask"],
            ADDED: added(&self.inner),
        });
        for (part, token) in &self.names {
            config[part] = json!(token);
        }
        if !self.names.contains_key("eos_token") {
            config["eos_token"] = json!(self.token(self.specials.eos));
        }
        config
    }
}

/// A token in a configuration: text, or a table with its text and how it is found.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a token, as text or {\"content\": text}")]
enum Token {
    Text(String),
    Table(Table),
}

#[derive(Deserialize)]
struct Table {
    content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Token {
    fn content(self) -> String {
        match self {
            Token::Text(content) => content,
            Token::Table(table) => table.content,
        }
    }
}

/// Sets the added tokens as `added_tokens_decoder` says, which has precedence over `tokenizer.json`.
fn declare(inner: &mut tokenizers::Tokenizer, folder: &Path, config: &Fields) -> Result<()> {
    let place = |fields: &Fields, field: &str, token: &str, id: u32| match inner.token_to_id(token) {
        Some(found) if found == id => Ok(()),
        found => {
            let place = found.map_or("is not there".to_string(), |found| format!("has id {found}"));
            fields.bad(field, format!("`{token}` is {id}, but in {VOCABULARY} it {place}"))
        }
    };
    let declared: BTreeMap<u32, Table> = config.or(ADDED, BTreeMap::new())?;
    for (id, table) in &declared {
        place(config, ADDED, &table.content, *id)?;
    }
    if !config.has(ADDED) {
        let old = Fields::open_if_there(&folder.join(OLD_ADDED))?;
        for token in old.names() {
            place(&old, token, token, old.need(token)?)?;
        }
    }
    let token = |table: Table| {
        AddedToken::from(table.content, table.special)
            .single_word(table.single_word)
            .lstrip(table.lstrip)
            .rstrip(table.rstrip)
            .normalized(table.normalized.unwrap_or(!table.special))
    };
    inner.add_tokens(declared.into_values().map(token)).map_err(refused)?;
    Ok(())
}

/// The tokens with a part to play; those that the vocabulary holds as ordinary ones become special.
fn names(inner: &mut tokenizers::Tokenizer, folder: &Path, config: &Fields) -> Result<Names> {
    let map = Fields::open_if_there(&folder.join(MAP))?;
    // `transformers` reads the older file only where the newer one does not list its tokens.
    let old = !config.has(ADDED);
    let mut found = BTreeMap::new();
    for part in PARTS {
        let older = if old { map.optional::<Token>(part)? } else { None };
        let (fields, token) = match older {
            Some(token) => (&map, Some(token)),
            None => (config, config.optional::<Token>(part)?),
        };
        let token = token.map(Token::content).or_else(|| assumed(config, part));
        if let Some(token) = token.filter(|token| !token.is_empty()) {
            make_special(inner, fields, part, &token)?;
            found.insert(part, token);
        }
    }
    for fields in [Some(config), Some(&map).filter(|_| old)].into_iter().flatten() {
        for (field, token) in more_specials(fields)? {
            make_special(inner, fields, &field, &token)?;
        }
    }
    if config.is_empty() && map.is_empty() {
        found.extend(own_parts().into_iter().filter(|(_, token)| inner.token_to_id(token).is_some()));
    }
    Ok(found)
}

/// The special tokens without one of those parts: lists, tables from a part to its token, and further fields `NAME_token`, as
/// the several versions of `transformers` write them. Each with its field.
fn more_specials(fields: &Fields) -> Result<Vec<(String, String)>> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected a list of tokens, or a table from a name to its token")]
    enum Tokens {
        List(Vec<Token>),
        Named(BTreeMap<String, Token>),
    }
    let mut found = Vec::new();
    for field in ["additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"] {
        let tokens = match fields.optional(field)? {
            None => Vec::new(),
            Some(Tokens::List(tokens)) => tokens,
            Some(Tokens::Named(tokens)) => tokens.into_values().collect(),
        };
        found.extend(tokens.into_iter().map(|token| (field.to_string(), token.content())));
    }
    for field in fields.names().filter(|name| name.ends_with("_token") && !PARTS.contains(name)) {
        if let Ok(Some(token)) = fields.optional::<Token>(field) {
            found.push((field.to_string(), token.content()));
        }
    }
    Ok(found)
}

/// What `transformers` takes for a part that Llama's tokenizers do not name.
fn assumed(config: &Fields, part: &str) -> Option<String> {
    let token = match part {
        "bos_token" => "<s>",
        "eos_token" => "</s>",
        "unk_token" => "<unk>",
        _ => return None,
    };
    (is_llama(config) && !config.has(part)).then(|| token.to_string())
}

fn is_llama(config: &Fields) -> bool {
    let class = config.optional::<String>("tokenizer_class");
    matches!(class, Ok(Some(class)) if ["LlamaTokenizer", "LlamaTokenizerFast"].contains(&class.as_str()))
}

fn make_special(inner: &mut tokenizers::Tokenizer, fields: &Fields, part: &str, token: &str) -> Result<()> {
    if inner.token_to_id(token).is_none() {
        return fields.bad(
            part,
            format!(
                "`{token}` is not in {VOCABULARY}; name a token that is there, for a model has no row for a new one"
            ),
        );
    }
    if inner.get_added_vocabulary().get_vocab().contains_key(token) {
        return Ok(());
    }
    inner.add_special_tokens([AddedToken::from(token, true)]).map_err(refused)?;
    Ok(())
}

/// What `transformers` changes in a tokenizer once it is read: the space before a text, and the tokens around it.
fn split_as_configured(inner: &mut tokenizers::Tokenizer, config: &Fields, names: &Names) -> Result<()> {
    config.only("split_special_tokens", false)?;
    if config.is_empty() {
        return Ok(());
    }
    if let Some(PreTokenizerWrapper::ByteLevel(bytes)) = inner.get_pre_tokenizer() {
        let mut bytes = *bytes;
        bytes.add_prefix_space = config.or("add_prefix_space", false)?;
        inner.with_pre_tokenizer(Some(bytes));
    }
    if is_llama(config) {
        let around = llama(inner, config, names)?;
        inner.with_post_processor(Some(around));
    }
    Ok(())
}

/// Llama's tokenizers put what their configuration says around a text, not what `tokenizer.json` says.
fn llama(inner: &tokenizers::Tokenizer, config: &Fields, names: &Names) -> Result<TemplateProcessing> {
    let mut template = vec!["$A".to_string()];
    let mut tokens = Vec::new();
    for (field, default, part) in [("add_bos_token", true, "bos_token"), ("add_eos_token", false, "eos_token")] {
        if !config.or(field, default)? {
            continue;
        }
        let token = names.get(part).and_then(|token| Some((token.clone(), inner.token_to_id(token)?)));
        let Some(token) = token else {
            return config.bad(field, format!("true, but there is no `{part}`"));
        };
        match default {
            true => template.insert(0, token.0.clone()),
            false => template.push(token.0.clone()),
        }
        tokens.push(token);
    }
    let mut builder = TemplateProcessing::builder();
    builder.try_single(template).map_err(refused)?;
    builder.special_tokens(tokens).build().map_err(refused)
}

/// The ids that end an answer besides the tokenizer's own: those of `generation_config.json`, else of `config.json`.
fn ends(folder: &Path) -> Result<Vec<u32>> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected an id or a list of ids")]
    enum Ids {
        One(u32),
        Many(Vec<u32>),
    }
    let generation = Fields::open_if_there(&hf::file(folder, "generation_config.json")?)?;
    let config = Fields::open_if_there(&hf::file(folder, "config.json")?)?;
    let text: Map<String, Value> = config.or("text_config", Map::new())?;
    let text = text.get("eos_token_id").and_then(|ids| Ids::deserialize(ids).ok());
    let ids = match generation.optional("eos_token_id")? {
        None => config.optional("eos_token_id")?.or(text),
        some => some,
    };
    Ok(match ids {
        None => Vec::new(),
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Many(ids)) => ids,
    })
}
