//! How a step is made of parts: shards and accumulation change where sums are taken, not what is learned.

use engine::Device;
use lenslet::phases::Phase;
use lenslet::phases::fit::Step;
use lenslet::recipe::Recipe;
use lenslet::session::Session;
use std::path::Path;

const RECIPE: &str = r#"
[run]
name = "parts"
[data]
source = "scenes"
world = "small"
[model.vision]
image_size = 24
patch_size = 8
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 32
[model.qformer]
num_query_tokens = 2
hidden_size = 16
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 32
projection = 16
[model.adapter]
kind = "mlp"
[model.decoder]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
intermediate_size = 32
[phase1]
steps = 1
batch_size = 8
lr = 1e-3
[phase2]
steps = 4
batch_size = 8
lr = 1e-3
turns = 3
independent_turns = true
"#;

/// The steps of phase 2 alone.
fn steps(overrides: &[&str]) -> Vec<Step> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    let recipe = Recipe::parse(RECIPE, Path::new("parts.toml"), &overrides).expect("a recipe");
    let mut session = Session::new(recipe, &Device::cpu()).expect("a session");
    let mut steps = Vec::new();
    let seen = session.train(Phase::Instruct, |step, _| {
        steps.push(step.clone());
        Ok(())
    });
    seen.expect("trained");
    steps
}

#[test]
fn a_batch_in_shards_or_accumulated_parts_is_the_same_batch() {
    let whole = steps(&[]);
    for parts in [
        &["phase2.shards=2"][..],
        &["phase2.shards=4"],
        &["phase2.batch_size=4", "phase2.accumulate=2"],
        &["phase2.batch_size=4", "phase2.accumulate=2", "phase2.shards=2"],
    ] {
        let cut = steps(parts);
        assert_eq!(cut.len(), whole.len());
        for (a, b) in whole.iter().zip(&cut) {
            assert_eq!((a.accuracy, a.samples), (b.accuracy, b.samples), "{parts:?}");
            // Sums in f32, taken in another order, and what three steps make of it.
            assert!((a.loss / b.loss - 1.0).abs() < 1e-4, "{parts:?}: {a:?} {b:?}");
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3, "{parts:?}: {a:?} {b:?}");
        }
    }
}

#[test]
fn every_so_many_steps_of_phase_2_are_phase_1s() {
    let steps = steps(&["phase2.align_every=2", "phase2.shards=2"]);
    let phases: Vec<Phase> = steps.iter().map(|step| step.phase).collect();
    let (align, instruct) = (Phase::Align, Phase::Instruct);
    assert_eq!(phases, [instruct, align, instruct, align]);
    for step in &steps {
        let names: Vec<&str> = step.parts.iter().map(|(name, _)| *name).collect();
        match step.phase {
            Phase::Align => assert_eq!(names, ["itc", "itm", "itg"]),
            Phase::Instruct => assert!(names.is_empty() && step.accuracy.is_some()),
        }
    }
}
