//! The whole model: shapes, gradients, independence of turns, freezing, precision.

mod common;

use common::*;
use engine::{AdamW, DType, Device, Graph, Optimizer};
use model::{AdapterKind, GroupRule, ImageAttention, ImagePositions, PositionKind, TextBatch, Turn, Vlm, set_groups};

#[test]
fn every_adapter_gives_its_slots() {
    for (kind, slots) in [(AdapterKind::Qformer, 2), (AdapterKind::Mlp, 4), (AdapterKind::Both, 6)] {
        let mut config = tiny();
        config.adapter.kind = kind;
        let (vlm, params) = build(&config, DType::F32);
        let g = Graph::inference(&params);
        let visual = vlm.visual_tokens(&g, &g.input(pixels(&params, 3, 8, 0))).unwrap();
        assert_eq!(visual.shape()[..], [3, slots, 8]);
        assert_eq!(config.image_tokens(), slots);
    }
}

#[test]
fn gradients_agree_with_differences() {
    let mut config = tiny();
    config.vision.positions = PositionKind::Learned;
    let (vlm, mut params) = build(&config, DType::F64);
    let (images, text) = (pixels(&params, 2, 8, 3), text());
    check_gradients(&mut params, |g| Ok(vlm.loss(g, &g.input(images.clone()), &text)?.loss));
}

#[test]
fn gradients_agree_with_differences_in_other_variants() {
    let mut config = tiny();
    config.adapter.kind = AdapterKind::Mlp;
    config.qformer = None;
    config.vision.class_token = false;
    config.vision.pre_layernorm = false;
    config.vision.patch_hidden = Some(6);
    config.decoder.tie_word_embeddings = false;
    config.decoder.image_attention = ImageAttention::Causal;
    config.decoder.image_positions = ImagePositions::Sequential;
    config.lora = Default::default();
    let (vlm, mut params) = build(&config, DType::F64);
    let (images, text) = (pixels(&params, 2, 8, 4), text());
    check_gradients(&mut params, |g| Ok(vlm.loss(g, &g.input(images.clone()), &text)?.loss));
}

#[test]
fn recomputation_changes_no_bit() {
    let mut config = tiny();
    config.vision.dropout = 0.1;
    config.decoder.dropout = 0.2;
    config.qformer.as_mut().unwrap().dropout = 0.1;
    config.lora.decoder.as_mut().unwrap().lora_dropout = 0.3;
    let (vlm, params) = build(&config, DType::F32);
    let (images, text) = (pixels(&params, 2, 8, 3), text());
    let run = |recompute| gradients(&params, recompute, |g| Ok(vlm.loss(g, &g.input(images.clone()), &text)?.loss));
    let (kept, again) = (run(false), run(true));
    assert!(kept.1.iter().any(|x| *x != 0.0));
    assert_eq!(kept, again);
}

#[test]
fn turns_of_one_image_do_not_see_each_other() {
    for image_attention in [ImageAttention::Causal, ImageAttention::Full] {
        let mut config = tiny();
        config.decoder.image_attention = image_attention;
        let (vlm, params) = build(&config, DType::F64);
        let image = pixels(&params, 1, 8, 9);
        let losses = |rows: &[Vec<Turn>]| {
            let g = Graph::inference(&params);
            let text = TextBatch::pack(rows, 0, 1).unwrap();
            vlm.loss(&g, &g.input(image.clone()), &text).unwrap().losses.to_f64().unwrap()
        };
        let (a, b) = (turn(&[4, 8, 9, 5, 10, 2], 4), turn(&[4, 9, 7, 5, 2], 3));
        let together = losses(&[vec![a.clone(), b.clone()]]);
        assert!(together.iter().filter(|l| **l > 0.0).count() == 7);
        close(&together[..6], &losses(&[vec![a.clone()]]), 1e-12);
        close(&together[6..], &losses(&[vec![b.clone()]]), 1e-12);
        // The same tokens as one conversation do see each other.
        let joined = Turn { ids: [a.ids, b.ids].concat(), loss_mask: [a.loss_mask, b.loss_mask].concat() };
        let joined = losses(&[vec![joined]]);
        assert!((joined[8] - together[8]).abs() > 1e-6);
    }
}

#[test]
fn padding_and_later_text_change_nothing() {
    let (vlm, params) = build(&tiny(), DType::F64);
    let image = pixels(&params, 1, 8, 9);
    let states = |ids: &[u32], multiple| {
        let g = Graph::inference(&params);
        let text = TextBatch::pack(&[vec![turn(ids, 0)]], 0, multiple).unwrap();
        let visual = vlm.visual_tokens(&g, &g.input(image.clone())).unwrap();
        vlm.text_states(&g, &visual, &text).unwrap().tensor().to_f64().unwrap()
    };
    let short = states(&[4, 8, 9], 1);
    close(&states(&[4, 8, 9], 8)[..24], &short, 1e-12);
    close(&states(&[4, 8, 9, 10, 3], 1)[..24], &short, 1e-12);
}

#[test]
fn the_image_matters() {
    let (vlm, params) = build(&tiny(), DType::F64);
    let text = TextBatch::pack(&[vec![turn(&[4, 8, 5, 2], 2)]], 0, 1).unwrap();
    let loss = |seed| {
        let g = Graph::inference(&params);
        let image = g.input(pixels(&params, 1, 8, seed));
        vlm.loss(&g, &image, &text).unwrap().loss.tensor().item().unwrap()
    };
    assert!((loss(1) - loss(2)).abs() > 1e-6);
}

#[test]
fn frozen_parameters_keep_every_bit() {
    let (vlm, mut params) = build(&tiny(), DType::F32);
    let rule =
        |pattern: &str, freeze| GroupRule { pattern: pattern.into(), lr_scale: 2.0, freeze, ..GroupRule::default() };
    let rules = [rule("*lora_*", false), rule("vision_model.*", true), rule("language_model.*", true)];
    set_groups(&mut params, &rules, 0.1, None).unwrap();
    let values = |params: &engine::Params| -> Vec<Vec<f64>> {
        params.ids().map(|id| params.master(id).to_f64().unwrap()).collect()
    };
    let before = values(&params);
    let mut optimizer = Optimizer::new(&params, AdamW::default()).unwrap();
    let images = pixels(&params, 2, 8, 3);
    let g = Graph::training(&params, 0);
    let loss = vlm.loss(&g, &g.input(images), &text()).unwrap().loss;
    g.backward(&loss, optimizer.gradients()).unwrap();
    drop((g, loss));
    optimizer.step(&mut params, 1e-2).unwrap();
    let after = values(&params);
    for (i, id) in params.ids().enumerate() {
        let name = params.name(id);
        let part = name.starts_with("vision_model.") || name.starts_with("language_model.");
        assert_eq!(params.is_frozen(id), part && !name.contains("lora_"), "{name}");
        if params.is_frozen(id) {
            assert_eq!(before[i], after[i], "{name}");
        }
        // The key's bias moves all scores of a query alike and so has no effect; the Q-Former's text side is not used.
        if name.contains("lora_") || name.contains("linear_") {
            assert_ne!(before[i], after[i], "{name}");
        }
    }
}

#[test]
fn a_rule_that_fits_nothing_is_an_error() {
    let (_, mut params) = build(&tiny(), DType::F32);
    let rule = GroupRule { pattern: "vision.*".into(), lr_scale: 1.0, freeze: true, ..GroupRule::default() };
    let error = set_groups(&mut params, &[rule], 0.0, None).unwrap_err().to_string();
    assert!(error.contains("vision.*"), "{error}");
}

#[test]
fn bf16_stays_close_to_f32() {
    let states = |dtype| {
        let (vlm, params) = build(&tiny(), dtype);
        let g = Graph::inference(&params);
        let visual = vlm.visual_tokens(&g, &g.input(pixels(&params, 2, 8, 3))).unwrap();
        let out = vlm.text_states(&g, &visual, &text()).unwrap();
        out.tensor().to_f64().unwrap()
    };
    let (low, high) = (states(DType::BF16), states(DType::F32));
    let norm = |x: &[f64]| x.iter().map(|v| v * v).sum::<f64>().sqrt();
    let off: Vec<f64> = low.iter().zip(&high).map(|(l, h)| l - h).collect();
    // Some twenty roundings of 2⁻⁹ on the way, amplified by norms over few dimensions.
    let error = norm(&off) / norm(&high);
    assert!(error > 0.0 && error < 0.05, "{error}");
}

#[test]
fn attention_maps_are_weights_over_patches() {
    let (vlm, params) = build(&tiny(), DType::F64);
    let g = Graph::inference(&params);
    let image = g.input(pixels(&params, 1, 8, 3));
    let maps = vlm.attention_maps(&g, &image, &[4, 8, 9, 5]).unwrap();
    assert_eq!((maps.layers, maps.heads, maps.grid, maps.slots()), (2, 4, Some(2), 4));
    assert_eq!(maps.weights.len(), 2 * 4 * 4);
    assert!(maps.weights.iter().all(|w| *w > 0.0 && *w < 1.0));
    assert!(maps.weights.chunks(4).all(|map| map.iter().sum::<f32>() < 1.0));
    assert_eq!(maps.mean().len(), 4);
}

#[test]
fn a_small_model_learns_to_tell_images_apart() {
    let mut config = tiny();
    config.lora = Default::default();
    let (vlm, mut params) = Vlm::build(&config, &Device::cpu(), DType::F32, 0).unwrap();
    let images = pixels(&params, 3, 8, 5);
    let rows: Vec<Vec<Turn>> = [8, 9, 10].map(|answer| vec![turn(&[4, 7, 5, answer, 2], 2)]).into();
    let text = TextBatch::pack(&rows, 0, 1).unwrap();
    let mut optimizer = Optimizer::new(&params, AdamW::default()).unwrap();
    for step in 0..100 {
        let g = Graph::training(&params, step);
        let loss = vlm.loss(&g, &g.input(images.clone()), &text).unwrap().loss;
        g.backward(&loss, optimizer.gradients()).unwrap();
        drop((g, loss));
        optimizer.step(&mut params, 1e-2).unwrap();
    }
    let prompts = [0, 1, 2].map(|image| (image, vec![4, 7, 5]));
    let answers = vlm.answer(&params, &images, &prompts, 3, &[2]).unwrap();
    assert_eq!(answers, [[8], [9], [10]]);
}

#[test]
fn a_step_on_the_trace_device_counts_memory() {
    let device = Device::trace();
    let (vlm, params) = Vlm::build(&tiny(), &device, DType::F32, 0).unwrap();
    let g = Graph::training(&params, 0);
    let images = engine::Tensor::zeros(&device, DType::F32, [2, 3, 8, 8]).unwrap();
    let mut optimizer = Optimizer::new(&params, AdamW::default()).unwrap();
    let loss = vlm.loss(&g, &g.input(images), &text()).unwrap().loss;
    g.backward(&loss, optimizer.gradients()).unwrap();
    assert!(device.memory().peak_in_use > 4 * params.count().0);
}

#[test]
fn configurations_that_make_no_model_name_the_field() {
    type Change = fn(&mut model::VlmConfig);
    let cases: [(&str, Change); 9] = [
        ("vision.patch_hidden", |c| c.vision.patch_hidden = Some(0)),
        ("vision.patch_size", |c| c.vision.patch_size = 3),
        ("vision.num_attention_heads", |c| c.vision.num_attention_heads = 3),
        ("qformer", |c| c.qformer = None),
        ("decoder.num_key_value_heads", |c| c.decoder.num_key_value_heads = 3),
        ("decoder.head_dim", |c| c.decoder.head_dim = Some(3)),
        ("decoder.max_position_embeddings", |c| c.decoder.max_position_embeddings = 6),
        ("vocab_size", |c| c.vocab_size = 0),
        ("lora.vision.r", |c| c.lora.vision.as_mut().unwrap().r = 0),
    ];
    for (field, change) in cases {
        let mut config = tiny();
        config.validate().unwrap();
        change(&mut config);
        let error = config.validate().unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
    }
    assert!(serde_json::from_str::<model::VlmConfig>(r#"{"vision": {"pach_size": 4}}"#).is_err());
}

/// The same images and texts, once with the slots in front and once within the texts, as ids say.
#[test]
fn images_within_texts_are_those_in_front_where_they_stand_there() {
    const IMAGE: u32 = 7;
    let mut config = tiny();
    config.decoder.image_attention = ImageAttention::Causal;
    config.decoder.image_positions = ImagePositions::Sequential;
    let (slots, turns) = (config.image_tokens(), [turn(&[4, 8, 9, 2], 2), turn(&[4, 10, 5, 2], 2)]);
    let in_front = TextBatch::pack(&turns.clone().map(|turn| vec![turn]), 0, 1).unwrap();
    let (vlm, params) = build(&config, DType::F64);
    let images = pixels(&params, 2, 8, 3);
    let g = Graph::inference(&params);
    let wanted = vlm.text_states(&g, &vlm.visual_tokens(&g, &g.input(images.clone())).unwrap(), &in_front);
    let wanted = wanted.unwrap().tensor().to_f64().unwrap();

    config.image_token = Some(IMAGE);
    let (vlm, params) = build(&config, DType::F64);
    // The images in the other order, each row naming its own.
    let within = turns.map(|mut turn| {
        turn.ids.insert(0, IMAGE);
        turn.loss_mask.insert(0, false);
        turn.expand(IMAGE, slots);
        vec![turn]
    });
    let mut within = TextBatch::pack(&within, 0, 1).unwrap();
    within.images = vec![1, 0];
    let g = Graph::inference(&params);
    let swapped = engine::Tensor::from_slice(&Device::cpu(), &[1, 0], [2]).unwrap();
    let images = engine::ops::embedding(&g.input(images), &swapped).unwrap();
    let visual = vlm.visual_tokens(&g, &images).unwrap();
    let found = vlm.text_states(&g, &visual, &within).unwrap().tensor().to_f64().unwrap();
    let width = 4 * config.decoder.hidden_size;
    for (row, found) in found.chunks(found.len() / 2).enumerate() {
        close(&found[found.len() - width..], &wanted[row * width..][..width], 1e-12);
    }

    within.images.pop();
    let error = vlm.text_states(&g, &visual, &within).err().unwrap().to_string();
    assert!(error.contains("places for images"), "{error}");
}
