//! Low-rank adapters: where they sit, and merging.

mod common;

use common::*;
use engine::{DType, Device, Graph, Params};
use model::{LoraConfig, Vlm, lora};

fn loss(vlm: &Vlm, params: &Params) -> f64 {
    let g = Graph::inference(params);
    let image = g.input(pixels(params, 2, 8, 3));
    vlm.loss(&g, &image, &text()).unwrap().loss.tensor().item().unwrap()
}

#[test]
fn adapters_sit_where_the_configuration_says() {
    let (_, params) = build(&tiny(), DType::F32);
    let adapted: Vec<&str> = params.ids().filter_map(|id| params.name(id).strip_suffix(".lora_A.weight")).collect();
    assert_eq!(
        adapted,
        [
            "vision_model.encoder.layers.0.mlp.fc1",
            "language_projection.linear_2",
            "multi_modal_projector.linear_2",
            "language_model.model.layers.0.self_attn.q_proj",
            "language_model.model.layers.1.self_attn.q_proj",
        ]
    );
    let id = params.find("language_model.model.layers.0.self_attn.q_proj.lora_B.weight").unwrap();
    assert_eq!(params.shape(id)[..], [8, 2]);
}

#[test]
fn targets_are_whole_names_or_their_last_parts() {
    let lora = LoraConfig { target_modules: vec!["q_proj".into(), "mlp.fc1".into()], ..LoraConfig::default() };
    assert!(lora.targets("self_attn.q_proj") && lora.targets("q_proj") && lora.targets("mlp.fc1"));
    assert!(!lora.targets("faq_proj") && !lora.targets("fc1") && !lora.targets("q_proj.x"));
    assert_eq!(lora.scale(), 2.0);
    assert_eq!(LoraConfig { rslora: true, r: 16, lora_alpha: 8.0, ..lora }.scale(), 2.0);
}

#[test]
fn new_adapters_change_nothing() {
    let mut without = tiny();
    without.lora = Default::default();
    let built = |config| Vlm::build(config, &Device::cpu(), DType::F64, 1).unwrap();
    let ((with, with_params), (without, without_params)) = (built(&tiny()), built(&without));
    assert_eq!(loss(&with, &with_params), loss(&without, &without_params));
}

#[test]
fn merged_weights_stand_alone() {
    let (vlm, params) = build(&tiny(), DType::F64);
    let expected = loss(&vlm, &params);
    let mut plain = tiny();
    plain.lora = Default::default();
    let (alone, mut weights) = Vlm::build(&plain, &Device::cpu(), DType::F64, 7).unwrap();
    let mut changed = 0;
    for id in weights.ids() {
        let adapted = params.find(weights.name(id)).unwrap();
        let merged = lora::merged(&vlm.config.lora, &params, adapted).unwrap();
        changed += usize::from(merged.to_f64().unwrap() != params.master(adapted).to_f64().unwrap());
        weights.set(id, &merged).unwrap();
    }
    assert_eq!(changed, 5);
    assert!((loss(&alone, &weights) - expected).abs() < 1e-12);
}
