//! Weights and folders: what is written comes back, what is malformed is refused.

mod common;

use common::*;
use engine::{DType, Device, Params};
use model::weights::{TensorFile, load, save};
use model::{Chat, ImageProcessor, Pretrained, Tokenizer, Vlm};
use std::path::Path;

fn values(params: &Params) -> Vec<Vec<f64>> {
    params.ids().map(|id| params.master(id).to_f64().unwrap()).collect()
}

#[test]
fn weights_come_back_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    for dtype in [DType::F32, DType::F64, DType::BF16] {
        let (_, params) = build(&tiny(), dtype);
        save(&params, &path).unwrap();
        let (_, mut other) = Vlm::build(&tiny(), &Device::cpu(), dtype, 99).unwrap();
        assert_ne!(values(&params), values(&other));
        load(&path, &mut other, "").unwrap();
        assert_eq!(values(&params), values(&other));
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn the_reference_reader_agrees() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (_, params) = build(&tiny(), DType::F32);
    save(&params, &path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), params.len());
    for id in params.ids() {
        let tensor = file.tensor(params.name(id)).unwrap();
        assert_eq!(tensor.shape(), &params.shape(id)[..]);
        let found: Vec<f32> = tensor.data().chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!(found, params.master(id).to_vec::<f32>().unwrap());
    }
}

#[test]
fn a_part_loads_under_its_prefix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("decoder.safetensors");
    let mut config = tiny();
    config.lora = Default::default();
    let mut builder = engine::ParamBuilder::new();
    model::Decoder::new(&mut builder, &config.decoder, config.vocab_size, None).unwrap();
    save(&builder.build(&Device::cpu(), DType::F32, 42).unwrap(), &path).unwrap();
    let (_, mut params) = build(&config, DType::F32);
    let before = values(&params);
    load(&path, &mut params, "language_model.").unwrap();
    for (id, (before, after)) in params.ids().zip(before.iter().zip(values(&params))) {
        let name = params.name(id);
        assert_eq!(name.starts_with("language_model."), *before != after, "{name}");
    }
}

#[test]
fn other_shapes_and_names_are_refused_before_anything_changes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (_, params) = build(&tiny(), DType::F32);
    save(&params, &path).unwrap();
    let refused = |change: fn(&mut model::VlmConfig)| {
        let mut config = tiny();
        change(&mut config);
        let (_, mut params) = build(&config, DType::F32);
        let before = values(&params);
        let error = load(&path, &mut params, "").unwrap_err().to_string();
        assert_eq!(before, values(&params));
        assert!(error.contains("model.safetensors"), "{error}");
        error
    };
    let error = refused(|c| c.vocab_size = 12);
    assert!(error.contains("word_embeddings") && error.contains("[11, 8]") && error.contains("(12, 8)"), "{error}");
    let error = refused(|c| c.decoder.tie_word_embeddings = false);
    assert!(error.contains("lm_head.weight") && error.contains("missing"), "{error}");
    let error = refused(|c| c.lora.vision = None);
    assert!(error.contains("fc1.lora_A.weight") && error.contains("not a parameter"), "{error}");
}

/// A file with this header and so many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn open(bytes: &[u8]) -> Result<TensorFile, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    std::fs::write(&path, bytes).unwrap();
    TensorFile::open(&path).map_err(|e| e.to_string())
}

#[test]
fn hostile_files_are_errors() {
    let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    assert_eq!(open(&file(one, 8)).unwrap().shape("a"), Some(&[2][..]));
    assert!(open(&file("{}", 0)).is_ok());
    let cases: [(&str, Vec<u8>); 16] = [
        ("too few", vec![1, 2, 3]),
        ("header", u64::MAX.to_le_bytes().to_vec()),
        ("header", file(one, 8)[..20].to_vec()),
        ("lies at", file(one, 4)),
        ("hole", file(one, 9)),
        ("twice", file(&format!("{},{}", &one[..one.len() - 1], &one[1..]), 8)),
        ("header", file("[1]", 0)),
        ("header", file("\u{1}{", 0)),
        ("lies at", file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8)),
        ("does not fill", file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8)),
        ("does not fill", file(r#"{"a":{"dtype":"F32","shape":[0,18446744073709551615],"data_offsets":[0,8]}}"#, 8)),
        ("does not fill", file(r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0)),
        ("type F8", file(r#"{"a":{"dtype":"F8","shape":[8],"data_offsets":[0,8]}}"#, 8)),
        ("dimensions", file(r#"{"a":{"dtype":"F32","shape":[1,1,1,1,1,2],"data_offsets":[0,8]}}"#, 8)),
        ("unknown field", file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"strides":[1]}}"#, 8)),
        (
            "overlap",
            file(
                r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
                12,
            ),
        ),
    ];
    for (expected, bytes) in cases {
        let error = open(&bytes).err().unwrap_or_else(|| panic!("accepted, expected `{expected}`"));
        assert!(error.contains(expected) && error.contains("x.safetensors"), "{expected}: {error}");
    }
    let huge = file(&" ".repeat((16 << 20) + 1), 0);
    assert!(open(&huge).unwrap_err().contains("header"));
    assert!(TensorFile::open(Path::new("/nowhere/x.safetensors")).unwrap_err().to_string().contains("/nowhere"));
}

#[test]
fn an_open_file_survives_its_replacement() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let one = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    std::fs::write(&path, file(one, 8)).unwrap();
    let open = TensorFile::open(&path).unwrap();
    model::write_atomically(&path, |new| std::io::Write::write_all(new, b"short")).unwrap();
    assert_eq!(open.tensor("a", &Device::cpu()).unwrap().to_f64().unwrap(), [0.0, 0.0]);
    assert!(open.tensor("b", &Device::cpu()).is_err());
}

fn pretrained() -> Pretrained {
    let tokenizer = Tokenizer::word_level(["a", "red", "circle"]).unwrap();
    let (vlm, params) = build(&tiny(), DType::F32);
    let processor = ImageProcessor { size: 8, ..ImageProcessor::default() };
    let chat = Chat::own(&tokenizer).unwrap();
    Pretrained { vlm, params, tokenizer, processor, chat }
}

#[test]
fn a_folder_holds_all_it_takes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/model");
    let saved = pretrained();
    saved.save(&path).unwrap();
    let loaded = Pretrained::load(&path, &Device::cpu(), DType::F32).unwrap();
    assert_eq!(saved.vlm.config, loaded.vlm.config);
    assert_eq!(values(&saved.params), values(&loaded.params));
    assert_eq!(saved.processor, loaded.processor);
    let ids = saved.tokenizer.encode("a red circle").unwrap();
    assert_eq!(ids, loaded.tokenizer.encode("a red circle").unwrap());
    assert_eq!(saved.tokenizer.specials(), loaded.tokenizer.specials());
    let mut names: Vec<String> =
        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(
        names,
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "preprocessor_config.json",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json"
        ]
    );
}

#[test]
fn files_that_do_not_fit_together_are_errors() {
    let folder = tempfile::tempdir().unwrap();
    let load = || Pretrained::load(folder.path(), &Device::cpu(), DType::F32).unwrap_err().to_string();
    assert!(load().contains("config.json"));
    pretrained().save(folder.path()).unwrap();
    let words: Vec<String> = (0..20).map(|i| format!("word{i}")).collect();
    let bigger = Tokenizer::word_level(words.iter().map(String::as_str)).unwrap();
    bigger.save(folder.path()).unwrap();
    assert!(load().contains("vocab_size"));
    pretrained().save(folder.path()).unwrap();
    let processor = ImageProcessor { size: 9, ..ImageProcessor::default() };
    processor.save(folder.path()).unwrap();
    assert!(load().contains("image_size"));
    let misspelt = r#"{"image_processor_type": "CLIPImageProcessor", "sise": 9}"#;
    std::fs::write(folder.path().join("preprocessor_config.json"), misspelt).unwrap();
    assert!(load().contains("sise"));
}

#[test]
fn what_stands_in_the_place_of_a_model_s_file_is_named() {
    const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 269060552\n";
    const PAGE: &[u8] = b"<!DOCTYPE html>\n<html><head><title>model.safetensors</title></head></html>\n";
    const INDEX: &[u8] = br#"{"weight_map": {"w": "model-00001-of-00002.safetensors"}}"#;
    let index = "model.safetensors.index.json";
    let shard = "model-00001-of-00002.safetensors";
    type Files<'f> = &'f [(&'f str, &'f [u8])];
    let cases: [(Files<'_>, &str, &str); 10] = [
        (&[("model.safetensors", POINTER)], "model.safetensors: a Git LFS pointer", "git lfs pull"),
        (&[("model.safetensors", PAGE)], "model.safetensors: an HTML page", "hf download"),
        (&[("model.safetensors", b"PK\x03\x04pickled")], "model.safetensors: a zip", ""),
        (&[("model.safetensors", b"")], "too few", "download it again"),
        (&[(index, POINTER)], "index.json: a Git LFS pointer", ""),
        (&[(index, INDEX), (shard, POINTER)], "00002.safetensors: a Git LFS pointer", ""),
        (&[(index, INDEX)], "00002.safetensors: No such file", ""),
        (&[(shard, POINTER)], shard, "the index that names it"),
        (&[("pytorch_model-00001-of-00002.bin", b"")], "pytorch_model-00001-of-00002.bin is not read", "convert it"),
        (&[("model.gguf", b"GGUF")], "model.gguf is not read", "safetensors"),
    ];
    for (files, expected, advice) in cases {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let error = model::weights::Checkpoint::open(folder.path()).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(advice), "{error}");
    }
    for name in ["config.json", "tokenizer.json", "chat_template.jinja"] {
        let folder = tempfile::tempdir().unwrap();
        let tokenizer = model::Tokenizer::word_level(["a"]).unwrap();
        tokenizer.save(folder.path()).unwrap();
        std::fs::write(folder.path().join(name), POINTER).unwrap();
        let error = match name {
            "config.json" => model::hf::decoder_config(folder.path()).unwrap_err(),
            "tokenizer.json" => model::Tokenizer::open(folder.path()).unwrap_err(),
            _ => model::Chat::open(folder.path(), &tokenizer).unwrap_err(),
        };
        let error = error.to_string();
        assert!(error.contains(name) && error.contains("git lfs pull"), "{error}");
    }
}
