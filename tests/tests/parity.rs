//! Models read from the reference's folders compute what the reference computes: tests/fixtures/parity.py made both.

use engine::{AdamW, DType, Device, Graph, Optimizer};
use lenslet_tests::{Expected, cases};
use model::hf::{self, Model};
use std::path::Path;

/// The largest error allowed, as a share of the reference's length: f32 sums in another order; bf16 keeps 8 bits, and a dozen
/// roundings lie between input and output.
const F32: f64 = 1e-4;
const BF16: f64 = 2e-2;

/// Gradients are compared as a share of their own length, or of this share of the model's longest: that of a key's bias is 0
/// but for rounding, for it moves all scores of a query alike.
const SMALL: f64 = 0.02;

/// In bf16 a gradient may also be off by this factor of what the reference in bf16 is off itself: a dozen roundings forth and as
/// many back leave some at more than [`BF16`], there as here.
const ROUGH: f64 = 3.0;

fn length(x: &[f64]) -> f64 {
    x.iter().map(|x| x * x).sum::<f64>().sqrt()
}

/// The length of the difference as a share of the expected length, or of `least` if that is more.
fn error(expected: &[f64], found: &[f64], least: f64) -> f64 {
    assert_eq!(expected.len(), found.len());
    let difference: Vec<f64> = expected.iter().zip(found).map(|(a, b)| a - b).collect();
    length(&difference) / length(expected).max(least).max(1e-9)
}

/// What is wrong with a case.
struct Verdict {
    case: String,
    wrong: Vec<String>,
}

impl Verdict {
    fn judge(&mut self, name: &str, error: f64, allowed: f64) {
        if error.is_nan() || error > allowed {
            let line = format!("{}: {name} is {error:.1e} off, {allowed:.1e} allowed", self.case);
            self.wrong.push(line);
        }
    }
}

/// Every parameter's gradient, from a folder in which they are stored as if they were the parameters.
fn gradients(folder: &Path, name: &str) -> Vec<Vec<f64>> {
    let (_, params) = hf::load(&folder.join(name), &Device::cpu(), DType::F32, false).unwrap();
    params.ids().map(|id| params.master(id).to_f64().unwrap()).collect()
}

/// Runs a case in a type; returns what is wrong.
fn run(folder: &Path, dtype: DType, tolerance: f64) -> Vec<String> {
    let (model, params) = hf::load(folder, &Device::cpu(), dtype, false).unwrap();
    let expected = Expected::open(folder);
    let mut verdict =
        Verdict { case: format!("{} in {dtype}", folder.file_name().unwrap().display()), wrong: Vec::new() };
    let g = Graph::training(&params, 0);
    let trace = model.trace(&g, &expected.inputs(&params)).unwrap();
    let inputs = ["input_ids", "labels", "lengths", "pixel_values", "loss"];
    for name in expected.names().filter(|name| !inputs.contains(name)) {
        let (_, found) = trace.iter().find(|(found, _)| found == name).expect(name);
        let off = error(&expected.numbers(name), &found.tensor().to_f64().unwrap(), 0.0);
        verdict.judge(name, off, tolerance);
    }
    let loss = expected.loss(&g, &model, &trace).unwrap();
    let off = error(&expected.numbers("loss"), &[loss.tensor().item().unwrap()], 0.0);
    verdict.judge("loss", off, tolerance);
    let mut optimizer = Optimizer::new(&params, AdamW::default()).unwrap();
    g.backward(&loss, optimizer.gradients()).unwrap();
    let found = optimizer.gradients().tensor().unwrap().to_f64().unwrap();
    let (reference, rough) = (gradients(folder, "gradients"), gradients(folder, "gradients-bf16"));
    let small = SMALL * reference.iter().map(|x| length(x)).fold(0.0, f64::max);
    let mut start = 0;
    for (id, (wanted, rough)) in params.ids().zip(reference.iter().zip(&rough)) {
        let (name, range) = (params.name(id), start..start + wanted.len());
        start = range.end;
        // BLIP-2's files hold no temperature: the reference's loss has a fixed one.
        if name == "logit_scale" && matches!(model, Model::Retrieval(..)) {
            continue;
        }
        let allowed = match dtype {
            DType::BF16 => tolerance.max(ROUGH * error(wanted, rough, small)),
            _ => tolerance,
        };
        let off = error(wanted, &found[range], small);
        verdict.judge(&format!("the gradient of {name}"), off, allowed);
    }
    verdict.wrong
}

fn all(dtype: DType, tolerance: f64) {
    let wrong: Vec<String> = cases().iter().flat_map(|case| run(case, dtype, tolerance)).collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_family_agrees_with_the_reference_in_f32() {
    all(DType::F32, F32);
}

#[test]
fn every_family_agrees_with_the_reference_in_bf16() {
    all(DType::BF16, BF16);
}
