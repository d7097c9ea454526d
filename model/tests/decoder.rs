//! The decoder: its cache, and a real trained Llama.

mod common;

use common::*;
use engine::ops::Attend;
use engine::{DType, Device, Graph, ParamBuilder, Tensor, ops};
use model::{Decoder, DecoderConfig};
use std::path::PathBuf;

fn decoder(config: &DecoderConfig, vocab: usize, dtype: DType) -> (Decoder, engine::Params) {
    let mut builder = ParamBuilder::new();
    let decoder = Decoder::new(&mut builder, config, vocab, None).unwrap();
    (decoder, builder.build(&Device::cpu(), dtype, 0).unwrap())
}

fn positions(device: &Device, start: i32, count: usize) -> Tensor {
    let positions: Vec<i32> = (start..).take(count).collect();
    Tensor::from_slice(device, &positions, [1, count]).unwrap()
}

#[test]
fn tokens_through_the_cache_equal_the_whole_sequence() {
    let (decoder, mut params) = decoder(&tiny().decoder, 11, DType::F64);
    shake(&mut params);
    let device = params.device().clone();
    let ids = [3, 7, 1, 9, 10, 2, 2];
    let g = Graph::inference(&params);
    let embed = |ids: &[i32]| {
        let ids = Tensor::from_slice(&device, ids, [1, ids.len()]).unwrap();
        decoder.embed(&g, &ids).unwrap()
    };
    let whole = decoder.forward(&g, &embed(&ids), &positions(&device, 0, 7), &Attend::causal());
    let whole = whole.unwrap().tensor().to_f64().unwrap();
    for split in [[1, 1, 1, 1, 1, 1, 1].as_slice(), &[3, 1, 3], &[7]] {
        let mut cache = decoder.cache(&g, 1, 8).unwrap();
        let mut found = Vec::new();
        let mut start = 0;
        for &count in split {
            let x = embed(&ids[start..start + count]);
            let place = positions(&device, start as i32, count);
            let out = decoder.step(&g, &x, &place, &Attend::causal(), &mut cache).unwrap();
            found.extend(out.tensor().to_f64().unwrap());
            start += count;
        }
        assert_eq!(cache.len(), 7);
        close(&found, &whole, 1e-12);
        let x = embed(&[1, 2]);
        let error = decoder.step(&g, &x, &positions(&device, 7, 2), &Attend::causal(), &mut cache);
        assert!(error.err().unwrap().to_string().contains("capacity of 8"));
    }
}

#[test]
fn a_gathered_cache_continues_each_sequence() {
    let (decoder, mut params) = decoder(&tiny().decoder, 11, DType::F64);
    shake(&mut params);
    let device = params.device().clone();
    let g = Graph::inference(&params);
    let run = |ids: &[i32], batch: usize, start: i32, cache: &mut model::KvCache| {
        let tokens = ids.len() / batch;
        let ids = Tensor::from_slice(&device, ids, [batch, tokens]).unwrap();
        let place: Vec<i32> = (0..batch).flat_map(|_| start..start + tokens as i32).collect();
        let place = Tensor::from_slice(&device, &place, [batch, tokens]).unwrap();
        let x = decoder.embed(&g, &ids).unwrap();
        let out = decoder.step(&g, &x, &place, &Attend::causal(), cache).unwrap();
        out.tensor().to_f64().unwrap()
    };
    let mut two = decoder.cache(&g, 2, 5).unwrap();
    run(&[3, 4, 5, 6, 7, 8], 2, 0, &mut two);
    let mut swapped = two.gather(&[1, 0, 1]).unwrap();
    let after = run(&[9, 9, 9], 3, 3, &mut swapped);
    let straight = run(&[9, 9], 2, 3, &mut two);
    close(&after[..8], &straight[8..], 1e-13);
    close(&after[8..16], &straight[..8], 1e-13);
    close(&after[16..], &straight[8..], 1e-13);
}

/// A folder of shared test data; none when it is not there, which in continuous integration is a failure.
fn data(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("LENSLET_DATA").map(PathBuf::from);
    let root = root.unwrap_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data")));
    let folder = root.join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(std::env::var_os("CI").is_none(), "{} is missing", folder.display());
    eprintln!("skipped: {} is missing; set LENSLET_DATA", folder.display());
    None
}

#[test]
fn a_trained_llama_tells_its_story() {
    let Some(folder) = data("stories260K") else { return };
    let read =
        |name| -> serde_json::Value { serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap() };
    let (file, golden) = (read("config.json"), read("golden.json"));
    let size = |field: &str| file[field].as_u64().unwrap() as usize;
    let config = DecoderConfig {
        hidden_size: size("hidden_size"),
        num_hidden_layers: size("num_hidden_layers"),
        num_attention_heads: size("num_attention_heads"),
        num_key_value_heads: size("num_key_value_heads"),
        intermediate_size: size("intermediate_size"),
        rope_theta: file["rope_theta"].as_f64().unwrap(),
        rms_norm_eps: file["rms_norm_eps"].as_f64().unwrap(),
        tie_word_embeddings: file["tie_word_embeddings"].as_bool().unwrap(),
        max_position_embeddings: size("max_position_embeddings"),
        ..DecoderConfig::default()
    };
    let (decoder, mut params) = decoder(&config, size("vocab_size"), DType::F32);
    model::weights::load(&folder.join("model.safetensors"), &mut params, "").unwrap();
    let golden: Vec<i32> =
        golden["greedy_ids"].as_array().unwrap().iter().map(|v| v.as_i64().unwrap() as i32).collect();
    assert!(golden.len() > 100);
    let g = Graph::inference(&params);
    let mut cache = decoder.cache(&g, 1, golden.len()).unwrap();
    let mut ids = vec![golden[0]];
    while ids.len() < golden.len() {
        let last = Tensor::from_slice(params.device(), &ids[ids.len() - 1..], [1, 1]).unwrap();
        let place = positions(params.device(), ids.len() as i32 - 1, 1);
        let x = decoder.embed(&g, &last).unwrap();
        let out = decoder.step(&g, &x, &place, &Attend::causal(), &mut cache).unwrap();
        let logits = ops::linear(&out, &g.param(decoder.head()), None).unwrap().tensor().to_f64().unwrap();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
        ids.push(best as i32);
    }
    assert_eq!(ids, golden);
}
