//! Both phases of training with the CUDA kernels, emulated, against the CPU.

use engine::Device;
use kernels::gpu::Emulation;
use lenslet::course::Trained;
use lenslet::phases::Phase;
use lenslet::phases::fit::{Flow, Step};
use lenslet::recipe::Recipe;
use lenslet::session::Session;
use std::path::Path;

const RECIPE: &str = r#"
[run]
name = "emulated"
[data]
source = "scenes"
world = "small"
[model.vision]
image_size = 24
patch_size = 8
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
intermediate_size = 48
[model.qformer]
num_query_tokens = 3
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
intermediate_size = 48
projection = 16
[model.adapter]
kind = "both"
[model.decoder]
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 4
num_key_value_heads = 2
intermediate_size = 48
[phase1]
steps = 5
batch_size = 6
lr = 1e-3
[phase2]
steps = 5
batch_size = 4
lr = 1e-3
turns = 3
independent_turns = true
align_every = 2
"#;

fn steps(device: &Device, precision: &str) -> Vec<Step> {
    let overrides = [format!("run.dtype=\"{precision}\"")];
    let recipe = Recipe::parse(RECIPE, Path::new("emulated.toml"), &overrides).expect("a recipe");
    let mut session = Session::new(recipe, device).expect("a session");
    let mut steps = Vec::new();
    for phase in [Phase::Align, Phase::Instruct] {
        let seen = session.train(phase, None, &mut |step, _, _, _| {
            steps.push(step.clone());
            Ok(Flow::Continue)
        });
        seen.expect("trained");
    }
    steps
}

/// Five steps of each phase; `tolerance` is relative, of loss and gradient norm.
fn follows_the_cpu(precision: &str, tolerance: f64) {
    let emulated = Device::emulated(Emulation::default()).expect("a C++ compiler");
    let (expected, found) = (steps(&Device::cpu(), precision), steps(&emulated, precision));
    assert_eq!(expected.len(), found.len());
    for (cpu, gpu) in expected.iter().zip(&found) {
        let off = |a: f64, b: f64| (a / b - 1.0).abs();
        assert!(
            off(gpu.loss, cpu.loss) < tolerance && off(gpu.grad_norm, cpu.grad_norm) < 5.0 * tolerance,
            "{precision}: {gpu:?}, expected {cpu:?}"
        );
    }
}

/// Sums in another order, five steps of them.
#[test]
fn training_follows_the_cpu_in_f32() {
    follows_the_cpu("f32", 1e-4);
}

/// bf16 keeps 8 bits: each of some ten roundings on the way to the loss may fall the other way.
#[test]
fn training_follows_the_cpu_in_bf16() {
    follows_the_cpu("bf16", 1e-2);
}

#[test]
fn collected_work_gives_the_same_losses() {
    let [at_once, collected] = [false, true].map(|collecting| {
        let device = Device::emulated(Emulation::default()).expect("a C++ compiler");
        device.collect_work(collecting).expect("nothing waits");
        steps(&device, "bf16")
    });
    for (a, b) in at_once.iter().zip(&collected) {
        assert_eq!((a.loss, a.grad_norm, &a.parts), (b.loss, b.grad_norm, &b.parts));
    }
    assert_eq!(at_once.len(), collected.len());
}

/// Only what is logged, after each step's work has been handed out.
#[test]
fn only_what_is_logged_comes_back_to_the_host() {
    let device = Device::emulated(Emulation::default()).expect("a C++ compiler");
    let recipe = Recipe::parse(RECIPE, Path::new("emulated.toml"), &[]).expect("a recipe");
    let mut session = Session::new(recipe, &device).expect("a session");
    for phase in [Phase::Align, Phase::Instruct] {
        let mut before = device.downloads();
        let seen = session.train(phase, None, &mut |step, _, _, _| {
            let here = device.downloads();
            // The norm and the loss; then the loss's three parts, or the predictions.
            let expected = 2 + if step.phase == Phase::Align { 3 } else { 1 };
            assert_eq!(here - before, expected, "{step:?}");
            before = here;
            Ok(Flow::Continue)
        });
        seen.expect("trained");
    }
}
