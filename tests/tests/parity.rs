//! Models read from the reference's folders compute what the reference computes: tests/fixtures/parity.py made both.

use engine::ops::{self, Attend};
use engine::{AdamW, DType, Device, Graph, Optimizer, Pairs, Params, Tensor, Var};
use model::hf::{self, Model};
use model::weights::TensorFile;
use model::{Decoder, DualEncoder, QFormer, Texts, Vit, Vlm};
use std::path::{Path, PathBuf};

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

/// What the reference computed.
struct Expected {
    file: TensorFile,
    case: String,
    tolerance: f64,
    wrong: Vec<String>,
}

impl Expected {
    fn numbers(&self, name: &str) -> Vec<f64> {
        let tensor = self.file.tensor(name, &Device::cpu()).unwrap();
        match tensor.dtype() {
            DType::I32 => tensor.to_vec::<i32>().unwrap().into_iter().map(f64::from).collect(),
            _ => tensor.to_f64().unwrap(),
        }
    }

    fn ids(&self, name: &str) -> (Vec<i32>, Vec<usize>) {
        let tensor = self.file.tensor(name, &Device::cpu()).unwrap();
        (tensor.to_vec().unwrap(), tensor.shape().to_vec())
    }

    fn pixels(&self, params: &Params) -> Var {
        let tensor = self.file.tensor("pixel_values", params.device()).unwrap();
        Var::constant(tensor.cast(params.dtype()).unwrap())
    }

    fn texts(&self) -> Texts {
        let (ids, shape) = self.ids("input_ids");
        let lens = match self.file.shape("lengths") {
            Some(_) => self.ids("lengths").0,
            None => vec![shape[1] as i32; shape[0]],
        };
        Texts {
            batch: shape[0],
            tokens: shape[1],
            ids,
            lens,
        }
    }

    fn check(&mut self, name: &str, found: &Tensor) {
        let expected = self.numbers(name);
        self.compare(name, &expected, &found.to_f64().unwrap());
    }

    fn compare(&mut self, name: &str, expected: &[f64], found: &[f64]) {
        self.judge(name, error(expected, found, 0.0), self.tolerance);
    }

    fn judge(&mut self, name: &str, error: f64, allowed: f64) {
        // Written so that NaN is wrong.
        if !(error <= allowed) {
            self.wrong.push(format!(
                "{}: {name} is {error:.1e} off, {allowed:.1e} allowed",
                self.case
            ));
        }
    }

    /// Compares hidden states one by one and in number.
    fn states(&mut self, prefix: &str, states: &[Var]) {
        let count = self
            .file
            .names()
            .filter(|name| name.starts_with(&format!("{prefix}.")))
            .count();
        assert_eq!(count, states.len(), "{}: {prefix}", self.case);
        for (i, state) in states.iter().enumerate() {
            self.check(&format!("{prefix}.{i}"), state.tensor());
        }
    }
}

/// Labels, each moved to the place before it, where it is predicted.
fn targets((labels, shape): (Vec<i32>, Vec<usize>)) -> Vec<i32> {
    let next = |row: &[i32]| row[1..].iter().copied().chain([model::IGNORE]).collect::<Vec<_>>();
    labels.chunks(shape[1]).flat_map(next).collect()
}

/// What all language models have in common: from embedded tokens to hidden states, logits and loss.
fn language(g: &Graph<'_>, decoder: &Decoder, x: &Var, expected: &mut Expected) -> Var {
    let device = g.params().device();
    let (batch, tokens) = (x.shape()[0], x.shape()[1]);
    let positions: Vec<i32> = (0..batch * tokens).map(|i| (i % tokens) as i32).collect();
    let positions = Tensor::from_slice(device, &positions, [batch, tokens]).unwrap();
    let mut states = Vec::new();
    let mut seen = |x: &Var| states.push(x.clone());
    let out = decoder.states(g, x, &positions, &Attend::causal(), &mut seen).unwrap();
    expected.states("hidden_states", &states);
    expected.check("logits", decoder.logits(g, &out).unwrap().tensor());
    let rows = ops::reshape(&out, [batch * tokens, x.shape()[2]]).unwrap();
    let targets = Tensor::from_slice(device, &targets(expected.ids("labels")), [batch * tokens]).unwrap();
    ops::linear_cross_entropy(&rows, &g.param(decoder.head()), &targets, 0.0)
        .unwrap()
        .loss
}

fn text_model(g: &Graph<'_>, decoder: &Decoder, expected: &mut Expected) -> Var {
    let (ids, shape) = expected.ids("input_ids");
    let ids = Tensor::from_slice(g.params().device(), &ids, [shape[0], shape[1]]).unwrap();
    let x = decoder.embed(g, &ids).unwrap();
    language(g, decoder, &x, expected)
}

fn vlm(g: &Graph<'_>, vlm: &Vlm, expected: &mut Expected) -> Var {
    let image_token = vlm.config.image_token.unwrap() as i32;
    let (ids, shape) = expected.ids("input_ids");
    let visual = vlm.visual_tokens(g, &expected.pixels(g.params())).unwrap();
    let x = vlm.interleave(g, &ids, shape[1], image_token, &visual).unwrap();
    language(g, &vlm.decoder, &x, expected)
}

fn dual(g: &Graph<'_>, dual: &DualEncoder, expected: &mut Expected) -> Var {
    let (mut images, mut texts) = (Vec::new(), Vec::new());
    let pixels = expected.pixels(g.params());
    let image = dual
        .image_features(g, &pixels, &mut |x| images.push(x.clone()))
        .unwrap();
    let text = dual
        .text_features(g, &expected.texts(), &mut |x| texts.push(x.clone()))
        .unwrap();
    expected.states("vision_hidden_states", &images);
    expected.states("text_hidden_states", &texts);
    let (scores, logits) = (dual.scores(g, &image, &text).unwrap(), expected.numbers("logits"));
    expected.compare("logits", &logits, &scores.concat());
    dual.loss(g, &image, &text).unwrap()
}

fn retrieval(g: &Graph<'_>, vit: &Vit, qformer: &QFormer, expected: &mut Expected) -> Var {
    let image = vit.forward(g, &expected.pixels(g.params())).unwrap();
    expected.check("vision_last_hidden_state", image.tensor());
    let texts = expected.texts();
    expected.check("itm_logits", qformer.itm_logits(g, &image, &texts).unwrap().tensor());
    let (queries, words) = (
        qformer.itc_features(g, &image).unwrap(),
        qformer.text_features(g, &texts).unwrap(),
    );
    let itc = ops::clip_loss(&queries, &words, &qformer.logit_scale(g).unwrap()).unwrap();
    let numbers = |x: &[i32]| Tensor::from_slice(g.params().device(), x, [x.len()]).unwrap();
    let all: Vec<i32> = (0..texts.batch as i32).collect();
    let pairs = Pairs {
        images: numbers(&all),
        texts: numbers(&all),
        labels: numbers(&expected.ids("labels").0),
    };
    let itm = qformer.itm_loss(g, &image, &texts, &pairs).unwrap().loss;
    ops::add(&itc, &itm).unwrap()
}

/// Every parameter's gradient, from a folder in which they are stored as if they were the parameters.
fn gradients(folder: &Path, name: &str) -> Vec<Vec<f64>> {
    let (_, params) = hf::load(&folder.join(name), &Device::cpu(), DType::F32, false).unwrap();
    params.ids().map(|id| params.master(id).to_f64().unwrap()).collect()
}

/// Runs a case in a type; returns what is wrong.
fn run(folder: &Path, dtype: DType, tolerance: f64) -> Vec<String> {
    let (model, params) = hf::load(folder, &Device::cpu(), dtype, false).unwrap();
    let mut expected = Expected {
        file: TensorFile::open(&folder.join("expected.safetensors")).unwrap(),
        case: format!("{} in {dtype}", folder.file_name().unwrap().display()),
        tolerance,
        wrong: Vec::new(),
    };
    let g = Graph::training(&params, 0);
    let loss = match &model {
        Model::Decoder(decoder) => text_model(&g, decoder, &mut expected),
        Model::Vlm(model) => vlm(&g, model, &mut expected),
        Model::Dual(model) => dual(&g, model, &mut expected),
        Model::Retrieval(vit, qformer) => retrieval(&g, vit, qformer, &mut expected),
    };
    expected.check("loss", loss.tensor());
    let mut optimizer = Optimizer::new(&params, AdamW::default()).unwrap();
    g.backward(&loss, optimizer.gradients()).unwrap();
    let found = optimizer.gradients().to_f64().unwrap();
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
        expected.judge(&format!("the gradient of {name}"), off, allowed);
    }
    expected.wrong
}

fn cases() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/parity");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    cases.sort();
    assert_eq!(cases.len(), 19, "a case is missing");
    cases
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
