//! Tokenizers of other models: the ids their own library gives, and folders that say what their tokens are for.

#[path = "common/data.rs"]
#[allow(unreachable_pub)]
mod data;

use model::{Starts, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::path::Path;
use tempfile::TempDir;

/// A folder with these files.
fn folder(files: &[(&str, Value)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in files {
        std::fs::write(folder.path().join(name), content.to_string()).unwrap();
    }
    folder
}

/// Words as ids, `words` added to them as tokens that are found in texts.
fn vocabulary(words: &[&str], added: &[(&str, bool)]) -> Value {
    let vocab: serde_json::Map<_, _> = words.iter().enumerate().map(|(i, w)| (w.to_string(), json!(i))).collect();
    let token = |(content, special): &(&str, bool)| {
        json!({"id": vocab[*content], "content": content, "special": special, "single_word": false,
               "lstrip": false, "rstrip": false, "normalized": false})
    };
    json!({
        "version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added.iter().map(token).collect::<Vec<_>>(), "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    })
}

const WORDS: [&str; 7] = ["<unk>", "<s>", "</s>", "<end>", "a", "b", "<image>"];

fn plain() -> Value {
    vocabulary(&WORDS, &[("<unk>", true), ("<s>", true), ("</s>", true)])
}

#[test]
fn ids_equal_those_of_the_reference() {
    let Some(data) = data::folder("tokenizers") else { return };
    let golden: Value = serde_json::from_slice(&std::fs::read(data.join("golden.json")).unwrap()).unwrap();
    let golden = golden.as_object().unwrap();
    assert_eq!(golden.len(), 4);
    for (name, cases) in golden {
        let end = if ["t5-small", "phi-3-mini"].contains(&name.as_str()) { "</s>" } else { "<|endoftext|>" };
        let folder = folder(&[("tokenizer_config.json", json!({"eos_token": end}))]);
        let file = data.join(format!("{name}.tokenizer.json"));
        std::fs::copy(&file, folder.path().join("tokenizer.json")).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let cases = cases.as_array().unwrap();
        assert_eq!(cases.len(), 10);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            let ids = |key: &str| serde_json::from_value::<Vec<u32>>(case[key].clone()).unwrap();
            assert_eq!(tokenizer.tokenize(text, true).unwrap(), ids("ids"), "{name}: {text:?}");
            assert_eq!(tokenizer.tokenize(text, false).unwrap(), ids("ids_plain"), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids("ids")).unwrap(), case["decoded"].as_str().unwrap(), "{name}: {text:?}");
            streams(&tokenizer, &ids("ids"));
        }
        written_files_are_the_files_read(&tokenizer, folder.path());
    }
}

fn streams(tokenizer: &Tokenizer, ids: &[u32]) {
    let mut stream = tokenizer.stream();
    let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    text += &stream.finish().unwrap();
    assert_eq!(text, tokenizer.decode(ids).unwrap());
}

fn written_files_are_the_files_read(tokenizer: &Tokenizer, from: &Path) {
    let to = tempfile::tempdir().unwrap();
    tokenizer.save(to.path()).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let name = entry.unwrap().file_name();
        let read = |folder: &Path| std::fs::read(folder.join(&name)).unwrap();
        assert!(read(from) == read(to.path()), "{name:?}");
    }
    let again = Tokenizer::open(to.path()).unwrap();
    assert_eq!((again.specials(), again.ends()), (tokenizer.specials(), &tokenizer.ends()[..1]));
}

#[test]
fn special_tokens_are_named_by_either_file_as_text_or_table() {
    let table = json!({"content": "</s>", "lstrip": false});
    let named = json!({"bos_token": "<s>", "eos_token": table, "pad_token": null, "unk_token": "<unk>"});
    for name in ["tokenizer_config.json", "special_tokens_map.json"] {
        let folder = folder(&[("tokenizer.json", plain()), (name, named.clone())]);
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let s = tokenizer.specials();
        assert_eq!((s.pad, s.bos, s.eos, s.unk), (2, Some(1), 2, Some(0)), "{name}");
        assert_eq!((s.roles, s.starts), (None, Some(Starts { cls: 1, dec: 2 })));
        assert_eq!(tokenizer.vocab_size(), WORDS.len());
        // Texts are read whole, whatever length the file was last used for.
        assert_eq!(tokenizer.tokenize("a b a b </s>", true).unwrap(), [4, 5, 4, 5, 2]);
        assert_eq!(tokenizer.encode("a </s>").unwrap(), [4, 2], "as a word, for it is one in this vocabulary");
        written_files_are_the_files_read(&tokenizer, folder.path());
    }
}

#[test]
fn words_named_as_special_become_special() {
    let config = json!({"eos_token": "<end>", "additional_special_tokens": ["<image>"]});
    let folder = folder(&[("tokenizer.json", plain()), ("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.tokenize("a<image><end>b", false).unwrap(), [4, 6, 3, 5]);
    assert_eq!(tokenizer.decode(&[4, 6, 3, 5]).unwrap(), "a b");
}

#[test]
fn listed_tokens_are_special_in_every_form_that_transformers_writes() {
    let all = json!({"eos_token": "</s>"});
    let listed = json!({"extra_special_tokens": ["<image>", {"content": "<end>"}]});
    let table = json!({"extra_special_tokens": {"image_token": "<image>", "end": "<end>"}});
    let newer = json!({"model_specific_special_tokens": {"image_token": "<image>"}, "end_token": "<end>"});
    for (file, fields) in [
        ("tokenizer_config.json", listed.clone()),
        ("tokenizer_config.json", table),
        ("tokenizer_config.json", newer),
        ("special_tokens_map.json", listed),
    ] {
        let mut config = all.clone();
        let mut files = vec![("tokenizer.json", plain())];
        if file == "tokenizer_config.json" {
            config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        } else {
            files.push((file, fields.clone()));
        }
        files.push(("tokenizer_config.json", config));
        let folder = folder(&files);
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        assert_eq!(tokenizer.tokenize("a<image><end>b", false).unwrap(), [4, 6, 3, 5], "{fields}");
        assert_eq!(tokenizer.decode(&[4, 6, 3, 5]).unwrap(), "a b", "{fields}");
    }
}

#[test]
fn an_added_token_is_declared_for_classes_that_are_made_anew() {
    let table = json!({"content": "</s>", "special": true, "normalized": false});
    for config in [
        json!({"eos_token": "</s>", "tokenizer_class": "GPT2Tokenizer", "added_tokens_decoder": {"2": table}, "model_max_length": 1e30}),
        json!({"tokenizer_class": "GPT2Tokenizer"}),
    ] {
        let map = json!({"eos_token": "</s>", "unk_token": "<unk>"});
        let folder = folder(&[
            ("tokenizer.json", plain()),
            ("tokenizer_config.json", config.clone()),
            ("special_tokens_map.json", map),
        ]);
        let tokenizer = Tokenizer::open(folder.path()).unwrap().with_token("<picture>").unwrap();
        let written = tempfile::tempdir().unwrap();
        tokenizer.save(written.path()).unwrap();
        let text = std::fs::read(written.path().join("tokenizer_config.json")).unwrap();
        let read: Value = serde_json::from_slice(&text).unwrap();
        let added = read["added_tokens_decoder"].as_object().unwrap();
        let contents: Vec<_> = ["0", "1", "2", "7"].map(|id| added[id]["content"].as_str().unwrap()).into();
        assert_eq!(contents, ["<unk>", "<s>", "</s>", "<picture>"], "{config}");
        assert_eq!(added["7"]["special"], true);
        assert_eq!(
            (read["eos_token"].as_str(), &read["model_max_length"]),
            (Some("</s>"), &config["model_max_length"])
        );
        let again = Tokenizer::open(written.path()).unwrap();
        assert_eq!(again.tokenize("a<picture> </s>", true).unwrap(), [4, 7, 2], "{config}");
        assert_eq!(again.specials(), tokenizer.specials());
    }
    let written = tempfile::tempdir().unwrap();
    Tokenizer::word_level(["a"]).unwrap().with_token("<image>").unwrap().save(written.path()).unwrap();
    let text = std::fs::read_to_string(written.path().join("tokenizer_config.json")).unwrap();
    let read: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(read["added_tokens_decoder"]["9"]["content"], "<image>");
}

#[test]
fn older_lists_of_added_tokens_agree_with_the_vocabulary() {
    let open = |added: Value, config: Value| {
        let folder =
            folder(&[("tokenizer.json", plain()), ("added_tokens.json", added), ("tokenizer_config.json", config)]);
        Tokenizer::open(folder.path()).map_or_else(|error| error.to_string(), |_| "read".into())
    };
    let config = json!({"eos_token": "</s>"});
    assert_eq!(open(json!({"<s>": 1}), config.clone()), "read");
    let said = open(json!({"<new>": 7}), config.clone());
    assert!(said.contains("added_tokens.json: field `<new>`") && said.contains("not there"), "{said}");
    // It does not count beside the newer list.
    let newer = json!({"eos_token": "</s>", "added_tokens_decoder": {}});
    assert_eq!(open(json!({"<new>": 7}), newer), "read");
}

#[test]
fn more_ends_come_from_the_generation_configuration() {
    let config = json!({"eos_token": "</s>"});
    for (name, content, ends) in [
        ("generation_config.json", json!({"eos_token_id": [3, 2]}), vec![2, 3]),
        ("generation_config.json", json!({"eos_token_id": 3}), vec![2, 3]),
        ("config.json", json!({"eos_token_id": 3}), vec![2, 3]),
        ("config.json", json!({"text_config": {"eos_token_id": [3]}}), vec![2, 3]),
        ("generation_config.json", json!({}), vec![2]),
    ] {
        let files = [("tokenizer.json", plain()), ("tokenizer_config.json", config.clone()), (name, content)];
        assert_eq!(Tokenizer::open(folder(&files).path()).unwrap().ends(), ends);
    }
    // They also say what ends a text where the tokenizer does not.
    let files = [("tokenizer.json", plain()), ("generation_config.json", json!({"eos_token_id": 3}))];
    let tokenizer = Tokenizer::open(folder(&files).path()).unwrap();
    assert_eq!((tokenizer.specials().eos, tokenizer.specials().bos), (3, None));
}

#[test]
fn llama_puts_around_a_text_what_its_configuration_says() {
    let ids = |config: Value| {
        let folder = folder(&[("tokenizer.json", plain()), ("tokenizer_config.json", config)]);
        Tokenizer::open(folder.path()).unwrap().tokenize("a", true).unwrap()
    };
    assert_eq!(ids(json!({"tokenizer_class": "LlamaTokenizer"})), [1, 4]);
    assert_eq!(
        ids(json!({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": false, "add_eos_token": true})),
        [4, 2]
    );
    assert_eq!(
        ids(json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "add_bos_token": true})),
        [4]
    );
}

#[test]
fn what_does_not_fit_is_named() {
    let fails = |config: Value| {
        let folder = folder(&[("tokenizer.json", plain()), ("tokenizer_config.json", config)]);
        Tokenizer::open(folder.path()).unwrap_err().to_string()
    };
    for (config, expected) in [
        (json!({"eos_token": "<|im_end|>"}), "tokenizer_config.json: field `eos_token`: `<|im_end|>` is not in"),
        (json!({"eos_token": 3}), "field `eos_token`: expected a token, as text or"),
        (json!({"bos_token": "<s>"}), "tokenizer.json: no token ends a text"),
        (json!({"eos_token": "</s>", "split_special_tokens": true}), "field `split_special_tokens`"),
        (json!({"added_tokens_decoder": {"9": {"content": "<s>"}}}), "field `added_tokens_decoder`: `<s>` is 9, but"),
        (json!({"added_tokens_decoder": {"7": {"content": "<new>"}}}), "it is not there"),
        (json!({"tokenizer_class": "LlamaTokenizer", "bos_token": null}), "field `add_bos_token`: true, but"),
    ] {
        let message = fails(config);
        assert!(message.contains(expected), "{message}");
    }
    let empty = tempfile::tempdir().unwrap();
    assert!(Tokenizer::open(empty.path()).unwrap_err().to_string().contains("tokenizer.json"));
}

#[test]
fn the_configuration_says_which_added_tokens_are_special() {
    let token = json!({"content": "<end>", "lstrip": true, "rstrip": true, "special": true, "normalized": false});
    let config = json!({"eos_token": "</s>", "added_tokens_decoder": {"3": token}});
    let folder = folder(&[("tokenizer.json", plain()), ("tokenizer_config.json", config)]);
    let tokenizer = Tokenizer::open(folder.path()).unwrap();
    assert_eq!(tokenizer.decode(&[4, 3, 5]).unwrap(), "a b");
}

/// Any JSON value, small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["<s>", "</s>", "a", "LlamaTokenizer", ""]).prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("content|special|[0-9]|eos_token_id", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

const FIELDS: [&str; 8] = [
    "eos_token",
    "bos_token",
    "added_tokens_decoder",
    "additional_special_tokens",
    "tokenizer_class",
    "add_bos_token",
    "eos_token_id",
    "text_config",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_configuration_makes_it_panic(
        fields in prop::collection::btree_map(prop::sample::select(FIELDS.to_vec()), any_json(), 0..5),
        file in prop::sample::select(vec!["tokenizer_config.json", "special_tokens_map.json", "generation_config.json", "config.json"]),
    ) {
        let folder = folder(&[("tokenizer.json", plain()), (file, json!(fields))]);
        match Tokenizer::open(folder.path()) {
            Ok(tokenizer) => prop_assert!(tokenizer.tokenize("a </s>", true).is_ok()),
            Err(error) => prop_assert!(error.to_string().contains(".json"), "{error}"),
        }
    }

    #[test]
    fn any_ids_stream(ids in prop::collection::vec(0u32..300, 0..40)) {
        let tokenizer = Tokenizer::train_bpe(["Größe, naïve — 日本語"], 300).unwrap();
        let mut stream = tokenizer.stream();
        let mut text: String = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        text += &stream.finish().unwrap();
        prop_assert_eq!(text, tokenizer.decode(&ids).unwrap());
    }
}
