//! How a step is made of parts: shards and accumulation change where sums are taken, not what is learned.

use anyhow::Result;
use engine::{DType, Device, Graph, Init, ParamBuilder, Tensor, Var, ops};
use lenslet::course::Trained;
use lenslet::phases::Phase;
use lenslet::phases::fit::{Flow, Losses, Objective, Part, Step, fit, optimizer};
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
    steps_of(Phase::Instruct, overrides)
}

fn steps_of(phase: Phase, overrides: &[&str]) -> Vec<Step> {
    let overrides: Vec<String> = overrides.iter().map(|o| o.to_string()).collect();
    let recipe = Recipe::parse(RECIPE, Path::new("parts.toml"), &overrides).expect("a recipe");
    let mut session = Session::new(recipe, &Device::cpu()).expect("a session");
    let mut steps = Vec::new();
    let seen = session.train(phase, None, &mut |step, _, _, _| {
        steps.push(step.clone());
        Ok(Flow::Continue)
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

/// What is contrasted, and what wrong pairs are drawn from, is all that one step sees of a shard.
#[test]
fn accumulated_parts_are_contrasted_as_one_batch() {
    let settings = ["phase1.steps=3", "phase1.itm_hardness=2.0", "model.qformer.dropout=0.0"];
    for (whole, cut) in [
        (["phase1.batch_size=8", "phase1.shards=1"], ["phase1.batch_size=4", "phase1.accumulate=2"]),
        (["phase1.batch_size=8", "phase1.shards=1"], ["phase1.batch_size=2", "phase1.accumulate=4"]),
        (["phase1.batch_size=8", "phase1.shards=2"], ["phase1.batch_size=4", "phase1.accumulate=2"]),
    ] {
        let shards = whole[1];
        let run = |parts: &[&str]| steps_of(Phase::Align, &[&settings[..], parts, &[shards]].concat());
        for (a, b) in run(&whole).iter().zip(&run(&cut)) {
            // As above; the third step sees what two steps made of it.
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-3, "{whole:?} {cut:?}: {a:?} {b:?}");
            for ((name, x), (_, y)) in a.parts.iter().zip(&b.parts) {
                assert!((x / y - 1.0).abs() < 1e-4, "{whole:?} {cut:?}, {name}: {a:?} {b:?}");
            }
        }
    }
}

/// Captions alone, which differ in length: a mean of the parts' means would not be the batch's.
#[test]
fn captions_are_learned_as_one_batch_however_it_is_cut() {
    let settings = ["phase1.steps=2", "phase1.itc=0", "phase1.itm=0", "model.qformer.dropout=0.0"];
    let run = |parts: &[&str]| steps_of(Phase::Align, &[&settings[..], parts].concat());
    let whole = run(&[]);
    for parts in [
        &["phase1.shards=4"][..],
        &["phase1.batch_size=2", "phase1.accumulate=4"],
        &["phase1.batch_size=4", "phase1.accumulate=2", "phase1.shards=2"],
    ] {
        for (a, b) in whole.iter().zip(&run(parts)) {
            assert!((a.loss / b.loss - 1.0).abs() < 1e-5, "{parts:?}: {a:?} {b:?}");
            assert!((a.grad_norm / b.grad_norm - 1.0).abs() < 1e-4, "{parts:?}: {a:?} {b:?}");
        }
    }
}

/// The loss on what is held out, of a model that has hardly moved.
fn held_out(phase: Phase, overrides: &[&str]) -> f64 {
    let settings = ["eval.limit=14", "phase1.lr=1e-12", "phase2.steps=1", "phase2.lr=1e-12"];
    let overrides: Vec<String> = settings.iter().chain(overrides).map(|o| o.to_string()).collect();
    let recipe = Recipe::parse(RECIPE, Path::new("parts.toml"), &overrides).expect("a recipe");
    let mut session = Session::new(recipe, &Device::cpu()).expect("a session");
    let mut found = f64::NAN;
    let seen = session.train(phase, None, &mut |_, params, _, measure| {
        found = measure(params)?;
        Ok(Flow::Continue)
    });
    seen.expect("trained");
    found
}

#[test]
fn the_held_out_loss_is_that_of_all_images_for_every_batch_size() {
    for (phase, name, more) in
        [(Phase::Instruct, "phase2", &[][..]), (Phase::Align, "phase1", &["phase1.itc=0", "phase1.itm=0"])]
    {
        let run = |size: usize| held_out(phase, &[more, &[&format!("{name}.batch_size={size}")]].concat());
        let whole = run(14);
        for size in [7, 8, 10, 5, 1] {
            let found = run(size);
            assert!((found - whole).abs() < 2e-6, "{name}, batches of {size}: {found}, all at once {whole}");
        }
    }
    // Batches of 8 and of 7 images contrast two times 7: the last of 14 images would be without another, and its loss 0.
    let [seven, eight] =
        [7, 8].map(|size| held_out(Phase::Align, &[&format!("phase1.batch_size={size}"), "phase1.itm=0"]));
    assert!((seven - eight).abs() < 2e-6, "{seven} {eight}");
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
            Phase::Contrast => panic!("no dual encoder was asked for"),
            Phase::Align => assert_eq!(names, ["itc", "itm", "itg"]),
            Phase::Instruct => assert!(names.is_empty() && step.accuracy.is_some()),
        }
    }
}

/// A loss that is infinite at the third batch, while its gradient is 1 throughout.
struct Infinite;

impl Objective for Infinite {
    type Batch = u64;
    type Together = ();

    fn batch(&self, start: u64, size: usize, _: f64) -> Result<u64> {
        Ok(start / size as u64)
    }

    fn losses(&self, graph: &Graph<'_>, &index: &u64, _: Option<(&(), usize)>) -> Result<Losses> {
        let far = if index == 2 { f64::INFINITY } else { 0.0 };
        let far = Var::constant(Tensor::full(graph.params().device(), DType::F32, [1], far)?);
        let weight = graph.param(graph.params().find("weight").expect("a parameter"));
        let total = ops::add(&ops::sum(&weight)?, &ops::sum(&far)?)?;
        Ok(Losses {
            phase: Phase::Instruct,
            parts: vec![Part { name: "far", loss: far.tensor().clone(), weight: 1.0, terms: 1.0 }],
            predictions: None,
            total,
        })
    }
}

#[test]
fn an_infinite_loss_stops_before_the_step_though_its_gradient_is_finite() {
    let mut builder = ParamBuilder::new();
    builder.add("weight", [3], Init::Ones).expect("a name");
    let mut params = builder.build(&Device::cpu(), DType::F32, 0).expect("parameters");
    let recipe = Recipe::parse(RECIPE, Path::new("parts.toml"), &[]).expect("a recipe");
    let training = Phase::Instruct.training(&recipe).expect("a phase");
    let mut optimizer = optimizer(&params, &training, 0).expect("an optimiser");
    let mut weights = Vec::new();
    let stopped = fit(&Infinite, &mut params, &mut optimizer, &training, 0, |_, params, _| {
        weights = params.master(params.find("weight").expect("a parameter")).to_f64()?;
        Ok(Flow::Continue)
    });
    let text = format!("{:#}", stopped.expect_err("an infinite loss"));
    assert!(text.starts_with("step 3: far is inf, loss is inf: "), "{text}");
    let id = params.find("weight").expect("a parameter");
    assert_eq!(params.master(id).to_f64().expect("numbers"), weights, "as the second step left it");
}
