//! Small models and inputs for the tests.

// Each test file is a crate of its own, sees only itself, and uses a part of this.
#![allow(dead_code, unreachable_pub)]

use engine::table::Array;
use engine::{AdamW, DType, Device, Graph, Optimizer, Params, Tensor, Var};
use model::{
    AdapterConfig, AdapterKind, DecoderConfig, LoraConfig, LoraConfigs, QFormerConfig, TextBatch, Turn, VisionConfig,
    Vlm, VlmConfig,
};

/// Every part, as small as it goes; everything on: class token, both kinds of slots, grouped queries, adapters.
pub fn tiny() -> VlmConfig {
    let lora = |target: &str| LoraConfig {
        r: 2,
        lora_alpha: 3.0,
        target_modules: vec![target.into()],
        ..LoraConfig::default()
    };
    VlmConfig {
        vision: VisionConfig {
            image_size: 8,
            patch_size: 4,
            patch_margin: 1,
            hidden_size: 8,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            intermediate_size: 12,
            class_token: true,
            pre_layernorm: true,
            ..VisionConfig::default()
        },
        qformer: Some(QFormerConfig {
            num_query_tokens: 2,
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 6,
            projection: 5,
            ..QFormerConfig::default()
        }),
        adapter: AdapterConfig { kind: AdapterKind::Both, ..AdapterConfig::default() },
        decoder: DecoderConfig {
            hidden_size: 8,
            num_hidden_layers: 2,
            num_attention_heads: 4,
            num_key_value_heads: 2,
            intermediate_size: 12,
            max_position_embeddings: 64,
            embedding_multiplier: 1.5,
            ..DecoderConfig::default()
        },
        vocab_size: 11,
        image_token: None,
        lora: LoraConfigs {
            vision: Some(lora("mlp.fc1")),
            adapter: Some(lora("linear_2")),
            decoder: Some(lora("q_proj")),
        },
    }
}

/// A model whose every parameter, zeros too, has been moved at random: nothing is hidden by a special start.
pub fn build(config: &VlmConfig, dtype: DType) -> (Vlm, Params) {
    let (vlm, mut params) = Vlm::build(config, &Device::cpu(), dtype, 1).unwrap();
    shake(&mut params);
    (vlm, params)
}

pub fn shake(params: &mut Params) {
    for (i, id) in params.ids().enumerate() {
        let value = params.master(id).to_f64().unwrap();
        let mut noise = Array::random(params.shape(id), 0.2, i as u64);
        noise.data.iter_mut().zip(value).for_each(|(n, v)| *n += v);
        let moved = noise.tensor(params.device(), DType::F64).unwrap();
        params.set(id, &moved).unwrap();
    }
}

pub fn pixels(params: &Params, images: usize, side: usize, seed: u64) -> Tensor {
    let pixels = Array::random([images, 3, side, side], 1.0, seed);
    pixels.tensor(params.device(), params.dtype()).unwrap()
}

/// Turns of a row: (ids, how many of the last are learned).
pub fn turn(ids: &[u32], learned: usize) -> Turn {
    Turn { ids: ids.to_vec(), loss_mask: (0..ids.len()).map(|i| i + learned >= ids.len()).collect() }
}

/// Two images, one with two independent turns.
pub fn text() -> TextBatch {
    let rows = [vec![turn(&[4, 8, 9, 5, 10, 2], 3), turn(&[4, 9, 5, 2], 2)], vec![turn(&[4, 10, 8, 5, 9, 2], 2)]];
    TextBatch::pack(&rows, 0, 4).unwrap()
}

/// The loss and the gradients of all parameters, one after another in their order (all are in one group).
pub fn gradients(params: &Params, recompute: bool, loss: impl Fn(&Graph<'_>) -> model::Result<Var>) -> (f64, Vec<f64>) {
    let mut optimizer = Optimizer::new(params, AdamW::default()).unwrap();
    let g = Graph::training(params, 5).with_recomputation(recompute);
    let loss = loss(&g).unwrap();
    g.backward(&loss, optimizer.gradients()).unwrap();
    (loss.tensor().item().unwrap(), optimizer.gradients().tensor().unwrap().to_f64().unwrap())
}

/// Compares gradients with central differences, some elements of each parameter. `loss` must be smooth there.
pub fn check_gradients(params: &mut Params, loss: impl Fn(&Graph<'_>) -> model::Result<Var>) {
    const STEP: f64 = 1e-5;
    let (_, gradient) = gradients(params, false, &loss);
    let scale = gradient.iter().fold(0.0f64, |m, x| m.max(x.abs()));
    let mut offset = 0;
    for id in params.ids() {
        let elements = params.shape(id).elements();
        let value = params.master(id).copy().unwrap();
        for place in [0, elements / 2, elements - 1] {
            let mut at = |by: f64| {
                let mut moved = value.to_f64().unwrap();
                moved[place] += by;
                let moved = Tensor::from_slice(params.device(), &moved, value.shape()).unwrap();
                params.set(id, &moved).unwrap();
                loss(&Graph::inference(params)).unwrap().tensor().item().unwrap()
            };
            let difference = (at(STEP) - at(-STEP)) / (2.0 * STEP);
            let found = gradient[offset + place];
            // Truncation errs by about STEP² = 1e-10, rounding by 1e-16 / STEP = 1e-11.
            assert!(
                (difference - found).abs() < 1e-7 * scale.max(1.0),
                "{}[{place}]: {found}, differences say {difference}",
                params.name(id)
            );
        }
        params.set(id, &value).unwrap();
        offset += elements;
    }
}

pub fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!((f - e).abs() <= tolerance, "element {i}: {f}, expected {e}");
    }
}
