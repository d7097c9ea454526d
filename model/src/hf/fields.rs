//! A `config.json` read field by field, so that none is passed over in silence.

use crate::error::{Error, Result, at, config};
use crate::files::{parse_json, read_up_to};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Largest file read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Fields that say nothing of what a model computes: how it was started, stored and trained, and what other tools do with its
/// output.
const WITHOUT_EFFECT: &[&str] = &[
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_attn_implementation_internal",
    "_commit_hash",
    "_flash_attn_2_enabled",
    "_from_model_config",
    "_name_or_path",
    "_num_labels",
    "architectures",
    "attn_implementation",
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_factor",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "length_penalty",
    "max_length",
    "max_sequence_length",
    "min_length",
    "model_max_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_labels",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "tokenizer_class",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "typical_p",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    "use_cache",
    "use_flash_attn",
    "use_return_dict",
];

/// Whether a field says, by its value, only what is so without it: each would have an effect with another value.
fn says_nothing_new(name: &str, value: &Value) -> bool {
    match name {
        _ if WITHOUT_EFFECT.contains(&name) || value.is_null() => true,
        "add_cross_attention"
        | "attention_bias"
        | "is_decoder"
        | "is_encoder_decoder"
        | "mlp_bias"
        | "qk_layernorm"
        | "qk_norm"
        | "rope_interleaved"
        | "tie_encoder_decoder"
        | "use_mrope"
        | "use_qk_norm"
        | "use_sliding_window" => *value == false,
        "attention_dropout" | "dropout" | "embd_pdrop" | "hidden_dropout" | "resid_pdrop" => {
            value.as_f64() == Some(0.0)
        }
        "partial_rotary_factor" => value.as_f64() == Some(1.0),
        "pruned_heads" => value.as_object().is_some_and(Map::is_empty),
        _ => false,
    }
}

/// The fields of a JSON object made in code.
pub(super) fn table(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// The error of a configuration that the reference's architectures do not have.
pub(super) fn only_ours<T>(field: &str, message: &str) -> Result<T> {
    config(field, format!("{message}: the model cannot be written as a Hugging Face architecture"))
}

/// The fields of one table of a configuration.
#[derive(Debug)]
pub(crate) struct Fields {
    path: PathBuf,
    /// The tables around, with a dot behind each.
    prefix: String,
    map: Map<String, Value>,
    used: RefCell<BTreeSet<String>>,
}

impl Fields {
    /// Reads a file that holds one JSON object.
    pub(crate) fn open(path: &Path) -> Result<Fields> {
        let map = parse_json(path, &read_up_to(path, MAX_FILE)?)?;
        Ok(Fields::new(path, String::new(), map))
    }

    /// As [`Fields::open`]; no fields where there is no file.
    pub(crate) fn open_if_there(path: &Path) -> Result<Fields> {
        match path.exists() {
            true => Fields::open(path),
            false => Ok(Fields::new(path, String::new(), Map::new())),
        }
    }

    fn new(path: &Path, prefix: String, map: Map<String, Value>) -> Fields {
        Fields { path: path.to_path_buf(), prefix, map, used: RefCell::default() }
    }

    /// An error about a field.
    pub(crate) fn bad<T>(&self, name: &str, message: impl std::fmt::Display) -> Result<T> {
        Err(Error::File { path: self.path.clone(), message: format!("field `{}{name}`: {message}", self.prefix) })
    }

    /// A field, if it is there and not null.
    pub(crate) fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        self.used.borrow_mut().insert(name.to_string());
        match self.map.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match T::deserialize(value) {
                Ok(value) => Ok(Some(value)),
                Err(error) => self.bad(name, error),
            },
        }
    }

    /// A field, or what the reference takes where it is missing.
    pub(crate) fn or<T: DeserializeOwned>(&self, name: &str, default: T) -> Result<T> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    /// A field that has to be there.
    pub(crate) fn need<T: DeserializeOwned>(&self, name: &str) -> Result<T> {
        match self.optional(name)? {
            Some(value) => Ok(value),
            None => self.bad(name, "is missing"),
        }
    }

    /// All fields but those without effect, as one value.
    pub(super) fn whole<T: DeserializeOwned>(mut self) -> Result<T> {
        self.map.retain(|name, value| !says_nothing_new(name, value));
        serde_json::from_value(Value::Object(self.map)).map_err(at(&self.path))
    }

    /// Whether a field is there, null or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all fields.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// Whether there is no field.
    pub(crate) fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// Fails where a field has another value than the only one supported.
    pub(crate) fn only<T: DeserializeOwned + PartialEq + std::fmt::Debug>(&self, name: &str, value: T) -> Result<()> {
        match self.optional::<T>(name)? {
            Some(found) if found != value => self.bad(name, format!("{found:?} is not supported, only {value:?}")),
            _ => Ok(()),
        }
    }

    /// Passes fields over, for a reason that the caller knows.
    pub(crate) fn ignore(&self, names: &[&str]) {
        self.used.borrow_mut().extend(names.iter().map(|name| name.to_string()));
    }

    /// A table, with the values of the table `name_dict` over its own, as old files have it; empty where there is none.
    pub(crate) fn table(&self, name: &str) -> Result<Fields> {
        self.table_or(name, || Value::Null)
    }

    /// As [`Fields::table`], but a table of the caller's where there is none.
    pub(crate) fn table_or(&self, name: &str, default: impl Fn() -> Value) -> Result<Fields> {
        let mut map: Map<String, Value> = self.optional(name)?.unwrap_or_else(|| table(default()));
        map.extend(self.or(&format!("{name}_dict"), Map::new())?);
        Ok(Fields::new(&self.path, format!("{}{name}.", self.prefix), map))
    }

    /// Fails at the first field nobody has asked for and that has an effect.
    pub(crate) fn finish(self) -> Result<()> {
        let used = self.used.borrow();
        let unknown = |(name, value): &(&String, &Value)| !used.contains(*name) && !says_nothing_new(name, value);
        match self.map.iter().find(unknown) {
            None => Ok(()),
            Some((name, value)) => self.bad(name, format!("is not supported (its value is {value})")),
        }
    }
}
